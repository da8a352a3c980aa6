"""What smtpd takes, from whom, and why."""

import pytest

from qm.errors import Temporary
from qm.smtpd import policy, rules
from qm.wire.smtpevent import Mail
from tests.unit.smtpd.double import ENV, RULES

PEER = rules.peer(ENV)
RELAY = PEER._replace(relay=b"")


def nothing(key: bytes) -> bool:
    return False


def rcpt(
    recipient: bytes, sender: bytes = b"a@b", peer: rules.Peer = PEER, more: policy.Lookup = nothing
) -> policy.Verdict:
    return policy.judge_rcpt(RULES, peer, more, sender, recipient)


@pytest.mark.parametrize(
    ("recipient", "why"),
    [
        (b"u@b.example", b"rcpthosts:b.example"),
        (b"u@B.Example", b"rcpthosts:b.example"),
        (b"u@x.sub.example", b"rcpthosts:.sub.example"),
        (b"u@y.x.sub.example", b"rcpthosts:.sub.example"),
    ],
)
def test_ours(recipient: bytes, why: bytes) -> None:
    """A domain is ours by itself or by an end that begins with a dot, in any case (qmail.md 2.5); why is the key."""
    verdict = rcpt(recipient)
    assert (verdict.reply.code, verdict.why, verdict.address) == (250, why, recipient)


@pytest.mark.parametrize(
    "recipient", [b"u@sub.example", b"u@example", b"u@xb.example", b"u@b.example.net", b"u@x.b.example"]
)
def test_not_ours(recipient: bytes) -> None:
    """Every other domain is refused: no open relay."""
    verdict = rcpt(recipient)
    assert (verdict.reply.code, verdict.reply.status, verdict.why) == (553, b"5.7.1", b"rcpthosts")


def test_more() -> None:
    """morercpthosts.cdb is walked like rcpthosts, after it, with keys in lower case."""
    asked: list[bytes] = []

    def more(key: bytes) -> bool:
        asked.append(key)
        return key == b".c"

    assert rcpt(b"u@A.b.C", more=more).why == b"morercpthosts:.c"
    assert asked == [b"a.b.c", b".b.c", b".c"]
    asked.clear()
    rcpt(b"u@b.example", more=more)
    assert not asked


def test_broken_more() -> None:
    """A cdb that cannot be read is no answer: the caller hears of it."""

    def more(key: bytes) -> bool:
        raise Temporary("cannot read a database")

    with pytest.raises(Temporary):
        rcpt(b"u@elsewhere.example", more=more)


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        (b"bad@x.example", 553),
        (b"BAD@X.example", 553),
        (b"u@bad.example", 553),
        (b"good@x.example", 250),
        (b"", 250),
        (b"u@x.bad.example", 250),
    ],
)
def test_badmailfrom(sender: bytes, code: int) -> None:
    """A sender is bad by address or @domain, and hears so at RCPT, relay client or not (qmail.md 15.4)."""
    assert rcpt(b"u@b.example", sender).reply.code == code
    assert rcpt(b"u@b.example", sender, RELAY).reply.code == code
    assert policy.judge_mail(RULES, PEER, Mail(sender)).reply.code == 250


def test_relay_client() -> None:
    """RELAYCLIENT allows every domain, and is appended to each recipient."""
    assert rcpt(b"u@any.where", peer=RELAY)[1:] == (b"RELAYCLIENT", b"u@any.where")
    assert rcpt(b"u", peer=RELAY).address == b"u"
    assert rcpt(b"u@any.where", peer=PEER._replace(relay=b"@gw.example")).address == b"u@any.where@gw.example"


def test_relay_client_too_long() -> None:
    """What grows too long for an envelope is refused, not lost."""
    assert rcpt(b"u@b.example", peer=PEER._replace(relay=b"x" * 1000)).reply.code == 553


def test_no_domain() -> None:
    """postmaster needs no domain (RFC 5321 4.5.1), everybody else does."""
    assert rcpt(b"postMaster").address == b"postMaster@mx.example"
    assert rcpt(b"root").reply[:2] == (553, b"5.1.3")


@pytest.mark.parametrize(
    ("recipient", "want"),
    [
        (b"u@[192.0.2.25]", b"u@local.example"),
        (b"u@[192.0.2.26]", b"u@[192.0.2.26]"),
        (b"u@[192.0.2.25].x", b"u@[192.0.2.25].x"),
        (b"u@[IPv6:2001:db8::1]", b"u@[IPv6:2001:db8::1]"),
        (b"#@[]", b"#@[]"),
    ],
)
def test_localiphost(recipient: bytes, want: bytes) -> None:
    """Our own address in brackets is localiphost, for recipients and senders."""
    assert rcpt(recipient, peer=RELAY).address == want
    assert policy.judge_mail(RULES, PEER, Mail(recipient)).address == want


def test_localiphost_ipv6() -> None:
    """An IPv6 literal is compared as an address, not as text."""
    peer = RELAY._replace(local_ip=b"2001:db8::1")
    assert rcpt(b"u@[IPv6:2001:0DB8:0::0001]", peer=peer).address == b"u@local.example"
    assert rcpt(b"u@[ipv6:2001:db8::2]", peer=peer).address == b"u@[ipv6:2001:db8::2]"


def test_size() -> None:
    """A declared size over databytes is refused at MAIL (RFC 1870 6.1); DATABYTES is instead of it, 0 is no limit."""

    def code(size: int, databytes: int | None = None) -> int:
        return policy.judge_mail(RULES, PEER._replace(databytes=databytes), Mail(b"", size)).reply.code

    assert [code(1000), code(1001), code(5000, 5000), code(5001, 5000), code(10**18, 0)] == [250, 552, 250, 552, 250]


def test_count() -> None:
    """Recipients past the limit are told to come again, and so are as many more; then it is an error."""
    assert policy.judge_count(RULES, 3, 0) is None
    verdicts = [policy.judge_count(RULES, 4, refused) for refused in range(6)]
    assert [verdict and verdict.reply.code for verdict in verdicts] == [452, 452, 452, 452, 552, 552]
    assert policy.judge_count(RULES._replace(maxrecipients=0), 10**6, 0) is None


def test_mailbox() -> None:
    """userd's no is for good, its later and what we do not understand are not."""
    good = rcpt(b"u@b.example")
    assert policy.judge_mailbox(good, b"yes", b"") == good
    assert policy.judge_mailbox(good, b"no", b"why").reply[:2] == (550, b"5.1.1")
    assert policy.judge_mailbox(good, b"later", b"why").reply[:2] == (451, b"4.3.0")
    assert policy.judge_mailbox(good, b"?", b"").reply[:2] == (451, b"4.3.0")


def test_hops() -> None:
    """As many hops as maxhops are too many."""
    assert policy.judge_hops(RULES, 2) is None
    verdict = policy.judge_hops(RULES, 3)
    assert verdict is not None and verdict.reply[:2] == (554, b"5.4.6")


def test_peer() -> None:
    """What tcpserver does not tell is unknown; nothing of it is longer than a header line can bear."""
    assert rules.peer({}) == rules.Peer(b"unknown", b"unknown", b"", b"", None, None)
    peer = rules.peer({b"TCPREMOTEHOST": b"x" * 1000, b"RELAYCLIENT": b"", b"DATABYTES": b"5"})
    assert (len(peer.host), peer.relay, peer.databytes) == (255, b"", 5)
    assert rules.peer({b"DATABYTES": b"5k"}).databytes is None


class Source:
    """Control files with nothing in them but me."""

    def me(self) -> bytes:
        return b"mx"

    def line(self, name: str) -> bytes:
        return b"mx"

    def lines(self, name: str) -> tuple[bytes, ...]:
        return (b"MX",) if name == "rcpthosts" else ()

    def number(self, name: str) -> int:
        return 0


def test_rules() -> None:
    """Nonsense in a limit shuts no door: a second and lines of 512 bytes are the least (RFC 5321 4.5.3.1.4)."""
    made = rules.rules(Source())
    assert made.rcpthosts == {b"mx"}
    assert (made.command_s, made.data_s, made.limits.line_bytes) == (1, 1, 512)
