"""addcr, delcr, fixcrio and recordio, beside those of ucspi-tcp."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.harness.tcpserver import ROOT
from tests.harness.waiting import LIMIT_S

SAMPLES = [
    b"",
    b"\n",
    b"x",
    b"a\nb\r\n\rc\r\r\n\n\r\n\r",
    b"line\n" * 5000,
    bytes(range(32, 127)) * 9,
    b"\r" * 5000 + b"\n",
]


def _run(program: str, *words: str, text: bytes = b"", env: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    command = [program if "/" in program else str(ROOT / "bin" / program), *words]
    done = subprocess.run(
        command,
        input=text,
        env={"PATH": "/usr/bin:/bin", **(env or {})},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout, re.sub(rb"(?m)^\d+ ", b"N ", done.stderr)


def _recorded(record: bytes, way: bytes) -> list[bytes]:
    return [line[4:] for line in record.split(b"\n") if line.startswith(b"N " + way)]


@pytest.mark.needs("/usr/bin/addcr")
@pytest.mark.parametrize("text", SAMPLES)
@pytest.mark.parametrize("name", ["addcr", "delcr"])
def test_filters(name: str, text: bytes) -> None:
    """The same bytes and exit code as those of ucspi-tcp."""
    assert _run(name, text=text) == _run(f"/usr/bin/{name}", text=text)


@pytest.mark.parametrize("name", ["addcr", "delcr"])
def test_a_filter_that_cannot_write(name: str) -> None:
    """What cannot be written is exit 111."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([ROOT / "bin" / name], input=b"x\n", stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 111
    assert b"unable to write" in done.stderr


@pytest.mark.needs("/usr/bin/fixcrio")
@pytest.mark.parametrize("text", SAMPLES)
@pytest.mark.parametrize("name", ["fixcrio", "fixcrlf"])
def test_fixcrio(name: str, text: bytes) -> None:
    """What the program reads and what it writes is completed, as by ucspi-tcp; the exit code is the program's."""
    program = ("sh", "-c", r"od -An -c; printf 'a\nb\r\n\r'; exit 7")
    assert _run(name, *program, text=text) == _run("/usr/bin/fixcrio", *program, text=text)


@pytest.mark.needs("/usr/bin/recordio")
@pytest.mark.parametrize("text", [b"", b"x", b"a\n\nb", b"a\nb\n", b" " * 600 + b"\n"])
def test_recordio(text: bytes) -> None:
    """Both ways' lines of the record, the bytes and the exit code are those of ucspi-tcp."""
    program = ("sh", "-c", "cat; exit 3")
    ours, theirs = _run("recordio", *program, text=text), _run("/usr/bin/recordio", *program, text=text)
    assert ours[:2] == theirs[:2] == (3, text)
    for way in (b"<", b">"):
        assert _recorded(ours[2], way) == _recorded(theirs[2], way)


def test_the_record_has_no_control_bytes() -> None:
    """What is not printable is a question mark in the record, and itself where it goes."""
    code, out, record = _run("recordio", "cat", text=b"\x1b[2J\xff\0\r\n")
    assert (code, out) == (0, b"\x1b[2J\xff\0\r\n")
    assert _recorded(record, b"<") == [b"?[2J??? ", b"[EOF]"]


@pytest.mark.parametrize("name", ["recordio", "fixcrio"])
def test_it_ends_with_the_output(name: str) -> None:
    """When the program's output is at its end, so is ours, though our input is not."""
    reader, writer = os.pipe()
    command = [ROOT / "bin" / name, "sh", "-c", "echo bye"]
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=LIMIT_S)
    os.close(reader)
    os.close(writer)
    assert out.strip() == b"bye"


@pytest.mark.parametrize("name", ["recordio", "fixcrio"])
def test_a_program_that_reads_nothing(name: str) -> None:
    """More than it will ever read does no harm."""
    assert _run(name, "true", text=b"x\n" * 100_000)[:2] == (0, b"")


@pytest.mark.parametrize("name", ["recordio", "fixcrio", "fixcrlf"])
def test_usage(name: str) -> None:
    """Without a program it is exit 100; a program that is not there is 100 too, one that cannot run now 111."""
    assert _run(name)[0] == 100
    assert _run(name, "/nonexistent/program")[0] == 100


def test_our_own_programs(tmp_path: Path) -> None:
    """A program of ours is called, one within the other."""
    code, out, record = _run("recordio", "fixcrio", "delcr", text=b"a\nb\r\n", env={"QMHOME": str(tmp_path)})
    assert (code, out) == (0, b"a\r\nb\r\n")
    assert _recorded(record, b"<")[0] == b"a "


@pytest.mark.needs_root
def test_the_child_is_not_root() -> None:
    """For a program that is root, the bytes are passed on by a child that is not."""
    script = "cat /proc/$(cat /proc/$$/task/$$/children | cut -d' ' -f1)/status; exit 0"
    code, out, _ = _run("fixcrio", "sh", "-c", script)
    found = re.search(rb"Uid:\s+(\d+)\s+(\d+)\s+(\d+)", out)
    assert code == 0
    assert found is not None
    assert b"0" not in found.groups()
