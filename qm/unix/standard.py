"""Reading descriptor 0 and writing descriptor 1, for programs that users run."""

import os
from collections.abc import Iterator
from typing import Final

from qm.errors import Permanent, Temporary

_READ: Final = 65536  # bytes


def chunks(fd: int = 0) -> Iterator[bytes]:
    """What is left to be read, in pieces that are not empty; raises Temporary."""
    try:
        while chunk := os.read(fd, _READ):
            yield chunk
    except OSError as error:
        raise Temporary("unable to read the message", detail=f"descriptor {fd}: {error.strerror}") from error


def whole(most: int) -> bytes:
    """All that is left to be read; raises Temporary, and Permanent for more than *most* bytes."""
    text = bytearray()
    for chunk in chunks():
        text += chunk
        if len(text) > most:
            raise Permanent(f"there are more than {most} bytes on descriptor 0")
    return bytes(text)


def write(text: bytes, fd: int = 1) -> None:
    """All of it; raises Temporary."""
    try:
        while text:
            text = text[os.write(fd, text) :]
    except OSError as error:
        raise Temporary("unable to write", detail=f"descriptor {fd}: {error.strerror}") from error
