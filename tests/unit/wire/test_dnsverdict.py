"""The closed table: what DNS answers mean for mail."""

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.dnsverdict import PERMANENT, TTL_MAX_S, Finding, Mx, Verdict, judge
from qm.wire.tlsa import Tlsa

QUERY = dns.message.make_query("x.test.", "MX")
SOA = "test. 60 IN SOA ns.test. root.test. 1 2 3 4 5"
NS = "test. 60 IN NS ns.test."


def reply(
    *answer: str,
    rcode: str = "NOERROR",
    authority: str = SOA,
    flags: int = dns.flags.RA,
    query: dns.message.Message = QUERY,
) -> bytes:
    """The wire form of an answer to *query*; records as ``name ttl IN TYPE data``."""
    message = dns.message.make_response(query)
    message.flags |= flags
    message.set_rcode(dns.rcode.from_text(rcode))
    for section, records in ((message.answer, answer), (message.authority, (authority,) if authority else ())):
        for record in records:
            name, ttl, rdclass, rdtype, data = record.split(None, 4)
            section.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, data))
    return bytes(message.to_wire())


def verdict(wire: bytes) -> Verdict | None:
    finding = judge(QUERY, wire)
    return finding.verdict if finding else None


def test_only_two_are_permanent() -> None:
    """NXDOMAIN and NODATA prove something; no other outcome does."""
    assert {Verdict.NODATA, Verdict.NXDOMAIN} == PERMANENT


@pytest.mark.parametrize(
    ("wire", "want"),
    [
        (reply("x.test. 60 IN MX 10 a.test."), Verdict.FOUND),
        (reply(), Verdict.NODATA),
        (reply(flags=dns.flags.AA), Verdict.NODATA),
        (reply(rcode="NXDOMAIN"), Verdict.NXDOMAIN),
        (reply("x.test. 60 IN CNAME y.test.", rcode="NXDOMAIN"), Verdict.NXDOMAIN),
        (reply(rcode="NXDOMAIN", flags=0), Verdict.LAME),
        (reply(flags=0), Verdict.LAME),
        (reply(authority=NS), Verdict.LAME),
        (reply(rcode="REFUSED"), Verdict.REFUSED),
        (reply(rcode="SERVFAIL"), Verdict.SERVFAIL),
        (reply(rcode="NOTIMP"), Verdict.FORMERR),
        (reply(rcode="FORMERR"), Verdict.FORMERR),
        (reply(rcode="NOTAUTH"), Verdict.SERVFAIL),
        (reply(rcode="YXDOMAIN"), Verdict.SERVFAIL),
        (reply("x.test. 60 IN MX 10 a.test.", flags=dns.flags.RA | dns.flags.TC), Verdict.TRUNCATED),
        (reply(*[f"{'x' if n == 0 else n}.test. 60 IN CNAME {n + 1}.test." for n in range(20)]), Verdict.BOGUS),
        (reply()[:2] + b"\x80", Verdict.BOGUS),
        (b"", None),
        (b"\0" * 12, None),
        (QUERY.to_wire(), None),
        (reply(query=dns.message.make_query("x.test.", "MX", id=(QUERY.id + 1) & 0xFFFF)), None),
        (reply(query=dns.message.make_query("y.test.", "MX", id=QUERY.id)), None),
        (reply(query=dns.message.make_query("x.test.", "A", id=QUERY.id)), None),
    ],
)
def test_table(wire: bytes, want: Verdict | None) -> None:
    """Each kind of answer has one meaning; what is not an answer to the question has none."""
    assert verdict(wire) is want


def test_mx() -> None:
    """MX records come in lower case, without the last dot, and with the least TTL of the chain."""
    wire = reply("x.test. 60 IN CNAME Y.test.", "y.test. 30 IN MX 10 A.Test.")
    assert judge(QUERY, wire) == Finding(Verdict.FOUND, mx=(Mx(10, "a.test"),), ttl_s=30)


def test_null_mx_is_an_answer() -> None:
    """The root as exchanger is found, and has no name."""
    finding = judge(QUERY, reply("x.test. 60 IN MX 0 ."))
    assert finding and finding.mx == (Mx(0, ""),)


def test_ttl_has_a_bound() -> None:
    """No answer is believed for more than a day."""
    finding = judge(QUERY, reply(f"x.test. {2**31 - 1} IN MX 1 a.test."))
    assert finding and finding.ttl_s == TTL_MAX_S


@pytest.mark.parametrize(("rdtype", "address"), [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")])
def test_addresses(rdtype: str, address: str) -> None:
    """Addresses are text in their shortest form."""
    query = dns.message.make_query("x.test.", rdtype)
    finding = judge(query, reply(f"x.test. 60 IN {rdtype} {address}", query=query))
    assert finding == Finding(Verdict.FOUND, addresses=(address.encode(),), ttl_s=60, canonical="x.test")


def test_secure() -> None:
    """What the server says about DNSSEC is told, for records and for their absence."""
    query = dns.message.make_query("_25._tcp.x.test.", "TLSA")
    answer = dns.message.from_wire(reply("_25._tcp.x.test. 60 IN TLSA 3 1 0 00ff", query=query))
    answer.flags |= dns.flags.AD
    finding = judge(query, answer.to_wire())
    assert finding == Finding(Verdict.FOUND, tlsa=(Tlsa(3, 1, 0, b"\x00\xff"),), ttl_s=60, secure=True)
    answer.answer.clear()
    assert judge(query, answer.to_wire()) == Finding(Verdict.NODATA, secure=True)


def test_texts() -> None:
    """The strings of a TXT record are one."""
    query = dns.message.make_query("x.test.", "TXT")
    finding = judge(query, reply('x.test. 60 IN TXT "a" "b c"', query=query))
    assert finding and finding.texts == (b"ab c",)


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes(wire: bytes, ours: bool) -> None:
    """Any bytes have a meaning or none, and are never a proof that something does not exist."""
    if ours:
        wire = QUERY.id.to_bytes(2, "big") + wire
    finding = judge(QUERY, wire)
    assert finding is None or finding.verdict not in PERMANENT


@given(st.data())
def test_a_damaged_answer(data: st.DataObject) -> None:
    """An answer with a byte changed or cut off raises nothing."""
    wire = bytearray(reply("x.test. 60 IN CNAME y.test.", "y.test. 60 IN MX 10 a.test."))
    at = data.draw(st.integers(2, len(wire) - 1))
    wire[at] = data.draw(st.integers(0, 255))
    judge(QUERY, bytes(wire[: data.draw(st.integers(2, len(wire)))]))
