"""qm-newmrh and qm-pw2u as real programs (qmail.md section 19, 12.4)."""

import fcntl
import os
import stat
from collections.abc import Iterator

import pytest

from qm.disk.cdb import Cdb
from tests.harness.barehome import OWNER, BareHome, bare_home


@pytest.fixture(params=[None, pytest.param(OWNER, id="owner", marks=pytest.mark.needs_root)])
def home(request: pytest.FixtureRequest) -> Iterator[BareHome]:
    """A home of whoever runs the tests, and one of a user without privileges."""
    with bare_home(request.param) as home:
        yield home


def lookup(home: BareHome, key: bytes) -> bytes | None:
    cdb = Cdb(str(home.folder / "control/morercpthosts.cdb"))
    cdb.refresh()
    value = cdb.lookup(key)
    cdb.close()
    return value


def test_compile(home: BareHome) -> None:
    """Domains become keys in lower case, without blanks around them; comments and empty lines do not."""
    home.control("morercpthosts", "# more\nOne.Example \n\t.two.example\n\n#three\nfour")
    result = home.run("qm-newmrh")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    for key in (b"one.example", b".two.example", b"four"):
        assert lookup(home, key) == b""
    for key in (b"One.Example", b"#three", b"three", b"", b"# more"):
        assert lookup(home, key) is None
    status = (home.folder / "control/morercpthosts.cdb").stat()
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert home.uid in (None, status.st_uid)
    assert {path.name for path in (home.folder / "control").iterdir()} == {
        "me",
        "roles",
        "morercpthosts",
        "morercpthosts.cdb",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a b\n", b"morercpthosts:1: "),
        ("a\r\n", b"morercpthosts:1: "),
        ("a\nb\0c\n", b"morercpthosts:2: "),
        (None, b"morercpthosts: No such"),
    ],
)
def test_what_is_broken(home: BareHome, text: str | None, said: bytes) -> None:
    """A line that is no domain is named, and the old cdb stays."""
    home.control("morercpthosts", "old\n")
    assert home.run("qm-newmrh").returncode == 0
    if text is None:
        (home.folder / "control/morercpthosts").unlink()
    else:
        home.control("morercpthosts", text)
    result = home.run("qm-newmrh")
    assert result.returncode == 111
    assert said in result.stderr
    assert lookup(home, b"old") == b""


def test_one_at_a_time(home: BareHome) -> None:
    """While another is at work it fails at once."""
    home.control("morercpthosts", "a\n")
    fd = os.open(home.folder / "control", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    result = home.run("qm-newmrh")
    os.close(fd)
    assert (result.returncode, b"another qm-newmrh" in result.stderr) == (111, True)
    assert home.run("qm-newmrh").returncode == 0


def test_usage(home: BareHome) -> None:
    """Arguments are refused."""
    assert home.run("qm-newmrh", "x").returncode == 100
    assert home.run("qm-pw2u", "x").returncode == 100


def test_pw2u(home: BareHome) -> None:
    """What qm-pw2u writes is what qm-newu reads; after a failure nothing is written."""
    result = home.run("qm-pw2u", "-H", input=b"joe:x:503:78::/home/joe:/s\nalias:x:9:9::/alias:/s\n")
    assert (result.returncode, result.stderr) == (0, b"")
    (home.folder / "users/assign").write_bytes(result.stdout)
    assert home.run("qm-newu").returncode == 0
    result = home.run("qm-pw2u", "-H", input=b"joe:x:503:78::/home/joe:/s\nbad\n")
    assert (result.returncode, result.stdout) == (111, b"")
    assert b"line 2 is no account" in result.stderr
    assert b"no user alias" in result.stderr
