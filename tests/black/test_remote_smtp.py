"""rspawn and its workers against a mail exchanger that does what a script says (qmail.md 14; RFC 5321)."""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from qm.wire import queueid
from qm.wire.delivery import Addressee, Delivery, Health, Outcome
from tests.harness.barehome import BareHome
from tests.harness.peers import ScriptedMx, free_port
from tests.harness.rspawn import TEXT, full_listener, rspawn
from tests.harness.waiting import wait_for

BOB, EVE, DAN = b"bob@x.test", b"eve@x.test", b"dan@x.test"
ON_THE_WIRE = TEXT.decode().replace("\n", "\r\n")
EHLO = "250-mx.test\r\n250-PIPELINING\r\n250 "


@pytest.fixture
def home(tmp_path: Path) -> BareHome:
    return BareHome(tmp_path / "home", None)


def route(home: BareHome, *ports: int, **more: str) -> None:
    """Mail for x.test goes to the first port, for y1.test, y2.test ... to the others; *more* are control files."""
    lines = [f"x.test:127.0.0.1:{port}\n" if not n else f"y{n}.test:127.0.0.1:{port}\n" for n, port in enumerate(ports)]
    for name, value in more.items():
        home.control(name, f"{value}\n")
    home.control("smtproutes", "".join(lines))


def each(home: BareHome, folder: Path, scripts: Sequence[Mapping[str, object]], **more: str) -> list[Outcome]:
    """What becomes of a message to each of some servers, all at once."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ScriptedMx(folder, script)) for script in scripts]
        route(home, *[mx.port for mx in servers], **more)
        with rspawn(home) as spawner:
            hosts = [b"x.test", *[b"y%d.test" % n for n in range(1, len(servers))]]
            numbers = [spawner.give(b"bob@" + host) for host in hosts]
            found = {(outcome := spawner.outcome()).number: outcome for _ in servers}
    return [found[number] for number in numbers]


def test_a_transaction(home: BareHome, tmp_path: Path) -> None:
    """A message arrives as it was; what the server said is in the report, with its name and code."""
    with ScriptedMx(tmp_path, {".": ["250 2.0.0 queued as 1"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            outcome = spawner.deliver(BOB)
        (result,) = outcome.results
        assert mx.texts() == [ON_THE_WIRE]
    assert (outcome.health, result.letter, result.status) == (Health.UP, b"K", b"2.0.0")
    assert result.text == b"127.0.0.1 accepted message.\nRemote host said: 250 2.0.0 queued as 1\n"
    assert (result.mta, result.diagnostic) == (b"[127.0.0.1]", b"250 2.0.0 queued as 1")


def test_what_is_said(home: BareHome, tmp_path: Path) -> None:
    """EHLO with our name, one sender, the recipients, DATA, QUIT."""
    with ScriptedMx(tmp_path) as mx:
        route(home, mx.port, helohost="out.me.example")
        with rspawn(home) as spawner:
            spawner.deliver(BOB, EVE)
        wait_for(lambda: "QUIT" in mx.lines(), "goodbye")
        assert mx.lines() == [
            "EHLO out.me.example",
            f"MAIL FROM:<ann@me.example> SIZE={len(ON_THE_WIRE)}",
            "RCPT TO:<bob@x.test>",
            "RCPT TO:<eve@x.test>",
            "DATA",
            "QUIT",
        ]


def test_helo(home: BareHome, tmp_path: Path) -> None:
    """A server that does not know EHLO is told HELO, and nothing of ESMTP."""
    with ScriptedMx(tmp_path, {"EHLO": ["502 what?"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            assert spawner.result(BOB, flags=b"8").letter == b"K"
        assert mx.lines()[:3] == ["EHLO me.example", "HELO me.example", "MAIL FROM:<ann@me.example>"]


# Recipients and replies


def test_each_recipient_has_its_result(home: BareHome, tmp_path: Path) -> None:
    """One is delivered, one refused, one deferred, in one transaction."""
    with ScriptedMx(tmp_path, {"RCPT": ["250 ok", "550 5.1.1 who?", "450 4.2.1 wait"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            bob, eve, dan = spawner.deliver(BOB, EVE, DAN).results
        assert len(mx.texts()) == 1
    assert (bob.letter, eve.letter, dan.letter) == (b"K", b"D", b"Z")
    assert (eve.status, eve.diagnostic, dan.status) == (b"5.1.1", b"550 5.1.1 who?", b"4.2.1")
    assert b"127.0.0.1 does not like recipient.\nRemote host said: 550 5.1.1 who?\n" in eve.text


def test_too_many_recipients(home: BareHome, tmp_path: Path) -> None:
    """Recipients that were too many for one transaction are in the next one, at once (RFC 5321 4.5.3.1.10)."""
    with ScriptedMx(tmp_path, {"RCPT": ["250 ok", "452 4.5.3 enough", "250 ok"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            results = spawner.deliver(BOB, EVE).results
        assert [result.letter for result in results] == [b"K", b"K"]
        assert (len(mx.texts()), mx.sessions()) == (2, 1)


def test_after_a_refusal_the_session_goes_on(home: BareHome, tmp_path: Path) -> None:
    """A transaction that came to nothing is reset before the next one."""
    with ScriptedMx(tmp_path, {"RCPT": ["550 no", "250 ok"], "DATA": ["503 nobody", "354 go"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            assert [spawner.result(BOB).letter for _ in range(2)] == [b"D", b"K"]
        assert (mx.sessions(), mx.lines().count("RSET")) == (1, 1)


REFUSALS = [
    ({"MAIL": ["550 5.7.1 not you"]}, b"D"),
    ({"MAIL": ["451 4.7.1 greylisted"]}, b"Z"),
    ({"DATA": ["554 no"]}, b"D"),
    ({".": ["554 5.6.0 spam"]}, b"D"),
    ({".": ["452 4.3.1 disk full"]}, b"Z"),
    ({".": ["354 what?"]}, b"Z"),
]


def test_refusals(home: BareHome, tmp_path: Path) -> None:
    """5xx is for ever, 4xx and nonsense are not; the destination is well."""
    outcomes = each(home, tmp_path, [script for script, _ in REFUSALS])
    assert [outcome.results[0].letter for outcome in outcomes] == [letter for _, letter in REFUSALS]
    assert {outcome.health for outcome in outcomes} == {Health.UP}
    assert all(b"Remote host said: " in outcome.results[0].text for outcome in outcomes)


HOSTILE: list[tuple[object, bytes, bytes]] = [
    ("!raw:550-\x1b[2J\0\r\r\n550 5.1.1 a\xffb\r\n", b"D", b"550-?[2J?\n550 5.1.1 a?b\n"),
    ("550 " + "x" * 100_000, b"D", b"xxx"),
    ("550-line\r\n" * 10_000 + "550 end", b"D", b"550-line\n550-line\n"),
    ("!endless", b"Z", b"its reply has no end"),
    ("hello", b"Z", b"its reply has no code"),
    ("!raw:\0\0\0\n", b"Z", b"its reply has no code"),
    (["!raw:250", "!close"], b"Z", b"connection died"),
    ("!close", b"Z", b"connection died"),
    ("!reset", b"Z", b"connection died"),
    ("421 4.3.2 going down", b"Z", b"421 4.3.2 going down"),
]


def test_hostile_replies(home: BareHome, tmp_path: Path) -> None:
    """Whatever a server says, the delivery has a result in printable ASCII of bounded size."""
    outcomes = each(home, tmp_path, [{"MAIL": [action]} for action, _, _ in HOSTILE])
    for outcome, (_, letter, words) in zip(outcomes, HOSTILE, strict=True):
        result = outcome.results[0]
        assert result.letter == letter and words in result.text
        assert len(result.text) < 6100
        assert all(byte == 10 or 32 <= byte < 127 for byte in result.text + result.diagnostic)


def test_hostile_openings(home: BareHome, tmp_path: Path) -> None:
    """A server that does not open a session is busy: the destination as a whole failed, the mail did not."""
    actions = ["!endless", "hello", "!close", "421 busy", "450 busy"]
    scripts = [{phase: [action]} for phase in ("greeting", "EHLO") for action in actions]
    for outcome in each(home, tmp_path, [*scripts, {"EHLO": ["!reset"]}]):
        assert (outcome.results[0].letter, outcome.health) == (b"Z", Health.BUSY)
        assert b"127.0.0.1" in outcome.results[0].text


# Sessions


def test_a_session_is_kept(home: BareHome, tmp_path: Path) -> None:
    """The next message to the same destination goes over the same session, without RSET."""
    with ScriptedMx(tmp_path) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            assert [spawner.result(BOB).letter for _ in range(5)] == [b"K"] * 5
        assert (mx.sessions(), len(mx.texts())) == (1, 5)
        assert "RSET" not in mx.lines() and mx.lines().count("EHLO me.example") == 1


def test_a_relay_is_one_destination(home: BareHome, tmp_path: Path) -> None:
    """Different domains behind one relay share its session."""
    with ScriptedMx(tmp_path) as mx:
        home.control("smtproutes", f":127.0.0.1:{mx.port}\n")
        with rspawn(home) as spawner:
            assert spawner.result(b"a@one.test").letter == spawner.result(b"b@two.test").letter == b"K"
        assert mx.sessions() == 1


def test_idle_sessions_end(home: BareHome, tmp_path: Path) -> None:
    """After control/remoteidle a session says goodbye, and its worker ends."""
    with ScriptedMx(tmp_path) as mx:
        route(home, mx.port, remoteidle="1")
        with rspawn(home) as spawner:
            assert spawner.result(BOB).letter == b"K"
            wait_for(lambda: "QUIT" in mx.lines(), "goodbye")
            wait_for(lambda: not spawner.workers(), "the worker's end")


def test_messages_per_session(home: BareHome, tmp_path: Path) -> None:
    """After control/remotemessages a new session is made."""
    with ScriptedMx(tmp_path) as mx:
        route(home, mx.port, remotemessages="2")
        with rspawn(home) as spawner:
            assert [spawner.result(BOB).letter for _ in range(5)] == [b"K"] * 5
        assert mx.sessions() == 3


@pytest.mark.parametrize(
    ("key", "actions"),
    [
        (".", [["250 ok", "!close"], "250 ok"]),
        (".", [["250 ok", "!reset"], "250 ok"]),
        (".", [["250 ok", "421 idle", "!close"], "250 ok"]),
        ("MAIL", ["250 ok", "421 too many messages", "250 ok"]),
        ("MAIL", ["250 ok", "451 enough", "250 ok"]),
        ("MAIL", ["250 ok", "!close", "250 ok"]),
        ("MAIL", ["250 ok", "!reset", "250 ok"]),
        ("MAIL", ["250 ok", "junk", "250 ok"]),
    ],
)
def test_a_dead_session_is_no_failure(home: BareHome, tmp_path: Path, key: str, actions: list[object]) -> None:
    """A kept session that the server has ended, or ends at MAIL, is made anew; the message arrives once."""
    with ScriptedMx(tmp_path, {key: actions}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            assert [spawner.result(BOB).letter for _ in range(2)] == [b"K", b"K"]
        assert (mx.sessions(), len(mx.texts())) == (2, 2)


def test_a_dot_without_answer(home: BareHome, tmp_path: Path) -> None:
    """A lost answer to the dot is temporary, says that there may be two, and is not tried again at once."""
    with ScriptedMx(tmp_path, {".": ["250 ok", "!close", "250 ok"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            assert spawner.result(BOB).letter == b"K"
            outcome = spawner.deliver(BOB)
        assert (len(mx.texts()), mx.sessions()) == (2, 1)
    assert outcome.results[0].letter == b"Z" and outcome.health is Health.BUSY
    assert b"connection died. Possible duplicate! (#4.4.2)" in outcome.results[0].text


# Text


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"no line end", b".\n..\nx\n.", b"a\rb\r\nc\n", b"x\n" * 400_000, b"y" * 300_000]
)
@pytest.mark.parametrize("keywords", ["8BITMIME", "CHUNKING"])
def test_texts(home: BareHome, tmp_path: Path, text: bytes, keywords: str) -> None:
    """Any text arrives with our lines: no bare CR or LF, dots undone, the last line ended; by DATA and by BDAT."""
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    want = lines if not lines or lines.endswith(b"\n") else lines + b"\n"
    with ScriptedMx(tmp_path, {"EHLO": [EHLO + keywords]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            assert spawner.result(BOB, text=text).letter == b"K"
        if keywords == "CHUNKING":
            got = "".join(entry["chunk"] for entry in mx.heard() if "chunk" in entry)
            assert mx.lines()[-2 if "QUIT" in mx.lines() else -1].endswith(" LAST")
        else:
            got = "".join(line.removeprefix(".") for line in mx.texts()[0].splitlines(keepends=True))
    assert got.encode("latin-1").replace(b"\r\n", b"\n") == want
    assert not set("\r\n") & set(got.replace("\r\n", ""))


def test_smuggled_commands_stay_text(home: BareHome, tmp_path: Path) -> None:
    """No end of data can be hidden in a message, however its lines end."""
    text = b"".join(
        end + b"MAIL FROM:<evil@x>" for end in (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\n", b"\0\n.\n")
    )
    with ScriptedMx(tmp_path) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            assert spawner.result(BOB, text=text).letter == b"K"
        assert len(mx.texts()) == 1 and "evil" not in "".join(mx.lines())


def test_a_chunk_is_refused(home: BareHome, tmp_path: Path) -> None:
    """A refused chunk is the message's refusal; the rest is not sent, and the session goes on."""
    with ScriptedMx(tmp_path, {"EHLO": [EHLO + "CHUNKING"], "BDAT": ["552 5.3.4 too big", "250 ok"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            first = spawner.result(BOB, text=b"x\n" * 300_000)
            assert (first.letter, first.status) == (b"D", b"5.3.4")
            assert spawner.result(BOB).letter == b"K"
        assert mx.sessions() == 1


def test_distrusted_keywords(home: BareHome, tmp_path: Path) -> None:
    """control/ehloignore keeps us from using what a server offers."""
    with ScriptedMx(tmp_path, {"EHLO": [EHLO + "CHUNKING"]}) as mx:
        route(home, mx.port, ehloignore="127.0.0.1:chunking pipelining")
        with rspawn(home) as spawner:
            assert spawner.result(BOB).letter == b"K"
        assert len(mx.texts()) == 1


def test_a_refusal_while_text_is_coming(home: BareHome, tmp_path: Path) -> None:
    """A server that refuses and closes in the middle of the text is taken at its word."""
    with ScriptedMx(tmp_path, {"DATA": [["354 go", "552 5.3.4 too big", "!close"]]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            result = spawner.result(BOB, text=b"x\n" * 5_000_000)
    assert (result.letter, result.status) == (b"D", b"5.3.4")


def test_dsn_is_passed_on(home: BareHome, tmp_path: Path) -> None:
    """The DSN parameters go to a server that offers DSN, and the outcome says so (RFC 3461)."""
    addressee = Addressee(0, BOB, b"SUCCESS,FAILURE", b"rfc822;bob@old.test")
    what = Delivery(1, queueid.make(1, 1), b"8", b"ann@me.example", (addressee,), b"HDRS", b"e+3D1")
    with ScriptedMx(tmp_path, {"EHLO": [EHLO + "DSN", "250 mx.test"]}) as mx:
        route(home, mx.port, remotemessages="1")
        with rspawn(home) as spawner:
            outcomes = [spawner.outcome(spawner.give_delivery(what)) for _ in range(2)]
        assert mx.lines()[1:3] == [
            "MAIL FROM:<ann@me.example> RET=HDRS ENVID=e+3D1",
            "RCPT TO:<bob@x.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@old.test",
        ]
        assert "RCPT TO:<bob@x.test>" in mx.lines()
    assert [outcome.results[0].dsn for outcome in outcomes] == [True, False]


def test_smtputf8(home: BareHome, tmp_path: Path) -> None:
    """What needs SMTPUTF8 fails with 5.6.7 where it is not offered."""
    with ScriptedMx(tmp_path) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            result = spawner.result("jörg@x.test".encode())
            assert (result.letter, result.status) == (b"D", b"5.6.7")
            assert spawner.result(BOB, flags=b"U", text=TEXT).letter == b"K"
            assert spawner.result(BOB, flags=b"U", text="Subject: ü\n\n".encode()).letter == b"D"


# Waiting


PHASES = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."]


def test_every_wait_has_an_end(home: BareHome, tmp_path: Path) -> None:
    """A server that stops answering, at whatever step, costs the time that its control file allows; the mail waits."""
    outcomes = each(home, tmp_path, [{phase: ["!hang"]} for phase in PHASES], timeoutremote="1")
    for phase, outcome in zip(PHASES, outcomes, strict=True):
        result = outcome.results[0]
        assert result.letter == b"Z" and outcome.health is Health.BUSY, phase
        assert b"did not answer in time" in result.text
        assert (b"Possible duplicate" in result.text) is (phase == ".")


def test_a_server_that_stops_reading(home: BareHome, tmp_path: Path) -> None:
    """A server that does not read the text is given up after control/timeoutdatasend."""
    with ScriptedMx(tmp_path, {"DATA": [["354 go", "!hang"]]}) as mx:
        route(home, mx.port, timeoutdatasend="1")
        with rspawn(home) as spawner:
            number = spawner.give(BOB, text=b"x\n" * 10_000_000)
            wait_for(lambda: "DATA" in mx.lines(), "DATA")
            with _Stopped(mx.process.pid):
                result = spawner.outcome(number).results[0]
    assert result.letter == b"Z" and b"it stopped reading. (#4.4.2)" in result.text


class _Stopped:
    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


def test_a_silent_address(home: BareHome) -> None:
    """A connection that is not answered ends after control/timeoutconnect; the destination is dead."""
    sockets, port = full_listener()
    try:
        route(home, port, timeoutconnect="1")
        with rspawn(home) as spawner:
            outcome = spawner.deliver(BOB)
    finally:
        for one in sockets:
            one.close()
    assert (outcome.health, outcome.results[0].letter, outcome.results[0].status) == (Health.DEAD, b"Z", b"4.4.1")
    assert b"127.0.0.1: connection timed out" in outcome.results[0].text


def test_nobody_listens(home: BareHome) -> None:
    """A refused connection is temporary, and the destination is dead."""
    route(home, free_port())
    with rspawn(home) as spawner:
        outcome = spawner.deliver(BOB)
    assert (outcome.health, outcome.results[0].letter) == (Health.DEAD, b"Z")
    assert b"127.0.0.1: connection refused" in outcome.results[0].text


def test_a_relay_that_refuses_us(home: BareHome, tmp_path: Path) -> None:
    """A relay of ours that greets with 5xx bounces no mail: it is we whom it does not like."""
    with ScriptedMx(tmp_path, {"greeting": ["554 5.7.1 go away"]}) as mx:
        route(home, mx.port)
        with rspawn(home) as spawner:
            outcome = spawner.deliver(BOB)
    assert (outcome.results[0].letter, outcome.health) == (b"Z", Health.BUSY)
    assert b"554 5.7.1 go away" in outcome.results[0].text


def test_ipv6(home: BareHome, tmp_path: Path) -> None:
    """A relay may be an IPv6 address in brackets."""
    with ScriptedMx(tmp_path, address="::1") as mx:
        home.control("smtproutes", f"x.test:[::1]:{mx.port}\ny.test:[IPv6:::1]:{mx.port}\n")
        with rspawn(home) as spawner:
            assert spawner.result(BOB).text.startswith(b"::1 accepted message.")
            assert spawner.result(b"bob@y.test").letter == b"K"
