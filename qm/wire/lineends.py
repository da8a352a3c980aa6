"""Carriage returns before newlines: put in, taken out, or completed, in pieces of any size (qmail.md 21.6).

A change takes a piece and gives what may go on; the empty piece is the end.
"""

import re
from collections.abc import Callable
from typing import Final

Change = Callable[[bytes], bytes]

_BARE: Final = re.compile(rb"(?<!\r)\n")


def add_cr(piece: bytes) -> bytes:
    """One before each newline, also where there is one."""
    return piece.replace(b"\n", b"\r\n")


class DelCr:
    """Takes out one before each newline."""

    def __init__(self) -> None:
        self._held = b""  # a carriage return at the end of what came

    def __call__(self, piece: bytes) -> bytes:
        text = self._held + piece
        self._held = b"\r" if piece and text.endswith(b"\r") else b""
        return text.removesuffix(self._held).replace(b"\r\n", b"\n")


class FixCr:
    """Puts one before each newline that has none."""

    def __init__(self) -> None:
        self._last = b""

    def __call__(self, piece: bytes) -> bytes:
        text = _BARE.sub(b"\r\n", self._last + piece)[len(self._last) :]
        self._last = b"\r" if piece.endswith(b"\r") else b""
        return text
