"""How well a connection to another host must be protected: control/tlspolicy, and what is made of it for one host.

A line is ``domain:level name ...``.  The next-hop domain (or the relay of smtproutes), each end of it that begins with
a dot, and the empty key are looked up; the first hit wins.  Levels: ``none`` clear text; ``may`` TLS if it is offered;
``encrypt`` TLS with whomever; ``verify`` a certificate that a root vouches for, with one of the names; ``dane`` TLSA
records that DNSSEC vouches for; ``auto``, as without a line: what the domain itself asks for by DANE or MTA-STS, else
``may``.  A name is a host's, ``.domain`` for any host below it, or ``mx`` for the mail exchanger's own.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.wire.route import walk
from qm.wire.tlsa import Tlsa

MX_NAME: Final = b"mx"


class Level(Enum):
    AUTO = b"auto"
    NONE = b"none"
    MAY = b"may"
    ENCRYPT = b"encrypt"
    VERIFY = b"verify"
    DANE = b"dane"


class Trouble(Enum):
    """Why a session is not protected as it must be, in the words of RFC 8460 4.3."""

    NOT_OFFERED = "starttls-not-supported"
    WRONG_NAME = "certificate-host-mismatch"
    NOT_TRUSTED = "certificate-not-trusted"
    EXPIRED = "certificate-expired"
    FAILED = "validation-failure"
    NO_TLSA = "dane-required"
    BAD_TLSA = "tlsa-invalid"
    NO_DNSSEC = "dnssec-invalid"


class Need(Enum):
    """What the message itself asks for (RFC 8689)."""

    NOTHING = 0
    REQUIRED = 1  # REQUIRETLS, and its sender can be told if that cannot be had
    WAIVED = 2  # TLS-Required: No


class Rule(NamedTuple):
    level: Level
    names: tuple[bytes, ...] = ()  # in lower case; for VERIFY


UNRULED: Final = Rule(Level.AUTO)


class Demand(NamedTuple):
    """What one session must be; two that are equal may share one."""

    level: Level  # never AUTO
    source: bytes  # who wants it so, one word for log and report
    names: tuple[bytes, ...] = ()  # one of them must be in the certificate: VERIFY, and DANE with a trust anchor
    tlsa: tuple[Tlsa, ...] = ()  # DANE: the usable ones, at least one
    trial: bool = False  # MTA-STS in testing mode: a failure is noted, and the mail delivered all the same


CLEAR: Final = Demand(Level.NONE, b"fallback")


class BadPolicy(Temporary):
    """A line of tlspolicy that means nothing."""


def _bad(key: bytes, why: str) -> BadPolicy:
    detail = f"control/tlspolicy: {key.decode('ascii', 'replace')}: {why}"
    return BadPolicy("a control file is broken", detail=detail)


def _rule(key: bytes, value: bytes) -> Rule:
    word, *names = value.lower().split() or [b""]
    try:
        level = Level(word)
    except ValueError as error:
        raise _bad(key, "the level is none of none, may, encrypt, verify, dane, auto") from error
    if names and level is not Level.VERIFY:
        raise _bad(key, "only verify takes names")
    return Rule(level, tuple(names))


def find(table: Mapping[bytes, bytes], host: bytes) -> Rule:
    """The rule for a next hop, in lower case; raises BadPolicy for a broken line."""
    if table:
        for key in walk(host):
            if key in table:
                return _rule(key, table[key])
    return UNRULED


def check(table: Mapping[bytes, bytes]) -> None:
    """Raise BadPolicy for the first line that means nothing."""
    for key, value in table.items():
        _rule(key, value)


def ladder(demand: Demand) -> tuple[Demand, ...]:
    """What to try one after another, each on a connection of its own, when the handshake before has failed."""
    if demand.level is Level.MAY:
        return demand, CLEAR
    if demand.trial:
        return demand, Demand(Level.MAY, demand.source), CLEAR
    return (demand,)
