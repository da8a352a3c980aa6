"""qm-newu: users/assign to users/cdb (qmail.md 12.3)."""

import os
import stat
import subprocess
from collections.abc import Iterator

import pytest

from qm.disk.cdb import Cdb
from tests.harness.barehome import OWNER, BareHome, bare_home

LINE = "=joe:joe:503:78:/home/joe:::\n"


@pytest.fixture(params=[None, pytest.param(OWNER, id="owner", marks=pytest.mark.needs_root)])
def home(request: pytest.FixtureRequest) -> Iterator[BareHome]:
    """A home of whoever runs the tests, and one of a user without privileges."""
    with bare_home(request.param) as home:
        yield home


def newu(home: BareHome, text: str | bytes) -> subprocess.CompletedProcess[bytes]:
    data = text.encode() if isinstance(text, str) else text
    (home.folder / "users/assign").write_bytes(data)
    return home.run("qm-newu")


def lookup(home: BareHome, key: bytes) -> bytes | None:
    cdb = Cdb(str(home.folder / "users/cdb"))
    cdb.refresh()
    value = cdb.lookup(key)
    cdb.close()
    return value


def test_compile(home: BareHome) -> None:
    """Exact lines, prefixes and the characters that end prefixes get their keys; the file is for all to read."""
    result = newu(home, LINE + "+Joe-:joe:503:78:/home/joe:-::\n+:alias:7790:2108:/alias:-::\n.\n")
    assert (result.returncode, result.stderr) == (0, b"")
    assert lookup(home, b"!joe\0") == b"joe\x00503\x0078\0/home/joe\0\0"
    assert lookup(home, b"!joe-") == b"joe\x00503\x0078\0/home/joe\0-\0"
    assert lookup(home, b"!") == b"alias\x007790\x002108\0/alias\0-\0"
    assert lookup(home, b"") == b"-"
    assert lookup(home, b"!joe") is None
    status = (home.folder / "users/cdb").stat()
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert {path.name for path in (home.folder / "users").iterdir()} == {"assign", "cdb", "lock"}
    assert home.uid in (None, status.st_uid)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINE, b"users/assign:2: the file must end with a line that begins with a dot"),
        (LINE + LINE[:-2] + "\n.\n", b"users/assign:2: 6 colons where 7 belong"),
        (LINE + "=j\0e:joe:503:78:/home/joe:::\n.\n", b"users/assign:2: NUL byte"),
        (":joe:503:78:/home/joe:::\n.\n", b"users/assign:1: nothing before the first colon"),
        (LINE + "\n.\n", b"users/assign:2: begins with none of"),
        ("=root:root:0:0:/root:::\n.\n", b"users/assign:1: uid 0"),
        (b"\xff\xfe\x00\n", b"users/assign:1: begins with none of"),
        ("", b"users/assign:1: the file must end"),
    ],
)
def test_a_bad_line_changes_nothing(home: BareHome, text: str | bytes, said: bytes) -> None:
    """A line that makes no sense is named with its file and number, exit 111, and the old users/cdb stays as it was."""
    assert newu(home, LINE + ".\n").returncode == 0
    before = (home.folder / "users/cdb").read_bytes()
    result = newu(home, text)
    assert result.returncode == 111
    assert said in result.stderr
    assert (home.folder / "users/cdb").read_bytes() == before
    assert not (home.folder / "users/cdb.tmp").exists()


def test_a_warning(home: BareHome) -> None:
    """A prefix that can never match is compiled as qmail does, with a warning."""
    result = newu(home, "+joe-LIST:joe:503:78:/home/joe:-:l:\n.\n")
    assert result.returncode == 0
    assert b"warning: users/assign:1: a prefix that ends in a capital letter never matches" in result.stderr
    assert lookup(home, b"") == b"T"


def test_without_users_assign(home: BareHome) -> None:
    """No users/assign is a failure that says so."""
    (home.folder / "users/assign").unlink()
    result = home.run("qm-newu")
    assert result.returncode == 111
    assert b"users/assign: No such file" in result.stderr


def test_usage(home: BareHome) -> None:
    """It takes no arguments."""
    assert home.run("qm-newu", "x").returncode == 100


@pytest.mark.parametrize("home", [None if os.geteuid() else OWNER], indirect=True, ids=["unprivileged"])
def test_a_directory_that_we_may_not_write(home: BareHome) -> None:
    """Where users/cdb cannot be written the old one stays, and the exit code is 111."""
    assert newu(home, LINE + ".\n").returncode == 0
    (home.folder / "users").chmod(0o555)
    result = newu(home, ".\n")
    assert result.returncode == 111
    assert b"users/cdb: Permission denied" in result.stderr
    assert lookup(home, b"!joe\0") is not None


def test_many_users(home: BareHome) -> None:
    """20,000 users compile, and each is found."""
    lines = [f"=u{number}:u:{number}:78:/home/u{number}:::\n" for number in range(1, 20_001)]
    assert newu(home, "".join([*lines, ".\n"])).returncode == 0
    for number in (1, 777, 20_000):
        assert lookup(home, b"!u%d\0" % number) == b"u\0%d\x0078\0/home/u%d\0\0" % (number, number)
    assert lookup(home, b"!u20001\0") is None
