"""TLS as smtpd sees it: what it needs of a connection and of who starts TLS; keys and handshakes are qm-tlsd's."""

from typing import Protocol

from qm.wire.secured import Secured


class Line(Protocol):
    """The peer's connection, as qm.unix.channel.Channel has it."""

    def set_timeout(self, timeout_s: float) -> None: ...

    def read(self) -> bytes: ...

    def write(self, data: bytes | memoryview) -> None: ...

    def linger(self, delay_s: float) -> None: ...


class Starter(Protocol):
    def ready(self) -> bool: ...  # whether STARTTLS can be offered

    def start(self, timeout_s: float) -> tuple[Line, Secured]: ...  # says 220; raises Temporary before that, else Gone
