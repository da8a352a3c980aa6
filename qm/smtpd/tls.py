"""TLS as smtpd sees it: what was agreed, by STARTTLS or before us by qm-tls; keys and handshakes are qm-tlsd's."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from qm.wire.record import Malformed
from qm.wire.tlsjob import read_bindings

_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Secured(NamedTuple):
    """What the peer and qm-tlsd have agreed on."""

    version: bytes
    cipher: bytes
    sni: bytes = b""  # the name that the client called us by
    client: bytes = b""  # in a client certificate that has been verified
    bindings: Mapping[bytes, bytes] = _NOTHING  # channel bindings by their type (RFC 5056)


class Line(Protocol):
    """The peer's connection, as qm.unix.channel.Channel has it."""

    def set_timeout(self, timeout_s: float) -> None: ...

    def read(self) -> bytes: ...

    def write(self, data: bytes | memoryview) -> None: ...

    def linger(self, delay_s: float) -> None: ...


class Starter(Protocol):
    def ready(self) -> bool: ...  # whether STARTTLS can be offered

    def start(self, timeout_s: float) -> tuple[Line, Secured]: ...  # says 220; raises Temporary before that, else Gone


def secured_by(env: Mapping[bytes, bytes]) -> Secured:
    """What qm-tls has put into the environment."""
    try:
        bindings = dict(read_bindings(env.get(b"TLSBINDINGS", b"")))
    except Malformed:
        bindings = {}  # it is not from qm-tls; SCRAM does without
    return Secured(
        env.get(b"SSL_PROTOCOL", b""),
        env.get(b"SSL_CIPHER", b""),
        env.get(b"SSL_TLS_SNI", b""),
        env.get(b"SSL_CLIENT_S_DN", b""),
        bindings,
    )
