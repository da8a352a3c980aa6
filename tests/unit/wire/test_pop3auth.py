"""The POP3 protocol before login."""

from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.pop3 import Signal
from qm.wire.pop3auth import Authorization, End, NoLogin, Offer
from qm.wire.pop3login import (
    LONG_MAX,
    RECORD_MAX,
    Failed,
    Left,
    Login,
    Report,
    Stls,
    checkpassword_record,
    pack_report,
    unpack_report,
)
from qm.wire.record import Malformed
from qm.wire.sasl import AskLogin, AskScram, Peer
from qm.wire.saslmechanism import INVALID_TOKEN
from qm.wire.saslstep import Fault
from qm.wire.userquery import Later, Refused, Scram
from qm.wire.userquery import Login as Account

BANNER = b"<1.2@mx.example>"
NONCE = b"0123456789abcdef0123456789abcdef"
WORDS = (b"SCRAM-SHA-256", b"OAUTHBEARER", b"EXTERNAL", b"CRAM-MD5", b"PLAIN", b"LOGIN")
PEER = Peer(b"192.0.2.7", b"mx.example", NONCE, WORDS, client=b"alice")
OFFER = Offer(apop=True, stls=True, forced=False, mechanisms=WORDS)
ALICE = Account(b"alice", 1, 1, b"/", b"/bin/sh", b"alice", b"c2lnbmF0dXJl")
CORPUS = Path(__file__).parents[2] / "corpus" / "popup"
COMMANDS = (
    b"USER alice",
    b"USER",
    b"user b o b",
    b"PASS secret",
    b"PASS  two  blanks ",
    b"PASS",
    b"APOP alice 0123456789abcdef",
    b"APOP alice",
    b"STAT",
    b"RETR 1",
    b"NOOP",
    b"CAPA",
    b"UTF8",
    b"LANG",
    b"QUIT",
    b"AUTH",
    b"AUTH PLAIN",
    b"AUTH PLAIN AGFsaWNlAHNlY3JldA==",
    b"AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPW5vbmNl",
    b"AUTH CRAM-MD5",
    b"AGFsaWNlAHNlY3JldA==",
    b"*",
    b"=",
    b"STLS",
    b"PASS " + b"x" * 500,
    b"USER a\0b",
    b"USER \xff\xfe",
)
script = st.lists(
    st.one_of(st.sampled_from(COMMANDS), st.binary(max_size=30)).flatmap(
        lambda line: st.sampled_from([line + b"\r\n", line + b"\n", line])
    ),
    max_size=12,
).map(b"".join)


Spoken = Login | Stls | NoLogin | None


def _server(offer: Offer, first: bytes = b"+OK " + BANNER, end: End | None = None) -> Authorization:
    return Authorization(first, BANNER, offer, PEER, 20, end or End())


def _talk(server: Authorization, pieces: list[bytes], answers: list[Account | Refused | Later | Scram]) -> Spoken:
    """What comes of *pieces*; userd says *answers* in turn."""
    waiting = [*pieces, b""]
    event = server.next_event() if not pieces else Signal.NEED_DATA
    while True:
        if isinstance(event, AskLogin | AskScram):
            event = server.answered(answers.pop(0) if answers else Later(b"nobody answers")) or server.next_event()
        elif event is Signal.NEED_DATA:
            server.receive(waiting.pop(0))
            event = server.next_event()
        elif isinstance(event, NoLogin) and event.answered:
            event = server.next_event()
        elif event is Signal.EOF:
            return None
        else:
            assert isinstance(event, Login | Stls | NoLogin)
            return event


def _converse(pieces: list[bytes], offer: Offer = OFFER) -> tuple[Spoken, bytes]:
    server = _server(offer)
    return _talk(server, pieces, []), server.outgoing()


@given(script, st.data())
def test_pieces_do_not_matter(data: bytes, draw: st.DataObject) -> None:
    """The same bytes give the same login and replies: whole, byte by byte, or cut anywhere."""
    whole = _converse([data] if data else [])
    assert _converse([bytes([byte]) for byte in data]) == whole
    cut = draw.draw(st.integers(0, len(data)))
    assert _converse([piece for piece in (data[:cut], data[cut:]) if piece]) == whole


@given(script)
def test_any_login_fits(data: bytes) -> None:
    """Whatever comes in, a login that comes out is one that a checkpassword can read."""
    login = _converse([data] if data else [])[0]
    if isinstance(login, Login):
        record = checkpassword_record(login, BANNER)
        assert record.split(b"\0") == [login.name, login.secret, BANNER, login.method, b""]
        assert len(record) <= RECORD_MAX
        assert unpack_report(pack_report(login)) == login


@pytest.mark.parametrize("case", sorted(path.stem for path in CORPUS.glob("*.in")))
def test_corpus(case: str) -> None:
    """What the client of each corpus file sends gets exactly the wanted replies and, in a last line, login."""
    login, replies = _converse([(CORPUS / f"{case}.in").read_bytes()], Offer(True, False, False))
    wanted = (CORPUS / f"{case}.want").read_bytes()
    assert replies + (b"=> " + b" ".join(login[:3]) + b"\n" if isinstance(login, Login) else b"") == wanted


def test_user_and_pass() -> None:
    """The password is all that follows one space; the name has no blanks around it."""
    assert _converse([b"USER  alice \r\nPASS  a b \r\n"])[0] == Login(b"PASS", b"alice", b" a b ")


def test_apop() -> None:
    """APOP's name and digest end at a space; without a banner in the greeting there is no APOP."""
    line = b"APOP alice 0123456789abcdef0123456789abcdef\r\n"
    assert _converse([line])[0] == Login(b"APOP", b"alice", b"0123456789abcdef0123456789abcdef", BANNER)
    assert _converse([line], OFFER._replace(apop=False))[0] is None


@pytest.mark.parametrize("line", [b"PASS x", b"USER", b"STAT", b"APOP alice", b"STLS", b"AUTH PLAIN"])
def test_refused(line: bytes) -> None:
    """Nothing but a name and a password gets further."""
    login, replies = _converse([line + b"\r\n"], Offer(apop=True, stls=False, forced=False))
    assert login is None
    assert replies.split(b"\r\n")[1].startswith(b"-ERR ")


def test_too_long_for_a_checkpassword() -> None:
    """Name and password that no checkpassword could read are refused as what they are: wrong."""
    name = b"n" * 300
    login, replies = _converse([b"USER " + name + b"\r\nPASS " + b"p" * 300 + b"\r\n"])
    assert login is None
    assert b"-ERR [AUTH]" in replies


def test_names_are_not_told_apart() -> None:
    """USER gets the same answer whoever it names."""
    assert _converse([b"USER root\r\n"])[1] == _converse([b"USER nobody-here\r\n"])[1]


def test_the_implementation_is_not_for_strangers() -> None:
    """CAPA before login does not say what we are (RFC 2449 6.9)."""
    assert b"IMPLEMENTATION" not in _converse([b"CAPA\r\n"])[1]


def test_a_secret_is_in_no_repr() -> None:
    """What fails may be printed; a password may not."""
    assert "secret" not in repr(Login(b"PASS", b"alice", b"secret"))


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"login\0PASS\0a\0",
        b"login\0EXEC\0a\0b\0\0",
        b"login\0password\0a\0b\0\0",
        b"login\0PASS\0a\0b\0\0\0",
        b"login\0PASS\0a\0b\0",
        b"left",
        b"stls\0\0",
        b"failed\x001\0-1\0",
        b"failed\x002\0\x000\0",
    ],
)
def test_no_other_record_is_a_report(record: bytes) -> None:
    """The process with privileges takes few shapes of record, since who writes it may have been taken over."""
    with pytest.raises(Malformed):
        unpack_report(record)


@pytest.mark.parametrize(
    "report", [Left(), Stls(), Failed(True, 30), Login(b"PASS", b"a", b"b"), Login(b"external", b"", b"")]
)
def test_reports(report: Report) -> None:
    """Each report is told whole."""
    assert unpack_report(pack_report(report)) == report


# TLS


def test_capabilities() -> None:
    """CAPA tells STLS and SASL where they are offered, and USER where it would be heard (RFC 2449, 2595, 5034)."""
    everything = _converse([b"CAPA\r\n"])[1].split(b"\r\n")
    assert {b"STLS", b"USER", b"SASL " + b" ".join(WORDS)} <= set(everything)
    forced = _converse([b"CAPA\r\n"], Offer(False, True, True))[1].split(b"\r\n")
    assert b"STLS" in forced and b"USER" not in forced and b"SASL" not in b"".join(forced)
    nothing = _converse([b"CAPA\r\n"], Offer(False, False, False))[1]
    assert b"STLS" not in nothing and b"SASL" not in nothing


def test_stls() -> None:
    """STLS is for the other half to answer, and once more means nothing where it was not offered."""
    assert _converse([b"stls\r\n"]) == (Stls(), b"+OK " + BANNER + b"\r\n")
    assert _converse([b"STLS\r\n"], OFFER._replace(stls=False))[0] is None
    assert _converse([b"STLS now\r\n"]) == (None, b"+OK " + BANNER + b"\r\n-ERR STLS takes no argument\r\n")


@pytest.mark.parametrize("line", [b"USER alice", b"PASS x", b"APOP a b", b"AUTH PLAIN AGEAYg==", b"auth", b"user x"])
def test_nothing_in_clear(line: bytes) -> None:
    """Where TLS is demanded no name, password or digest is taken before it."""
    offer = Offer(apop=True, stls=True, forced=True, mechanisms=WORDS)
    assert _converse([line + b"\r\n"], offer)[1].endswith(b"\r\n-ERR STLS first\r\n")


def test_under_tls_there_is_no_greeting() -> None:
    """After STLS the client speaks first (RFC 2595 4)."""
    server = _server(OFFER, b"")
    assert _talk(server, [b"NOOP\r\n"], []) is None
    assert server.outgoing() == b"+OK\r\n"


# AUTH (RFC 5034)


def _auth(*lines: bytes, answers: list[Account | Refused | Later | Scram] | None = None) -> tuple[Spoken, list[bytes]]:
    server = _server(OFFER)
    spoken = _talk(server, [b"".join(line + b"\r\n" for line in lines)], answers or [])
    return spoken, server.outgoing().split(b"\r\n")[1:-1]


def test_auth_plain() -> None:
    """PLAIN is a name and a password, as USER and PASS are; with an initial response or after "+ "."""
    secret = b64encode(b"\0alice\0secret")
    wanted = Login(b"PASS", b"alice", b"secret")
    assert _auth(b"AUTH PLAIN " + secret) == (wanted, [])
    assert _auth(b"auth plain", secret) == (wanted, [b"+ "])
    assert _auth(b"AUTH LOGIN", b64encode(b"alice"), b64encode(b"secret"))[0] == wanted


def test_auth_alone() -> None:
    """AUTH alone lists what there is."""
    assert _auth(b"AUTH") == (None, [b"+OK mechanisms follow", *WORDS, b"."])
    assert _auth(b"AUTH ") == (None, [b"+OK mechanisms follow", *WORDS, b"."])


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ((b"AUTH PLAIN", b"*"), Fault.CANCELLED),
        ((b"AUTH PLAIN !",), Fault.MALFORMED),
        ((b"AUTH PLAIN", b"QUIT"), Fault.MALFORMED),
        ((b"AUTH PLAIN", b""), Fault.MALFORMED),
        ((b"AUTH GSSAPI",), Fault.UNKNOWN),
        ((b"AUTH CRAM-MD5 AA==",), Fault.MALFORMED),
        ((b"AUTH CRAM-MD5", b"AAAA"), Fault.MALFORMED),
    ],
)
def test_auth_that_says_nothing(lines: tuple[bytes, ...], fault: Fault) -> None:
    """What tells no name and password is answered at once, and the next line is a command again."""
    server = _server(OFFER)
    server.receive(b"".join(line + b"\r\n" for line in (*lines, b"NOOP")))
    event = server.next_event()
    assert isinstance(event, NoLogin) and event.answered and event.refusal.fault is fault
    assert server.next_event() is Signal.NEED_DATA
    *_, refusal, noop, end = server.outgoing().split(b"\r\n")
    assert refusal.startswith(b"-ERR ") and (noop, end) == (b"+OK", b"")


def test_auth_lines_have_an_end() -> None:
    """A line of an exchange may be 12288 bytes, one more is refused and ends it; other commands stay short."""
    assert _auth(b"AUTH PLAIN", b"A" * 12288)[1][1] == b"-ERR cannot read that"
    too_long = b"-ERR authentication exchange line is too long"
    assert _auth(b"AUTH PLAIN", b"A" * 12289, b"NOOP")[1][1:] == [too_long, b"+OK"]
    assert _auth(b"AUTH PLAIN", b"A" * 20_000, b"NOOP")[1][1:] == [b"-ERR line too long", b"+OK"]
    assert _auth(b"AUTH OAUTHBEARER " + b"A" * 5000)[1] == [b"-ERR cannot read that"]
    assert _auth(b"NOOP " + b"A" * 508)[1] == [b"-ERR line too long"]


def test_cram_md5() -> None:
    """The challenge has our nonce, and goes with the digest."""
    login, replies = _auth(b"AUTH CRAM-MD5", b64encode(b"alice " + b"0" * 32))
    challenge = b"<" + NONCE + b"@mx.example>"
    assert replies == [b"+ " + b64encode(challenge)]
    assert login == Login(b"cram-md5", b"alice", b"0" * 32, challenge)


def test_scram() -> None:
    """userd is asked for the salt, and for the signature, which the client has seen before it is let in."""
    first = b"n=alice,r=abc"
    server_first = b"r=abc" + NONCE + b",s=c2FsdA==,i=4096"
    proof = b64encode(bytes(32))
    final = b"c=biws,r=abc" + NONCE
    lines = (b"AUTH SCRAM-SHA-256 " + b64encode(b"n,," + first), b64encode(final + b",p=" + proof), b"")
    login, replies = _auth(*lines, answers=[Scram(b"c2FsdA==", 4096), ALICE])
    assert replies == [b"+ " + b64encode(server_first), b"+ " + b64encode(b"v=c2lnbmF0dXJl")]
    assert login == Login(b"scram-sha-256", b"alice", proof, b",".join((first, server_first, final)))
    assert NONCE in login.challenge
    login, replies = _auth(*lines[:2], answers=[Scram(b"c2FsdA==", 4096), Refused(b"wrong", 7)])
    assert isinstance(login, NoLogin) and not login.answered and login.refusal.delay_s == 7
    assert len(replies) == 1, "the other half answers, in its time"


def test_external_and_tokens() -> None:
    """A certificate and a token go on as they are."""
    assert _auth(b"AUTH EXTERNAL =")[0] == Login(b"external", b"alice", b"")
    token = b64encode(b"n,a=alice,\x01auth=Bearer abc\x01\x01")
    assert _auth(b"AUTH OAUTHBEARER " + token)[0] == Login(b"oauthbearer", b"alice", b"abc")
    nameless = b64encode(b"n,,\x01auth=Bearer abc\x01\x01")
    assert _auth(b"AUTH OAUTHBEARER " + nameless)[0] == Login(b"oauthbearer", b"", b"abc")


@pytest.mark.parametrize("said", [b"AQ==", b"", b"x" * 20_000])
@pytest.mark.parametrize("last", [False, True])
def test_a_refused_token(said: bytes, last: bool) -> None:
    """After the error that RFC 7628 asks for the client's next line, whatever it is, gets the answer."""
    server = _server(OFFER, b"+ " + b64encode(INVALID_TOKEN), End(b"-ERR [AUTH] no", last))
    assert _talk(server, [said + b"\r\nNOOP\r\n"], []) is None
    assert server.outgoing().split(b"\r\n")[1:-1] == [b"-ERR [AUTH] no", *([] if last else [b"+OK"])]


def test_records_for_checkpassword() -> None:
    """qmail's methods fit an old checkpassword; the others may be longer, and none lacks what it is about."""
    long = Login(b"oauthbearer", b"", b"t" * 5000)
    assert RECORD_MAX < len(checkpassword_record(long, BANNER)) < LONG_MAX
    assert checkpassword_record(Login(b"PASS", b"a", b"p" * 500), BANNER) == b""
    assert checkpassword_record(Login(b"oauthbearer", b"", b"t" * LONG_MAX), BANNER) == b""
    assert checkpassword_record(Login(b"cram-md5", b"a", b"", b"c"), BANNER) == b""
    assert checkpassword_record(Login(b"external", b"a", b""), BANNER) == b"a\0\0\0external\0"
    assert checkpassword_record(Login(b"PASS", b"a\0b", b"c"), BANNER) == b""
