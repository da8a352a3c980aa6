"""splogger: how lines are cut, what they weigh, and a syslog that is away, full, or back."""

import itertools
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm import splogger
from qm.splogger import ALERT, ERR, INFO, WARNING, Lines, Syslog, priority, stamp


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (b"new msg 1", INFO),
        (b"alert: disk", ALERT),
        (b"warning: disk", WARNING),
        (b"qm-smtpd: alert: bug", ALERT),
        (b"qm-local: warning: no", WARNING),
        (b"qm-rc: fatal: no", ERR),
        (b"qm-smtpd: 12 helo name=alert: x", INFO),
        (b"alerts: x", INFO),
        (b"a b: alert: x", INFO),
    ],
)
def test_a_line_says_how_grave_it_is(line: bytes, level: int) -> None:
    """The kind stands at the start or after the program's name, and nowhere else."""
    assert priority(line) == level


def test_a_stamp_has_six_decimals() -> None:
    """Seconds since 1970, a point, six digits."""
    assert stamp(1_700_000_000_000_456_789) == b"1700000000.000456"


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=5))
def test_pieces_do_not_matter(text: bytes, cuts: list[int]) -> None:
    """However the input is cut, the same pieces come out, none of them long, empty or with a control byte."""
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    whole, cut = Lines(), Lines()
    found = [piece for a, b in itertools.pairwise(edges) for piece in cut.feed(text[a:b])] + cut.last()
    assert whole.feed(text) + whole.last() == found
    assert all(re.fullmatch(rb"[ -~]{1,799}", piece) for _, _, piece in found)


def test_a_long_line_goes_on_with_its_priority() -> None:
    """The pieces after the first say that they go on, and are as grave; a new line begins anew."""
    lines = Lines()
    pieces = lines.feed(b"alert: " + b"x" * 1600 + b"\n\nshort\n")
    assert [(level, continued, len(text)) for level, continued, text in pieces] == [
        (ALERT, False, 799),
        (ALERT, True, 799),
        (ALERT, True, 9),
        (INFO, False, 5),
    ]


Listen = Callable[[], socket.socket]


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[Syslog]:
    syslog = Syslog(os.fsencode(tmp_path / "log"), b"qmail", 2)
    yield syslog
    syslog.close()


@pytest.fixture
def listen(tmp_path: Path) -> Listen:
    """A syslog that takes one datagram at a time, when it is asked."""

    def make() -> socket.socket:
        path = tmp_path / "log"
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(str(path))
        server.setblocking(False)
        return server

    return make


def _drain(server: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(server.recv(4096))
        except BlockingIOError:
            return found


def test_lines_for_syslog(listen: Listen, syslog: Syslog) -> None:
    """A datagram is as the C library's: priority, time, tag, text."""
    with listen() as server:
        syslog.say(INFO, b"1.000000 new msg 1")
        (datagram,) = _drain(server)
    assert re.fullmatch(rb"<22>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d qmail: 1\.000000 new msg 1", datagram)


def test_a_syslog_that_comes_back_hears_what_it_missed(listen: Listen, syslog: Syslog) -> None:
    """Lines without a syslog are counted, and a syslog that starts anew is found at once."""
    syslog.say(INFO, b"a")
    syslog.say(INFO, b"b")
    with listen() as server:
        syslog.say(INFO, b"c")
        first = _drain(server)
    with listen() as server:
        syslog.say(INFO, b"d")
        second = _drain(server)
    assert first[0].endswith(b"splogger: warning: 2 lines lost: No such file or directory")
    assert first[0].startswith(b"<20>")
    assert [line.rpartition(b" ")[2] for line in (first[1], *second)] == [b"c", b"d"]


def test_a_full_syslog_is_waited_for_once(listen: Listen, syslog: Syslog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes nothing costs one wait, not one for each line; when it takes lines again, none is counted twice."""
    monkeypatch.setattr(splogger, "PATIENCE_S", 0.01)
    waits = []
    wait = Syslog._wait
    monkeypatch.setattr(Syslog, "_wait", lambda self, channel: (waits.append(self._patient), wait(self, channel)))
    with listen() as server:
        while not syslog.lost:
            syslog.say(INFO, b"x")
        for _ in range(20):
            syslog.say(INFO, b"y")
        assert waits.count(True) == 1
        assert syslog.lost == 21
        _drain(server)
        syslog.say(INFO, b"z")
        assert [b"21 lines lost" in line for line in _drain(server)] == [True, False]
