"""What a session with one host must be: our rule, what the host's domain asks for, what the message asks for.  Pure."""

from typing import Final, NamedTuple

from qm.wire import mtasts, tlsa
from qm.wire.mtasts import Mode, Policy
from qm.wire.remotejob import Host, Trust
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import MX_NAME, Demand, Level, Rule, Trouble

_MAY: Final = Demand(Level.MAY, b"may")


class Unfit(NamedTuple):
    """A host that must not be used; *why* is a sentence with a %b for its address."""

    why: bytes
    trouble: Trouble
    source: bytes  # who wants it so, as in a Demand


def demand(rule: Rule, destination: Destination, host: Host, sts: Policy | None) -> Demand | Unfit:
    """What a session with *host* must be; *sts* is the destination's policy, which DANE outranks (RFC 8461 2)."""
    if rule.level is Level.AUTO:
        return _dane(destination, host) or _sts(host, sts) or _MAY
    if rule.level is Level.VERIFY:
        return Demand(Level.VERIFY, b"tlspolicy", _names(rule, destination, host))
    if rule.level is Level.DANE:
        asked = _dane(destination, host)
        if isinstance(asked, Unfit) or (asked is not None and asked.level is Level.DANE):
            return asked
        return Unfit(b"I did not use %b: it has no TLSA records that count.", Trouble.NO_TLSA, b"tlspolicy")
    return Demand(rule.level, b"tlspolicy")


def _dane(destination: Destination, host: Host) -> Demand | Unfit | None:
    """What TLSA records ask for (RFC 7672 2.2); None without any."""
    if host.trust is Trust.LATER:  # RFC 7672 2.1.1: an attack looks like this
        return Unfit(b"I did not use %b: its TLSA records could not be looked up.", Trouble.NO_DNSSEC, b"DANE")
    if host.trust is not Trust.TLSA:
        return None
    records = tlsa.usable(host.tlsa)
    if not records:
        return Demand(Level.ENCRYPT, b"DANE")  # RFC 7672 2.2: TLS, but nobody to compare with
    names = dict.fromkeys((host.name.lower(), destination.host))  # RFC 7672 3.2.2
    return Demand(Level.DANE, b"DANE", tuple(names), records)


def _sts(host: Host, sts: Policy | None) -> Demand | Unfit | None:
    if sts is None or sts.mode is Mode.NONE:
        return None
    trial = sts.mode is Mode.TESTING
    source = b"MTA-STS-testing" if trial else b"MTA-STS"
    if mtasts.allows(sts, host.name):
        return Demand(Level.VERIFY, source, (host.name.lower(),), trial=trial)
    if trial:
        return Demand(Level.MAY, source)
    return Unfit(b"I did not use %b: the domain's MTA-STS policy does not name it.", Trouble.WRONG_NAME, source)


def _names(rule: Rule, destination: Destination, host: Host) -> tuple[bytes, ...]:
    """Without names in the rule: the next hop, or any host below it; who its exchangers are, DNS alone says."""
    if not rule.names:
        return destination.host, b"." + destination.host
    return tuple(host.name.lower() if name == MX_NAME else name for name in rule.names)
