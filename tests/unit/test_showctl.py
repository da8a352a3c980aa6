"""qm-showctl: what each control file means here."""

import os
from pathlib import Path

import pytest

from qm import showctl
from qm.disk.control import TABLE


def _show(home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = showctl.main([b"qm-showctl"], {b"QMHOME": str(home).encode()})
    return code, capsys.readouterr().out


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "control"
    folder.mkdir()
    (folder / "me").write_text("host.example\n")
    return folder


def test_every_control_file_is_shown(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file of the table is named, with its value or default."""
    (control / "databytes").write_text("1000\n")
    code, text = _show(control.parent, capsys)
    lines = text.splitlines()
    assert code == 0
    assert all(any(line.startswith(f"{name}: ") for line in lines) for name in TABLE)
    assert "databytes: 1000 bytes" in lines
    assert "locals: host.example   (default)" in lines


@pytest.mark.parametrize(
    ("name", "text", "mode", "said"),
    [
        ("databytes", "many\n", 0o644, "databytes: WRONG: control/databytes:1: not a number of bytes"),
        ("virtualdomains", "a:b\nnonsense\n", 0o644, "virtualdomains: WRONG: control/virtualdomains:2: no colon"),
        ("smtpauth", "x a b\n", 0o644, "smtpauth: WRONG: control/smtpauth: others can read it; chmod 0600"),
        ("locals", "x\n", 0o666, "locals: WRONG: control/locals: writable by everybody; chmod o-w"),
    ],
)
def test_what_is_wrong_is_named(
    control: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, mode: int, said: str
) -> None:
    """A broken or unsafe file is told with file and line, and the exit code is 111."""
    (control / name).write_text(text)
    (control / name).chmod(mode)
    code, shown = _show(control.parent, capsys)
    assert code == 111
    assert said in shown.splitlines()


@pytest.mark.parametrize(
    ("ages", "code", "said"),
    [
        ({"morercpthosts": 1}, 111, "control/morercpthosts.cdb is missing; run qm-newmrh"),
        (
            {"morercpthosts": 2, "morercpthosts.cdb": 1},
            111,
            "control/morercpthosts.cdb is older than control/morercpthosts; run qm-newmrh",
        ),
        ({"morercpthosts": 1, "morercpthosts.cdb": 1}, 0, None),
        ({"morercpthosts": 1, "morercpthosts.cdb": 2}, 0, None),
        ({"morercpthosts.cdb": 1}, 0, "control/morercpthosts, of which it was made, is missing"),
        ({}, 0, None),
    ],
)
def test_what_is_compiled_is_as_its_text(
    control: Path, capsys: pytest.CaptureFixture[str], ages: dict[str, int], code: int, said: str | None
) -> None:
    """morercpthosts.cdb is what smtpd reads: that it is missing or older than its text is wrong (qmail.md 19)."""
    for name, time_s in ages.items():
        (control / name).write_text("a.example\n")
        os.utime(control / name, (time_s, time_s))
    found, text = _show(control.parent, capsys)
    assert found == code
    lines = [line for line in text.splitlines() if line.startswith("morercpthosts.cdb: ")]
    assert lines == ([] if said is None else [f"morercpthosts.cdb: {'WRONG: ' if code else ''}{said}"])


def test_passwords_are_not_shown(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of passwords is told by how many entries it has."""
    (control / "smtpauth").write_text("relay.example:587 ann secret\nrelay.test ann secret\n")
    (control / "smtpauth").chmod(0o600)
    code, text = _show(control.parent, capsys)
    assert (code, "secret" in text, text.count("an entry that is not shown")) == (0, False, 2)


def test_a_file_of_nobody_is_named(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt control file is told, since its setting does not count."""
    (control / "databite\x1b[31m").write_text("1\n")
    code, text = _show(control.parent, capsys)
    assert code == 0
    assert "databite?[31m: no program of ours reads this file" in text.splitlines()


def test_without_a_name_the_host_has_nothing(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing control/me is wrong, and so is all that would take its value."""
    (control / "me").unlink()
    code, text = _show(control.parent, capsys)
    assert code == 111
    assert "me: WRONG: control/me:1: missing or empty; write the host's name into it" in text.splitlines()
