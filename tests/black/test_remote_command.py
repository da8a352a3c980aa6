"""qm-remote, the command (qmail.md section 14)."""

import subprocess
from pathlib import Path

import pytest

from tests.harness.barehome import BareHome
from tests.harness.peers import ScriptedMx, free_port
from tests.harness.waiting import wait_for

TEXT = b"Subject: x\n\n.dot\n"


@pytest.fixture
def home(tmp_path: Path) -> BareHome:
    return BareHome(tmp_path / "home", None)


def reports(done: subprocess.CompletedProcess[bytes]) -> list[bytes]:
    """What it printed; it always exits 0."""
    assert done.returncode == 0 and done.stdout.endswith(b"\0")
    return done.stdout[:-1].split(b"\0")


def test_reports(home: BareHome, tmp_path: Path) -> None:
    """One report for each recipient, and one for the message; the message may come through a pipe."""
    with ScriptedMx(tmp_path, {"RCPT": ["250 ok", "550 5.1.1 no", "450 wait"]}) as mx:
        home.control("smtproutes", f":127.0.0.1:{mx.port}\n")
        done = home.run("qm-remote", "x.test", "a@b.test", "c@x.test", "d@x.test", "e@x.test", input=TEXT)
        assert [report[:1] for report in reports(done)] == [b"r", b"h", b"s", b"K"]
        assert mx.texts() == ["Subject: x\r\n\r\n..dot\r\n"]
        wait_for(lambda: mx.lines()[-1:] == ["QUIT"], "and it says goodbye")


def test_one_report_when_nobody_is_there(home: BareHome) -> None:
    """A failure of the whole is one report; a dead host exits 0 as well."""
    home.control("smtproutes", f":127.0.0.1:{free_port()}\n")
    (report,) = reports(home.run("qm-remote", "x.test", "", "c@x.test", "d@x.test", input=TEXT))
    assert report.startswith(b"Z") and report.endswith(b"(#4.4.1)\n")


def test_a_file_is_read_from_where_it_stands(home: BareHome, tmp_path: Path) -> None:
    """Descriptor 0 is read from its offset, as qmail-remote does."""
    (tmp_path / "message").write_bytes(b"skipped\n" + TEXT)
    with ScriptedMx(tmp_path) as mx, (tmp_path / "message").open("rb") as file:
        home.control("smtproutes", f":127.0.0.1:{mx.port}\n")
        file.seek(8)
        command = home.command(["qm-remote", "x.test", "a@b.test", "c@x.test"])
        subprocess.run(command, cwd=home.folder, env=home.environment(), stdin=file, check=True, timeout=60)
        assert mx.texts() == ["Subject: x\r\n\r\n..dot\r\n"]


@pytest.mark.parametrize("words", [[], ["x.test"], ["x.test", "a@b.test"]])
def test_usage(home: BareHome, words: list[str]) -> None:
    """Too few arguments are a permanent report."""
    (report,) = reports(home.run("qm-remote", *words))
    assert report.startswith(b"D") and b"5.3.5" in report


@pytest.mark.parametrize(("name", "text"), [("helohost", "a b\n"), ("smtproutes", ":[x\n"), ("timeoutmail", "soon\n")])
def test_broken_control_files(home: BareHome, name: str, text: str) -> None:
    """A broken control file is a temporary report, and named in the log."""
    home.control(name, text)
    done = home.run("qm-remote", "x.test", "a@b.test", "c@x.test", input=TEXT)
    assert reports(done)[0].startswith(b"Z") and f"control/{name}".encode() in done.stderr


def test_no_home(home: BareHome) -> None:
    """No home, no delivery, and no bounce."""
    home.folder.rename(home.folder.with_name("gone"))
    home.folder.mkdir()
    (report,) = reports(home.run("qm-remote", "x.test", "a@b.test", "c@x.test", input=TEXT))
    assert report.startswith(b"Z")
