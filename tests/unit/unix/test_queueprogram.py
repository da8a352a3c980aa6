"""Programs in the place of qm-queue, as real processes: what they get, and what their ends mean (qmail.md 5, 5.1)."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from qm.errors import Permanent, QmError, Temporary
from qm.unix.queueclient import NO_TRACE, Accepted, Trace
from qm.unix.queueprogram import QueueProgram
from qm.wire import queuecode
from qm.wire.envelope import Envelope, Recipient
from tests.harness.waiting import wait_for

ENVELOPE = Envelope(b"a@b.example", (Recipient(b"c@d.example"), Recipient(b"e@f.example")))
READ_ALL = "cat >/dev/null; cat <&1 >/dev/null; "


def _program(home: Path, script: str, timeout_s: float = 30.0) -> QueueProgram:
    """A shell script, the program ``wrap`` in *home*; the environment says where that is."""
    path = home / "wrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return QueueProgram(b"./wrap", os.fsencode(home), {b"PATH": b"/usr/bin:/bin", b"WORD": b"x"}, timeout_s)


def _put(program: QueueProgram, message: bytes = b"Subject: x\n\ny\n", trace: Trace = NO_TRACE) -> Accepted:
    with program:
        program.ensure()
        submission = program.begin(trace)
        submission.write(message)
        return submission.commit(ENVELOPE)


def _failed(program: QueueProgram, message: bytes = b"x") -> QmError:
    with pytest.raises((Temporary, Permanent)) as caught:
        _put(program, message)
    return caught.value


def test_what_it_gets(tmp_path: Path) -> None:
    """Message on 0, envelope on 1, our environment, its name as the only argument, the home as current directory."""
    script = 'cat >message; cat <&1 >envelope; echo "$0 $# $WORD $(pwd -P)" >how; exec ls /proc/self/fd >fds'
    accepted = _put(_program(tmp_path, script))
    assert accepted.name.startswith(b"qp") and not accepted.already
    assert (tmp_path / "message").read_bytes() == b"Subject: x\n\ny\n"
    assert (tmp_path / "envelope").read_bytes() == b"Fa@b.example\0Tc@d.example\0Te@f.example\0\0"
    assert (tmp_path / "how").read_text() == f"./wrap 0 x {tmp_path.resolve()}\n"
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3", "6"]  # 3: the directory that ls reads


def test_our_received_field(tmp_path: Path) -> None:
    """What the queue would have written is written before the message, with the time and without an ID."""
    _put(_program(tmp_path, "cat >message"), trace=Trace(b"Received: from c (d)\n  by e with SMTP", b"\n  for <f>"))
    text = (tmp_path / "message").read_bytes()
    assert text.startswith(b"Received: from c (d)\n  by e with SMTP\n  for <f>; ")
    assert text.endswith(b"-0000\nSubject: x\n\ny\n")


@pytest.mark.parametrize("code", range(1, 256))
def test_exit_codes(tmp_path: Path, code: int) -> None:
    """11 to 40 and 115 are permanent, all others temporary; each has qm-queue's text."""
    error = _failed(_program(tmp_path, f"{READ_ALL}exit {code}"))
    permanent = 11 <= code <= 40 or code == 115
    assert isinstance(error, Permanent if permanent else Temporary)
    assert error.public == queuecode.text(code)
    assert str(code) in error.detail
    assert "\n" not in error.public and str(tmp_path) not in error.public


def test_a_text_counts_with_its_code_only(tmp_path: Path) -> None:
    """With any other code than 82 what came on descriptor 6 is nothing."""
    assert _failed(_program(tmp_path, f"{READ_ALL}echo Dno >&6; exit 71")).public == queuecode.text(71)


def test_a_text_without_end(tmp_path: Path) -> None:
    """Of a text 255 bytes count; one that comes before the message has been read stops nobody."""
    script = f"head -c 500000 /dev/zero | tr '\\0' D >&6; {READ_ALL}exit 82"
    assert _failed(_program(tmp_path, script), b"x" * 300_000).public == "D" * 254


def test_text_for_ever(tmp_path: Path) -> None:
    """One that never stops to write is killed, when its time has come."""
    error = _failed(_program(tmp_path, "exec cat /dev/zero >&6", 0.5), b"x" * 300_000)
    assert isinstance(error, Temporary) and "does not read" in error.detail


def test_killed(tmp_path: Path) -> None:
    """One that a signal ends has failed for now."""
    error = _failed(_program(tmp_path, f"{READ_ALL}kill -9 $$"))
    assert isinstance(error, Temporary) and "signal 9" in error.detail


@pytest.mark.parametrize("message", [b"x", b"x" * 1_000_000])
def test_it_reads_nothing(tmp_path: Path, message: bytes) -> None:
    """One that ends without reading has its say, but for a 0, when not all had gone to it."""
    assert isinstance(_failed(_program(tmp_path, "exit 31"), message), Permanent)
    assert isinstance(_failed(_program(tmp_path, "printf Dno >&6; exit 82"), message), Permanent)
    closed = "exec 0<&- 1<&-; exit 0"
    if len(message) > 65536:
        error = _failed(_program(tmp_path, closed), message)
        assert isinstance(error, Temporary) and error.public == queuecode.text(queuecode.READ)


def test_it_takes_the_envelope_only_in_part(tmp_path: Path) -> None:
    """An envelope that has not gone whole makes a 0 a failure."""
    program = _program(tmp_path, "cat >/dev/null; head -c 10 <&1 >/dev/null")
    many = Envelope(b"", tuple(Recipient(b"%d@d.example" % number) for number in range(20_000)))
    with program:
        submission = program.begin()
        submission.write(b"x")
        with pytest.raises(Temporary, match="ended too early"):
            submission.commit(many)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("script", ["sleep 1000", "trap '' TERM; sleep 1000 & wait; cat; sleep 1000"])
def test_it_hangs(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not end is killed with its process group; the message is for later."""
    monkeypatch.setattr("qm.unix.oversee.GRACE_S", 0.5)
    error = _failed(_program(tmp_path, f"echo $$ >pid; {script}", 0.5))
    assert isinstance(error, Temporary) and error.public == queuecode.text(queuecode.TIMEOUT)
    assert _gone(int((tmp_path / "pid").read_text()))


def test_it_does_not_read_on(tmp_path: Path) -> None:
    """One that stops reading is killed too."""
    error = _failed(_program(tmp_path, "exec sleep 1000", 0.5), b"x" * 300_000)
    assert isinstance(error, Temporary) and error.public == queuecode.text(queuecode.TIMEOUT)


def test_abort(tmp_path: Path) -> None:
    """A message that is thrown away ends the program, which has never seen the end of an envelope."""
    program = _program(tmp_path, "echo $$ >pid; cat >message; cat <&1 >envelope; touch done; exec sleep 1000")
    with program:
        submission = program.begin()
        submission.write(b"x")
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the program runs")
        submission.abort()
        submission.abort()
    assert _gone(int((tmp_path / "pid").read_text()))
    assert not (tmp_path / "envelope").exists() or (tmp_path / "envelope").read_bytes() == b""


def test_what_cannot_be_told(tmp_path: Path) -> None:
    """An address that is too long, or with a NUL in it, is for nobody; the program gets no envelope."""
    program = _program(tmp_path, "cat >/dev/null; cat <&1 >envelope")
    with program:
        with pytest.raises(Permanent):
            program.begin().commit(Envelope(b"x" * 2000, ()))
        with pytest.raises(Temporary, match="wrong format"):
            program.begin().commit(Envelope(b"", (Recipient(b"a\0Tb"),)))
    assert not (tmp_path / "envelope").exists() or (tmp_path / "envelope").read_bytes() == b""


@pytest.mark.parametrize("told", [{"held": b"limitmessages"}, {"requiretls": True}])
def test_what_it_cannot_be_told(tmp_path: Path, told: dict[str, Any]) -> None:
    """A message that is to be held, or to go under TLS only, is for later: the program would send it as any other."""
    program = _program(tmp_path, "cat >message; cat <&1 >envelope")
    with program, pytest.raises(Temporary):
        program.begin().commit(ENVELOPE._replace(**told))
    assert not (tmp_path / "envelope").exists() or (tmp_path / "envelope").read_bytes() == b""


@pytest.mark.parametrize("name", [b"./nothing", b"nothing", b".", b"cat", b"./plain"])
def test_no_program(tmp_path: Path, name: bytes) -> None:
    """What is not there, or cannot be run, is trouble for now; PATH is not searched."""
    (tmp_path / "plain").write_text("x")
    program = QueueProgram(name, os.fsencode(tmp_path), {b"PATH": b"/usr/bin:/bin"})
    with pytest.raises(Temporary, match="cannot be run"):
        program.ensure()
    with program, pytest.raises(Temporary, match="cannot be run"):
        program.begin().commit(ENVELOPE)


def test_its_signals(tmp_path: Path) -> None:
    """It starts with the signals as they are by default."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        _put(_program(tmp_path, f"{READ_ALL}exec grep ^Sig /proc/self/status >signals"))
    finally:
        signal.signal(signal.SIGPIPE, before)
    told = dict(line.split(":\t") for line in (tmp_path / "signals").read_text().splitlines())
    assert (int(told["SigBlk"], 16), int(told["SigIgn"], 16) & (1 << (signal.SIGPIPE - 1))) == (0, 0)


def test_whoever_ignores_children(tmp_path: Path) -> None:
    """Who has been started with SIGCHLD ignored hears how the program ended all the same."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert _failed(_program(tmp_path, f"{READ_ALL}exit 31")).public == queuecode.text(31)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_it_is_aborted_at_once(tmp_path: Path) -> None:
    """One that has hardly begun is ended too."""
    program = _program(tmp_path, "exec sleep 1000")
    for _ in range(50):
        program.begin().abort()
