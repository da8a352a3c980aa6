"""Writing the control files that follow from a host's name; the current directory is the home."""

import os
from collections.abc import Callable, Iterable

from qm.disk import atomic
from qm.errors import Temporary
from qm.wire import hostcontrols

_MODE = 0o644


def _write(name: str, text: bytes) -> None:
    atomic.replace(f"control/{name}", lambda file: file.write(text), mode=_MODE)


def put_single_lines(host: str, say: Callable[[str], None]) -> None:
    """Make control/me, defaultdomain and plusdomain those of *host*; raises Temporary."""
    os.makedirs("control", 0o755, exist_ok=True)
    for name, value in hostcontrols.single_lines(host).items():
        say(f"Putting {value} into control/{name}...")
        _write(name, f"{value}\n".encode())


def put_domains(name: str, domains: Iterable[str], *, keep: bool) -> None:
    """Make the list control/*name* these *domains*; with *keep* they come behind what it says; raises Temporary."""
    before = b""
    if keep:
        try:
            with open(f"control/{name}", "rb") as file:
                before = file.read()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Temporary("cannot read a control file", detail=f"control/{name}: {error.strerror}") from error
    known = {line.rstrip(b" \t").lower() for line in before.split(b"\n")}
    lines = [domain.encode() for domain in domains if domain.encode() not in known]
    if before and not before.endswith(b"\n"):
        before += b"\n"
    _write(name, before + b"".join(line + b"\n" for line in lines))
