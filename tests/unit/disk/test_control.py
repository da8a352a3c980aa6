"""Control files: their four kinds, what is broken, and what a running program makes of a change."""

from pathlib import Path

import pytest

from qm.disk.control import SIZE_MAX, BadControl, Controls

NAMES = ("databytes", "rcpthosts", "virtualdomains", "smtpgreeting")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "me").write_text("mx.example\n")
    return tmp_path


def _controls(folder: Path) -> Controls:
    return Controls(NAMES, str(folder))


def test_kinds(folder: Path) -> None:
    """One line, a number, a list without comments and blanks, key:value lines of which the last one of a key counts."""
    (folder / "smtpgreeting").write_bytes(b"hello there \t\nmore\n")
    (folder / "databytes").write_bytes(b" 10 \n")
    (folder / "rcpthosts").write_bytes(b"# ours\n\na.example \n.b.example")
    (folder / "virtualdomains").write_bytes(b"A.example:x\na.example:y:z\n:rest\n")
    controls = _controls(folder)
    assert controls.line("smtpgreeting") == b"hello there"
    assert controls.number("databytes") == 10
    assert controls.lines("rcpthosts") == (b"a.example", b".b.example")
    assert controls.table("virtualdomains") == {b"a.example": b"y:z", b"": b"rest"}


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (b"[IPv6:::1]:verify", b"[ipv6:::1]", b"verify"),
        (b"[192.0.2.1]:[::1]:26", b"[192.0.2.1]", b"[::1]:26"),
        (b"[IPv6:::1]", b"[ipv6", b"::1]"),
        (b"a:[IPv6:::1]:26", b"a", b"[IPv6:::1]:26"),
    ],
)
def test_an_address_as_a_key(folder: Path, line: bytes, key: bytes, value: bytes) -> None:
    """The colons of an address in brackets do not end a key that it is."""
    (folder / "smtproutes").write_bytes(line + b"\n")
    assert Controls(("smtproutes",), str(folder)).table("smtproutes") == {key: value}


def test_defaults(folder: Path) -> None:
    """Without files there are the table's defaults, of which some are this host's name; an empty list is a list."""
    controls = _controls(folder)
    assert controls.line("smtpgreeting") == b"mx.example"
    assert controls.number("databytes") == 52428800
    assert controls.lines("rcpthosts") == (b"mx.example",)
    assert controls.table("virtualdomains") == {}
    (folder / "rcpthosts").write_bytes(b"#\n")
    assert _controls(folder).lines("rcpthosts") == ()


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("databytes", b"", "databytes:1: not a number of bytes"),
        ("databytes", b"-1\n", "databytes:1: not a number of bytes"),
        ("databytes", b"9" * 19, "databytes:1: not a number of bytes"),
        ("databytes", b"\xd9\xa1", "databytes:1: not a number of bytes"),
        ("rcpthosts", b"a\n\nb\0\n", "rcpthosts:3: NUL byte"),
        ("virtualdomains", b"# x\na:b\nc\n", "virtualdomains:3: no colon"),
        ("rcpthosts", b"x" * (SIZE_MAX + 1), f"larger than {SIZE_MAX} bytes"),
    ],
)
def test_broken(folder: Path, name: str, text: bytes, complaint: str) -> None:
    """A broken file is refused with its name and line."""
    (folder / name).write_bytes(text)
    with pytest.raises(BadControl) as caught:
        _controls(folder)
    assert complaint in caught.value.detail


def test_no_name(folder: Path) -> None:
    """Who needs this host's name hears that there is none; who does not is not disturbed."""
    (folder / "me").unlink()
    controls = _controls(folder)
    assert controls.number("databytes") == 52428800
    with pytest.raises(BadControl, match="no name"):
        controls.me()
    with pytest.raises(BadControl, match="no name"):
        controls.lines("rcpthosts")


def test_a_change_counts(folder: Path) -> None:
    """A file that changes, comes or goes is read again; nothing is, when nothing has changed."""
    controls, said = _controls(folder), list[str]()
    assert not controls.refresh(said.append)
    (folder / "databytes").write_text("1\n")
    assert controls.refresh(said.append)
    assert controls.number("databytes") == 1
    (folder / "databytes").unlink()
    assert controls.refresh(said.append)
    assert controls.number("databytes") == 52428800
    assert not controls.refresh(said.append)
    assert said == []


def _spoil(folder: Path, how: str) -> str:
    """Break a file; gives what will be said of it."""
    path = folder / "rcpthosts"
    if how == "mode":
        path.chmod(0o666)
        return ": writable by everybody; chmod o-w"
    if how == "directory":
        path.unlink()
        path.mkdir()
        return ": Is a directory"
    if how == "link":
        path.unlink()
        path.symlink_to("rcpthosts")
        return ": Too many levels of symbolic links"
    path.write_bytes(b"\0")
    return ":1: NUL byte"


@pytest.mark.parametrize("how", ["content", "mode", "directory", "link"])
def test_what_breaks_keeps_its_last_value(folder: Path, how: str) -> None:
    """It is said once, its last good value stays; other files count meanwhile, and this one when it is mended."""
    path = folder / "rcpthosts"
    path.write_text("a.example\n")
    controls, said = _controls(folder), list[str]()
    complaint = _spoil(folder, how)
    (folder / "databytes").write_text("1\n")
    assert controls.refresh(said.append)
    assert not controls.refresh(said.append)
    assert len(said) == 1 and said[0].endswith(f"/rcpthosts{complaint}; keeping the last good value")
    assert controls.lines("rcpthosts") == (b"a.example",)
    assert controls.number("databytes") == 1
    path.rmdir() if how == "directory" else path.unlink()
    path.write_text("b.example\n")
    assert controls.refresh(said.append)
    assert controls.lines("rcpthosts") == (b"b.example",)
    assert len(said) == 1


@pytest.mark.parametrize("text", [None, b"", b"\n"])
def test_a_name_that_goes_is_kept(folder: Path, text: bytes | None) -> None:
    """A running program does not lose this host's name because its file is emptied or removed."""
    controls, said = _controls(folder), list[str]()
    if text is None:
        (folder / "me").unlink()
    else:
        (folder / "me").write_bytes(text)
    assert not controls.refresh(said.append)
    assert controls.me() == b"mx.example"
    assert [line.partition(": ")[2][:16] for line in said] == ["missing or empty"]
    (folder / "me").write_text("other.example\n")
    assert controls.refresh(said.append)
    assert controls.lines("rcpthosts") == (b"other.example",)
