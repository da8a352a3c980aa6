"""Log lines: one line each, nothing forged, nothing mixed."""

import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.unix import log


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@given(st.binary())
def test_clean_text_is_printable_and_as_long(text: bytes) -> None:
    """Whatever a stranger sends: no control byte, no escape, no new line comes out, and what was fine is as it was."""
    cleaned = log.clean(text)
    assert re.fullmatch(rb"[ -~]*", cleaned)
    assert len(cleaned) == len(text)
    assert all(new in (old, ord("?")) for new, old in zip(cleaned, text, strict=True))


@given(st.binary())
def test_a_word_has_no_blanks(text: bytes) -> None:
    """A value of key=value cannot make another key."""
    assert re.fullmatch(rb"[!-~]*", log.word(text))


def test_a_line_is_one_write(pipe: tuple[int, int]) -> None:
    """A line ends with LF, and a long one is cut so that a pipe takes it whole."""
    log.write(b"x" * 10_000, pipe[1])
    line = os.read(pipe[0], 100_000)
    assert len(line) == log.LINE_MAX
    assert line.endswith(b"x...\n")
    log.write(b"y" * (log.LINE_MAX - 1), pipe[1])
    assert os.read(pipe[0], 100_000) == b"y" * (log.LINE_MAX - 1) + b"\n"


def test_many_lines_take_few_writes_and_none_is_cut(pipe: tuple[int, int]) -> None:
    """write_lines joins lines up to what a pipe takes whole."""
    lines = [b"%d " % number + b"x" * number for number in range(0, 2000, 100)]
    log.write_lines(lines, pipe[1])
    assert os.read(pipe[0], 1_000_000) == b"".join(line + b"\n" for line in lines)
    log.write_lines([], pipe[1])
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)


def test_the_kinds_of_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """A line names its program and, if it is no mere information, its kind."""
    log.info(b"p", "text")
    log.warning(b"p", "text")
    log.alert(b"p", "text")
    log.fatal(b"p", "text")
    assert capfd.readouterr().err == "p: text\np: warning: text\np: alert: text\np: fatal: text\n"


def test_strange_names_and_texts_stay_in_their_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a program's name nor a text that is no UTF-8 can break the line."""
    log.info(b"p\n\x1b[2J", "caf\u00e9\n\udcff")
    line = capfd.readouterr().err
    assert line == "p??[2J: caf??" + "?" + "\\udcff\n"


def test_a_log_that_is_gone_is_no_error() -> None:
    """Mail goes on when nobody reads the log."""
    reader, writer = os.pipe()
    os.close(reader)
    log.write(b"x", writer)
    os.close(writer)
    log.write(b"x", writer)


def test_a_journal_writes_once(capfd: pytest.CaptureFixture[str]) -> None:
    """A session's lines are collected, carry the pid, and cannot be forged by values."""
    journal = log.Journal(b"p")
    journal.note(b"event from=%b", b"a b\nc")
    assert capfd.readouterr().err == ""
    journal.write()
    journal.write()
    assert capfd.readouterr().err == f"p: {os.getpid()} event from=a_b?c\n"
