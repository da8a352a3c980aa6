"""How an address that lacks a host or a domain is completed (qmail.md 16.1); `complete` has the order."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from qm.errors import Permanent, QmError, Temporary
from qm.wire.rfc822address import Rewrite, single
from qm.wire.rfc822token import AT, ATOM, DOT, LITERAL, Token, Unparsable

CONTROLS: Final = ("defaultdomain", "defaulthost", "idhost", "plusdomain")


class Source(Protocol):
    """The control files, as qm.disk.control.Controls has them."""

    def present(self, name: str) -> bool: ...

    def line(self, name: str) -> bytes: ...


class Hosts(NamedTuple):
    """Names of hosts, as tokens."""

    default_domain: list[Token]
    default_host: list[Token]
    plus_domain: list[Token]
    id_host: bytes


def host_tokens(host: bytes) -> list[Token]:
    """The tokens of the name or address literal *host*; raises Unparsable if it is neither."""
    return single(b"@" + host)[2:]


def _host(controls: Source, name: str, env: Mapping[bytes, bytes], variable: bytes) -> bytes:
    """The environment beats the control file, and that control/me; without any of them it is a word of its own."""
    failure: type[QmError] = Permanent
    where, value = variable.decode(), env.get(variable)
    if value is None:
        failure, where = Temporary, f"control/{name}"
        known = controls.present(name) or controls.present("me")
        value = controls.line(name) if known else name.encode()
    try:
        host_tokens(value)
    except Unparsable as error:
        raise failure("a host name cannot be used", detail=f"{where}: {error}") from error
    return value


def hosts(controls: Source, env: Mapping[bytes, bytes]) -> Hosts:
    """Raises Permanent or Temporary for what is no host name."""
    domain, host, identity, plus = (_host(controls, name, env, b"QMAIL" + name.upper().encode()) for name in CONTROLS)
    return Hosts(host_tokens(domain), host_tokens(host), host_tokens(plus), identity)


def _is_exempt(address: list[Token]) -> bool:
    """``<>``, and what VERP leaves to send: ``x@[]``."""
    return not address or (len(address) > 1 and address[-2] is AT and address[-1].value == b"[]")


def _without_route(address: list[Token]) -> list[Token]:
    """``@a,@b:user@c`` is user@c (RFC 5322 4.4)."""
    if address[0] is not AT:
        return address
    kinds = [token.kind for token in address]
    return address[kinds.index(b":") + 1 :] if b":" in kinds else []


def _plus(address: list[Token], plus_domain: list[Token]) -> list[Token]:
    last = address[-1]
    if last.kind != ATOM or not last.value.endswith(b"+"):
        return address
    name = last.value[:-1]
    return [*address[:-1], *([Token(ATOM, name, name)] if name else []), DOT, *plus_domain]


def _is_dotless(address: list[Token]) -> bool:
    at = max(place for place, token in enumerate(address) if token is AT)
    return not any(token is DOT or token.kind == LITERAL for token in address[at + 1 :])


def complete(address: list[Token], hosts: Hosts) -> list[Token]:
    if _is_exempt(address):
        return address
    address = _without_route(address)
    for extra in (DOT, AT):
        if address and address[-1] is extra:
            address = address[:-1]
    if not address:
        return address
    if AT not in address:
        address = [*address, AT, *hosts.default_host]
    address = _plus(address, hosts.plus_domain)
    if _is_dotless(address):
        address = [*address, DOT, *hosts.default_domain]
    return address


def rewriter(hosts: Hosts) -> Rewrite:
    return lambda address: complete(address, hosts)
