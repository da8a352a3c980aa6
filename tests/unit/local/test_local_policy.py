"""The decisions of a local delivery (qmail.md section 13)."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.local import policy
from qm.local.policy import Job, Outcome, Verdict

JOB = Job(
    user=b"joe",
    home=b"/home/joe",
    local=b"joe-my-list-x",
    dash=b"-",
    ext=b"my-list-x",
    domain=b"a.b.c.d.e",
    sender=b"ann@b.example",
    default_delivery=b"./Mailbox",
    id=b"1" * 18,
    number=0,
)


def _replace(**fields: bytes) -> Job:
    return JOB._replace(**fields)  # type: ignore[arg-type]


def test_lines() -> None:
    """The three lines at a message's top are exact."""
    assert policy.delivered_to(JOB) == b"Delivered-To: joe-my-list-x@a.b.c.d.e\n"
    assert policy.return_path(JOB) == b"Return-Path: <ann@b.example>\n"
    assert policy.from_line(JOB, 86400 * 8) == b"From ann@b.example Fri Jan 09 00:00:00 1970\n"


def test_lines_of_the_null_sender() -> None:
    """The null sender is <> and, in an mbox, MAILER-DAEMON."""
    job = _replace(sender=b"")
    assert policy.return_path(job) == b"Return-Path: <>\n"
    assert policy.from_line(job, 0) == b"From MAILER-DAEMON Thu Jan 01 00:00:00 1970\n"


def test_lines_of_strange_addresses() -> None:
    """A line end or blank in an address cannot make a line of its own, or a field."""
    job = _replace(local=b"a\nb", sender=b"x y\t\nz@b")
    assert policy.delivered_to(job) == b"Delivered-To: a_b@a.b.c.d.e\n"
    assert policy.return_path(job) == b'Return-Path: <"x y\t\\_z"@b>\n'
    assert policy.from_line(job, 0).startswith(b"From x-y--z@b Thu ")


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_each_line_is_one_line(address: bytes, local: bytes) -> None:
    """Whatever the addresses are, each line has one end."""
    job = _replace(sender=address, local=local)
    for line in (policy.delivered_to(job), policy.return_path(job), policy.from_line(job, 0)):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")


@pytest.mark.parametrize(
    ("sender", "owner", "owner_default", "result"),
    [
        (b"ann@b", False, False, b"ann@b"),
        (b"ann@b", True, False, b"joe-my-list-x-owner@a.b.c.d.e"),
        (b"ann@b", True, True, b"joe-my-list-x-owner-@a.b.c.d.e-@[]"),
        (b"ann@b", False, True, b"ann@b"),
        (b"", True, True, b""),
        (b"#@[]", True, True, b"#@[]"),
    ],
)
def test_new_sender(sender: bytes, owner: bool, owner_default: bool, result: bytes) -> None:
    """A list's owner gets the bounces, one recipient at a time with -owner-default; a bounce stays one."""
    assert policy.new_sender(_replace(sender=sender), owner=owner, owner_default=owner_default) == result


LINE = b"Delivered-To: c@d\n"


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (LINE + b"\nbody\n", True),
        (b"A: b\n" + LINE, True),
        (b"A: b\n" + LINE + b"C: d\n\n", True),
        (b"A: b\n\n" + LINE, False),
        (b"\n" + LINE, False),
        (b"", False),
        (b"A: b\nDelivered-To: c@d", False),
        (b"A: b\n Delivered-To: c@d\n\n", False),
        (b"A: b\nDelivered-To: C@d\n\n", False),
        (b"A: b\nX" + LINE, False),
        (b"A: b\nDelivered-To: c@d \n\n", False),
        (b"A: b\r\n\r\n" + LINE + b"\n", True),
    ],
)
def test_loops(message: bytes, result: bool) -> None:
    """Only our own line, byte for byte, in the header makes a loop; whole, byte by byte, with empty pieces."""
    assert policy.loops([message], LINE) is result
    assert policy.loops([message[i : i + 1] for i in range(len(message))], LINE) is result
    assert policy.loops([b"", message, b""], LINE) is result


_PARTS = [LINE, b"\n", b"A: b\n", LINE[:-1], b"Delivered-To:", b" "]


@given(st.lists(st.sampled_from(_PARTS)), st.lists(st.integers(0, 200)))
def test_loops_cut_anywhere(parts: list[bytes], cuts: list[int]) -> None:
    """However the message is cut, the answer is that of a reader of lines."""
    message = b"".join(parts)
    header = message.split(b"\n\n")[0] + b"\n" if b"\n\n" in message else message
    header = b"" if message.startswith(b"\n") else header
    marks = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    pieces = [message[a:b] for a, b in pairwise(marks)]
    assert policy.loops(pieces, LINE) is (LINE in header.splitlines(keepends=True))


def test_loops_reads_the_header_only() -> None:
    """A large body is not read."""

    def message() -> Iterator[bytes]:
        yield b"A: b\n"
        yield b"\nbody"
        raise AssertionError("read on")

    assert policy.loops(message(), LINE) is False


def test_judge() -> None:
    """Every exit code, and every signal, has its meaning."""
    wanted = dict.fromkeys((100, 64, 65, 70, 76, 77, 78, 112), Verdict.PERMANENT)
    wanted |= {0: Verdict.CONTINUE, 99: Verdict.STOP}
    for code in range(-64, 256):
        assert policy.judge(code) is wanted.get(code, Verdict.TEMPORARY)


def test_environment() -> None:
    """A program gets all of qmail.md 13.5."""
    inherited = {b"PATH": b"/bin", b"SENDER": b"old", b"DEFAULT": b"old"}
    env = policy.environment(JOB, inherited, default=b"x", sender=b"new@s", now_s=0)
    assert env == {
        b"PATH": b"/bin",
        b"HOST": b"a.b.c.d.e",
        b"HOST2": b"a.b.c.d",
        b"HOST3": b"a.b.c",
        b"HOST4": b"a.b",
        b"HOME": b"/home/joe",
        b"USER": b"joe",
        b"LOCAL": b"joe-my-list-x",
        b"RECIPIENT": b"joe-my-list-x@a.b.c.d.e",
        b"DTLINE": b"Delivered-To: joe-my-list-x@a.b.c.d.e\n",
        b"SENDER": b"ann@b.example",
        b"NEWSENDER": b"new@s",
        b"RPLINE": b"Return-Path: <ann@b.example>\n",
        b"UFLINE": b"From ann@b.example Thu Jan 01 00:00:00 1970\n",
        b"EXT": b"my-list-x",
        b"EXT2": b"list-x",
        b"EXT3": b"x",
        b"EXT4": b"",
        b"DEFAULT": b"x",
    }


@pytest.mark.parametrize(
    ("ext", "domain", "wanted"),
    [
        (b"", b"c", {b"EXT": b"", b"EXT2": b"", b"HOST2": b"c", b"HOST4": b"c"}),
        (b"a", b"b.c", {b"EXT2": b"", b"EXT3": b"", b"HOST2": b"b", b"HOST3": b"b"}),
        (b"a--b", b".c", {b"EXT2": b"-b", b"EXT3": b"b", b"EXT4": b"", b"HOST2": b""}),
    ],
)
def test_environment_of_short_names(ext: bytes, domain: bytes, wanted: dict[bytes, bytes]) -> None:
    """Fewer dashes leave EXTn empty, fewer dots leave HOSTn as it is; DEFAULT is not set without a default file."""
    env = policy.environment(_replace(ext=ext, domain=domain), {b"DEFAULT": b"old"}, default=None, sender=b"", now_s=0)
    assert env.items() >= wanted.items()
    assert b"DEFAULT" not in env


@pytest.mark.parametrize(("code", "report"), [(0, b"Kx"), (100, b"Dx"), (111, b"Zx")])
def test_report(code: int, report: bytes) -> None:
    """A report begins with the letter of its exit code."""
    assert Outcome(code, b"x").report == report
