"""Mail to Dovecot by LMTP, as control/lmtproutes says, and what LMTP servers may do to us (RFC 2033)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from qm.wire.delivery import Health, Outcome
from tests.harness.barehome import BareHome
from tests.harness.dovecot import LMTP, Dovecot
from tests.harness.outbound import Outbound
from tests.harness.peers import ScriptedMx
from tests.harness.rspawn import Rspawn, rspawn
from tests.harness.suite import Suite

LHLO: Final = "250-mx.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES"
THREE: Final = (b"ann@x.test", b"bob@x.test", b"cat@x.test")
OK: Final = "250 2.0.0 saved"
Make = Callable[..., Suite]


@pytest.fixture
def dovecot(open_folder: Path) -> Iterator[Dovecot]:
    """One where cat has room for nothing."""
    full = "{PLAIN}x"
    made = Dovecot(open_folder / "dovecot", {"ann": "{PLAIN}x", "bob": "{PLAIN}x", "cat": full}, LMTP)
    passwd = made.home / "passwd"
    lines = passwd.read_text().splitlines()
    passwd.write_text("".join(f"{line}::{'userdb_quota_rule=*:bytes=1' * line.startswith('cat')}\n" for line in lines))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.mark.needs_root
@pytest.mark.needs("dovecot", "/usr/lib/dovecot/lmtp")
def test_dovecot(make_suite: Make, dovecot: Dovecot) -> None:
    """Each recipient has a verdict of its own: two get it, one is over quota and one unknown, and those come back."""
    suite = make_suite()
    suite.control("lmtproutes", f"x.test:{dovecot.sockets}/lmtp\n")
    out = Outbound(suite)
    out.send("ann@x.test", "bob@x.test", "cat@x.test", "nobody@x.test")
    (mail,), (_,) = (suite.wait_for(lambda name=name: dovecot.messages(name), name) for name in ("ann", "bob"))
    assert mail.startswith(b"Return-Path: <ann@test.example>\n") and mail.endswith(b"first\n.second\nlast\n")
    report = out.report()
    assert report.failed == {"cat@x.test", "nobody@x.test"}
    assert not dovecot.messages("cat")
    text = report.text.decode()
    assert "localhost does not like recipient." in text and f"{dovecot.sockets}" not in text
    assert [found["Remote-MTA"] for found in report.recipients] == ["dns;localhost"] * 2


@pytest.mark.needs_root
@pytest.mark.needs("dovecot", "/usr/lib/dovecot/lmtp")
def test_dovecot_is_away(make_suite: Make, dovecot: Dovecot) -> None:
    """Mail waits while Dovecot is away, and is delivered once when it comes back."""
    suite = make_suite()
    suite.control("lmtproutes", f".test:{dovecot.sockets}/lmtp\n")
    dovecot.stop()
    out = Outbound(suite)
    out.send("ann@x.test")
    assert out.ended("ann@x.test") == "deferral"
    suite.wait_for_log(r"wasn't_able_to_establish_an_LMTP_connection_\(localhost:_")
    assert f"{dovecot.sockets}" not in suite.log()
    dovecot.start()
    out.try_again(lambda: dovecot.messages("ann"), "the message")
    suite.wait_until_idle()
    assert len(dovecot.messages("ann")) == 1


class World:
    """Mail for x.test goes to a server that a script plays, on a port."""

    def __init__(self, folder: Path) -> None:
        self.home = BareHome(folder / "home", None)
        self._folder = folder

    def server(self, **script: list[Any]) -> ScriptedMx:
        actions = {key.replace("dot", "."): value for key, value in {"LHLO": [LHLO], **script}.items()}
        server = ScriptedMx(self._folder, actions)
        self.home.control("lmtproutes", f"x.test:127.0.0.1:{server.port}\n")
        return server


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def letters(outcome: Outcome) -> bytes:
    return b"".join(result.letter for result in outcome.results)


def deliver(spawner: Rspawn) -> Outcome:
    return spawner.deliver(*THREE)


VERDICTS: Final[dict[str, tuple[dict[str, list[Any]], bytes]]] = {
    "all well": ({"dot": [[OK, OK, OK]]}, b"KKK"),
    "one full, one later": ({"dot": [[OK, "552 5.2.2 full", "452 4.2.2 not now"]]}, b"KDZ"),
    "one unknown before": ({"RCPT": [OK, "550 5.1.1 who", OK], "dot": [[OK, "451 4.3.0 no"]]}, b"KDZ"),
    "nobody": ({"RCPT": ["550 5.1.1 who"], "DATA": ["503 5.5.1 nobody"]}, b"DDD"),
    "nobody, and 354": ({"RCPT": ["550 5.1.1 who"], "dot": ["!hang"]}, b"DDD"),
    "no DATA": ({"DATA": ["451 4.3.0 no"]}, b"ZZZ"),
    "too few answers": ({"dot": [[OK, "!close"]]}, b"KZZ"),
    "closing": ({"dot": [[OK, "421 4.3.2 bye", "!close"]]}, b"KZZ"),
    "no LHLO": ({"LHLO": ["500 5.5.1 this is SMTP"]}, b"ZZZ"),
    "no greeting": ({"greeting": ["554 5.0.0 no"]}, b"ZZZ"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdicts(world: World, case: str) -> None:
    """After the message each recipient that was taken gets the answer that is its own, in their order."""
    script, want = VERDICTS[case]
    with world.server(**script) as server, rspawn(world.home) as spawner:
        outcome = deliver(spawner)
        said = [line.split()[0] for line in server.lines()]
    assert letters(outcome) == want
    assert not {"HELO", "EHLO", "BDAT"} & set(said)


def test_a_default_and_an_artificial_route(world: World) -> None:
    """A route needs no name that DNS has, and the last of two lines with one key counts."""
    with world.server(dot=[[OK]]) as server:
        world.home.control("lmtproutes", f"only.artificial:127.0.0.1:1\nonly.artificial:127.0.0.1:{server.port}\n")
        with rspawn(world.home) as spawner:
            assert letters(spawner.deliver(b"ann@only.artificial")) == b"K"
        world.home.control("lmtproutes", f":127.0.0.1:{server.port}\n")
        with rspawn(world.home) as spawner:
            assert letters(spawner.deliver(b"ann@else.artificial")) == b"K"


def test_a_duplicate_is_said_where_it_may_be(world: World) -> None:
    """Who has no answer when the session dies may have got the message; who has one knows."""
    with world.server(dot=[[OK, "!close"]]), rspawn(world.home) as spawner:
        results = deliver(spawner).results
    assert [b"Possible duplicate!" in result.text for result in results] == [False, True, True]


def test_answers_too_many(world: World) -> None:
    """A server that says more than it was asked for is not trusted with another message in that session."""
    with world.server(dot=[[OK, OK, OK, OK]]) as server, rspawn(world.home) as spawner:
        assert [letters(deliver(spawner)) for _ in range(2)] == [b"KKK", b"KKK"]
        assert server.sessions() == 2


def test_a_kept_session(world: World) -> None:
    """Messages share a session, also after one whose recipients fared differently."""
    with world.server(dot=[[OK, "550 5.7.1 no", OK]]) as server, rspawn(world.home) as spawner:
        assert [letters(deliver(spawner)) for _ in range(3)] == [b"KDK"] * 3
        assert (server.sessions(), sum(line.startswith("LHLO") for line in server.lines())) == (1, 1)


def test_a_socket_that_is_not_there(world: World) -> None:
    """No socket is a deferral, and teaches send that nobody is there; no path gets into a report."""
    world.home.control("lmtproutes", "x.test:/nowhere/lmtp\n")
    with rspawn(world.home) as spawner:
        outcome = deliver(spawner)
    assert (letters(outcome), outcome.health) == (b"ZZZ", Health.DEAD)
    assert b"LMTP connection (localhost: no such file or directory)" in outcome.results[0].text
    assert b"/nowhere" not in outcome.results[0].text
