"""What a session with one host must be: our rule, what the host's domain asks for, what the message asks for.  Pure."""

from typing import Final, NamedTuple

from qm.wire.remotejob import Host
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import MX_NAME, Demand, Level, Rule

_AUTO: Final = Demand(Level.MAY, b"may")


class Unfit(NamedTuple):
    """A host that must not be used; *why* is a sentence with a %b for its address."""

    why: bytes


def demand(rule: Rule, destination: Destination, host: Host) -> Demand | Unfit:
    """What a session with *host* must be."""
    if rule.level is Level.AUTO:
        return _AUTO
    if rule.level is Level.VERIFY:
        return Demand(Level.VERIFY, b"tlspolicy", _names(rule, destination, host))
    if rule.level is Level.DANE:
        return Unfit(b"I did not use %b: it has no TLSA records that count.")
    return Demand(rule.level, b"tlspolicy")


def _names(rule: Rule, destination: Destination, host: Host) -> tuple[bytes, ...]:
    """Without names in the rule: the next hop, or any host below it; who its exchangers are, DNS alone says."""
    if not rule.names:
        return destination.host, b"." + destination.host
    return tuple(host.name.lower() if name == MX_NAME else name for name in rule.names)
