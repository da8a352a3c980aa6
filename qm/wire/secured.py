"""What TLS has agreed on, as a program's environment tells it (as ucspi-ssl names it): what is told, and read back.

It is from qm-tlsd, by way of qm-tls or of who has asked it for STARTTLS or STLS.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from qm.wire.record import Malformed
from qm.wire.tlsjob import Facts, read_bindings, show_bindings

_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Secured(NamedTuple):
    """What the peer and qm-tlsd have agreed on."""

    version: bytes
    cipher: bytes
    sni: bytes = b""  # the name that the client called us by
    client: bytes = b""  # in a client certificate that has been verified
    bindings: Mapping[bytes, bytes] = _NOTHING  # channel bindings by their type (RFC 5056)


def environment(facts: Facts) -> dict[bytes, bytes]:
    """The variables that tell *facts*; what has no value is not set."""
    values = {
        b"SSL_PROTOCOL": facts.version,
        b"SSL_CIPHER": facts.cipher,
        b"SSL_CIPHER_USEKEYSIZE": b"%d" % facts.bits,
        b"SSL_TLS_SNI": facts.sni,
        b"SSL_CLIENT_S_DN": facts.client,
        b"TLSBINDINGS": show_bindings(facts.bindings),
    }
    return {name: value for name, value in values.items() if value}


def secured_by(env: Mapping[bytes, bytes]) -> Secured | None:
    """What `environment` has told; None for a connection in clear."""
    if b"SSL_PROTOCOL" not in env:
        return None
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
