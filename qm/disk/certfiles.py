"""The files that have our certificates, each with its key: control/servercert.pem, and by name those of a directory."""

import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final

from qm.disk.regular import open_regular
from qm.wire import certificate

DEFAULT: Final = "control/servercert.pem"
BY_NAME: Final = "control/servercerts"
SUFFIX: Final = ".pem"
WILDCARD: Final = "_."  # servercerts/_.example.org.pem is for one label more
FILES_MAX: Final = 10_000
PEM_MAX: Final = 1 << 20  # bytes


def by_name() -> list[str]:
    """The paths of those by name, in order; none where the directory is missing or not for us to see."""
    names: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        names = sorted(name for name in os.listdir(BY_NAME) if name.endswith(SUFFIX))[:FILES_MAX]
    return [os.path.join(BY_NAME, name) for name in names]


def first(text: str) -> bytes:
    """The first certificate of a PEM text, as DER; raises ValueError."""
    begin = text.index(ssl.PEM_HEADER)
    return ssl.PEM_cert_to_DER_cert(text[begin:].partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER)


def name_of(path: str, host: str) -> str:
    """Whom a file is for: *host* if it is the default, else what its own name says."""
    if path == DEFAULT:
        return host
    name = os.path.basename(path).removesuffix(SUFFIX)
    return "*." + name.removeprefix(WILDCARD) if name.startswith(WILDCARD) else name


def ends() -> Iterator[tuple[str, datetime | None]]:
    """Each file, and until when its certificate is good: None if it has none.  What we may not read is left out."""
    for path in (DEFAULT, *by_name()):
        try:
            with open(open_regular(os.path.realpath(path)), "rb") as file:
                text = file.read(PEM_MAX).decode("latin-1")
        except OSError:
            continue
        try:
            yield path, certificate.read(first(text)).until
        except ValueError:
            yield path, None
