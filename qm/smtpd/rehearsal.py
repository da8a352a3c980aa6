"""A session with nobody, before workers are forked.

CPython rewrites a function's instructions in its first runs.  Learned here, once, they are shared by all workers; else
each of them makes a copy of 0.4 MB of its own, and learns again.
"""

from collections.abc import Callable
from typing import Final

from qm.smtpd.rules import Rules, peer
from qm.smtpd.session import Session
from qm.unix.log import Journal
from qm.unix.queueclient import Accepted, Trace
from qm.wire.envelope import Envelope

ROUNDS: Final = 16  # CPython 3.11 looks at code again after 8
_ENV: Final = {b"TCPREMOTEIP": b"192.0.2.1", b"TCPLOCALIP": b"192.0.2.25"}  # RFC 5737: nobody's


class _Silence(Journal):
    def write(self) -> None:
        """Nobody has called: there is nothing to tell."""


class _Peer:
    """Says what most clients say, and listens."""

    def __init__(self, recipient: bytes, *, lmtp: bool) -> None:
        body = (b"x" * 70 + b"\r\n") * 50
        self._says = iter(
            (
                b"LHLO c.example\r\n" if lmtp else b"EHLO c.example\r\n",
                b"MAIL FROM:<a@b.example>\r\n",
                b"RCPT TO:<%b>\r\n" % recipient,
                b"DATA\r\n",
                b"Subject: x\r\n\r\n" + body + b".\r\n",
                b"QUIT\r\n",
            )
        )

    def set_timeout(self, timeout_s: float) -> None:
        pass

    def read(self, most: int = 0) -> bytes:
        return next(self._says, b"")

    def write(self, data: bytes | memoryview) -> None:
        pass

    def linger(self, delay_s: float) -> None:
        pass


class _Queue:
    """Takes everything and keeps nothing."""

    def ensure(self) -> None:
        pass

    def begin(self, trace: Trace) -> "_Queue":
        return self

    def write(self, chunk: bytes | memoryview) -> None:
        pass

    def commit(self, envelope: Envelope) -> Accepted:
        return Accepted(b"0" * 18)

    def abort(self) -> None:
        pass


class _Users:
    def exists(self, address: bytes) -> tuple[bytes, bytes]:
        return b"yes", b""


def rehearse(rules: Rules, refresh: Callable[[], object]) -> None:
    """Run through ROUNDS sessions by *rules*; nothing is written, asked or logged."""
    recipient = b"postmaster@" + rules.me
    for _ in range(ROUNDS):
        refresh()
        line = _Peer(recipient, lmtp=rules.lmtp)
        Session(line, rules, peer(_ENV), lambda key: False, _Queue(), _Users(), _Silence(b"qm-smtpd")).run()
