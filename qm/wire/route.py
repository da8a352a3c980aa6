"""Where a recipient goes: to a user of this machine, or to another host (qmail.md 7.5, 7.10).

send and userd both ask here, so that what smtpd is told about an address is what will happen to it.  Domains and
virtual users match without regard to ASCII case; the address itself keeps its case.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol

CONTROLS: Final = ("envnoathost", "locals", "percenthack", "virtualdomains")  # what `rules` reads


class Source(Protocol):
    """The control files, as qm.disk.control.Controls has them."""

    def line(self, name: str) -> bytes: ...

    def lines(self, name: str) -> tuple[bytes, ...]: ...

    def table(self, name: str) -> Mapping[bytes, bytes]: ...


class Rules(NamedTuple):
    """A snapshot of the control files; every domain and key in lower case."""

    envnoathost: bytes
    locals: frozenset[bytes]
    percenthack: frozenset[bytes]
    virtualdomains: Mapping[bytes, bytes]  # to the user, or to nothing for an exception that stays remote


class Local(NamedTuple):
    address: bytes  # with the virtual user before it
    why: bytes  # the control file, and its key where there is a choice


class Remote(NamedTuple):
    address: bytes
    why: bytes


Route = Local | Remote


def rules(controls: Source) -> Rules:
    """The rules that CONTROLS make; raises what reading them raises."""
    return Rules(
        controls.line("envnoathost"),
        frozenset(name.lower() for name in controls.lines("locals")),
        frozenset(name.lower() for name in controls.lines("percenthack")),
        {key.lower(): user for key, user in controls.table("virtualdomains").items()},
    )


def _complete(rules: Rules, address: bytes) -> bytes:
    """*address* with a host, and with the percent hack undone."""
    local, at, domain = address.rpartition(b"@")
    if not at:
        local, domain = domain, rules.envnoathost
    while b"%" in local and domain.lower() in rules.percenthack:
        local, _, domain = local.rpartition(b"%")
    return local + b"@" + domain


def walk(domain: bytes) -> Iterator[bytes]:
    """The domain, each end of it that begins with a dot, and nothing (qmail.md 2.5)."""
    yield domain
    dot = domain.find(b".", 1)
    while dot >= 0:
        yield domain[dot:]
        dot = domain.find(b".", dot + 1)
    yield b""


def route(rules: Rules, address: bytes) -> Route:
    """Where *address*, any bytes, goes."""
    address = _complete(rules, address)
    lower = address.lower()
    domain = lower.rpartition(b"@")[2]
    if domain in rules.locals:
        return Local(address, b"locals")
    if rules.virtualdomains:
        for key in (lower, *walk(domain)):
            user = rules.virtualdomains.get(key)
            if user:
                return Local(user + b"-" + address, b"virtualdomains " + key)
            if user is not None:
                return Remote(address, b"virtualdomains " + key)
    return Remote(address, b"neither in locals nor in virtualdomains")


def without_prefix(rules: Rules, address: bytes) -> bytes:
    """A local *address* as its sender wrote it, for bounces.

    As in qmail a virtual user's ``user@domain`` line is not looked at, and the prefix must match to the letter
    (qmail.md 7.10).
    """
    _, at, domain = address.rpartition(b"@")
    if at:
        for key in walk(domain.lower()):
            user = rules.virtualdomains.get(key)
            if user is not None:
                return address.removeprefix(user + b"-") if user else address
    return address
