"""What a DNS answer means for mail: the closed table of outcomes.

Only a resolver that works can prove that something does not exist: NXDOMAIN and NODATA, from a server that recurses
for us or is the authority.  Everything else is temporary (RFC 5321 5.1): mail systems have bounced their whole queue
because they took REFUSED for an answer.
"""

from enum import Enum
from typing import Final, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset

from qm.wire.tlsa import Tlsa

dns.rdata.load_all_types()  # type: ignore[no-untyped-call]  # else one by one, also after privileges are dropped

TTL_MAX_S: Final = 86400  # how long an answer is believed at most
_TRUNCATED: Final = 0x02  # in the third byte of a message; RFC 1035 4.1.1
_TRUSTED: Final = dns.flags.RA | dns.flags.AA


class Verdict(Enum):
    """How a question ended; the text is for people."""

    FOUND = "found"
    NODATA = "no such record"
    NXDOMAIN = "no such name"
    SERVFAIL = "the server failed"
    REFUSED = "the server refused"
    TIMEOUT = "no answer"
    BOGUS = "a malformed answer"
    LAME = "the server does not recurse"
    TRUNCATED = "an answer that was cut"
    FORMERR = "the server did not understand"


PERMANENT: Final = frozenset({Verdict.NODATA, Verdict.NXDOMAIN})  # and the null MX, which is FOUND (RFC 7505)
SETTLED: Final = PERMANENT | {Verdict.FOUND}  # no other server need be asked


class Mx(NamedTuple):
    preference: int
    name: str  # without its last dot, in lower case; empty for the root


class Finding(NamedTuple):
    verdict: Verdict
    mx: tuple[Mx, ...] = ()
    addresses: tuple[bytes, ...] = ()
    ttl_s: int = 0
    tlsa: tuple[Tlsa, ...] = ()
    texts: tuple[bytes, ...] = ()  # of TXT, each with its strings joined
    secure: bool = False  # the server says that DNSSEC vouches for it (AD); who asks must know whether to believe that
    canonical: str = ""  # of an address: the name that it is, after all CNAMEs


_RCODES: Final = {
    dns.rcode.NXDOMAIN: Verdict.NXDOMAIN,
    dns.rcode.REFUSED: Verdict.REFUSED,
    dns.rcode.FORMERR: Verdict.FORMERR,
    dns.rcode.NOTIMP: Verdict.FORMERR,
    dns.rcode.BADVERS: Verdict.FORMERR,
}


def host_name(name: dns.name.Name) -> str:
    """*name* in printable ASCII, its odd bytes escaped as ``\\ddd``."""
    return name.to_text(omit_final_dot=True).lower().removesuffix(".")


def _is_referral(answer: dns.message.Message) -> bool:
    """RFC 2308 2.2: name servers without a SOA say where to ask, not that there is nothing."""
    types = {rrset.rdtype for rrset in answer.authority}
    return dns.rdatatype.NS in types and dns.rdatatype.SOA not in types


def _negative(answer: dns.message.Message, verdict: Verdict) -> Finding:
    if not answer.flags & _TRUSTED or (verdict is Verdict.NODATA and _is_referral(answer)):
        return Finding(Verdict.LAME)
    return Finding(verdict, secure=_is_secure(answer))


def _is_secure(answer: dns.message.Message) -> bool:
    return bool(answer.flags & dns.flags.AD)  # RFC 6840 5.8


def _records(rrset: dns.rrset.RRset, ttl_s: int) -> Finding:
    ttl_s = max(0, min(ttl_s, TTL_MAX_S))
    if rrset.rdtype == dns.rdatatype.TLSA:
        tlsa = tuple(Tlsa(record.usage, record.selector, record.mtype, record.cert) for record in rrset)
        return Finding(Verdict.FOUND, tlsa=tlsa, ttl_s=ttl_s)
    if rrset.rdtype == dns.rdatatype.TXT:
        return Finding(Verdict.FOUND, texts=tuple(b"".join(record.strings) for record in rrset), ttl_s=ttl_s)
    if rrset.rdtype == dns.rdatatype.MX:
        mx = tuple(Mx(record.preference, host_name(record.exchange)) for record in rrset)
        return Finding(Verdict.FOUND, mx=mx, ttl_s=ttl_s)
    addresses = tuple(record.address.encode() for record in rrset)
    return Finding(Verdict.FOUND, addresses=addresses, ttl_s=ttl_s, canonical=host_name(rrset.name))


def judge(query: dns.message.Message, wire: bytes) -> Finding | None:
    """What *wire*, any bytes, says to *query* for MX, A, AAAA, TLSA or TXT; None if it is not an answer to it."""
    if len(wire) > 2 and wire[2] & _TRUNCATED and wire[:2] == query.id.to_bytes(2, "big"):
        return Finding(Verdict.TRUNCATED)  # what is left of it need not parse
    try:
        answer = dns.message.from_wire(wire, ignore_trailing=True)
        if not (isinstance(answer, dns.message.QueryMessage) and query.is_response(answer)):
            return None
    except dns.exception.DNSException:
        return Finding(Verdict.BOGUS) if wire[:2] == query.id.to_bytes(2, "big") else None
    rcode = answer.rcode()
    if rcode == dns.rcode.NXDOMAIN:
        return _negative(answer, Verdict.NXDOMAIN)
    if rcode != dns.rcode.NOERROR:
        return Finding(_RCODES.get(rcode, Verdict.SERVFAIL))
    try:
        chain = answer.resolve_chaining()
    except dns.exception.DNSException:  # a CNAME chain that is too long
        return Finding(Verdict.BOGUS)
    if chain.answer is None:
        return _negative(answer, Verdict.NODATA)
    return _records(chain.answer, chain.minimum_ttl)._replace(secure=_is_secure(answer))
