"""qm-pw2u: passwd lines to users/assign (qmail.md 12.4)."""

import os
from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.pw2u import Names, Rules, _names, _rules, assign
from qm.unix.program import Usage
from qm.wire.assign import compile_lines

NONE = Names(None, frozenset(), {}, [], b"")
ANY_HOME = Rules(home=b"H")
ALIAS = b"alias:x:7790:2108::/q/alias:/bin/true\n"
JOE = b"joe:x:503:78:Joe User:/home/joe:/bin/sh\n"
OF_ALIAS = b"=alias:alias:7790:2108:/q/alias:::\n+alias-:alias:7790:2108:/q/alias:-::\n+:alias:7790:2108:/q/alias:-::\n"
OF_JOE = b"=joe:joe:503:78:/home/joe:::\n+joe-:joe:503:78:/home/joe:-::\n"


def test_accounts() -> None:
    """Each account has its exact line and its wildcard; alias has everything else, too; the file ends with a dot."""
    text = assign(JOE + ALIAS, ANY_HOME, NONE)
    assert text == OF_JOE + OF_ALIAS + b".\n"
    assert not compile_lines(text).warnings


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (["-H"], OF_JOE + OF_ALIAS),
        (["-HC"], b"".join(line for line in (OF_JOE + OF_ALIAS).splitlines(True) if b"-:" not in line[:8])),
        (["-H", "-c+"], (OF_JOE + OF_ALIAS).replace(b"joe-", b"joe+").replace(b"alias-", b"alias+")),
        (["-H", "-c", "+"], (OF_JOE + OF_ALIAS).replace(b"joe-", b"joe+").replace(b"alias-", b"alias+")),
        (["-H/"], OF_JOE.replace(b":-:", b":-/:") + OF_ALIAS.replace(b":-:", b":-/:", 1)),
    ],
)
def test_break_and_dash(options: list[str], want: bytes) -> None:
    """-C: no extensions; -c: another character between name and extension; -/: a directory for .qmail files."""
    rules = _rules([b"qm-pw2u", *map(os.fsencode, options)])
    assert assign(JOE + ALIAS, rules, NONE) == want + b".\n"


def test_capitals() -> None:
    """-U leaves names with capitals out, -u takes them; the last one counts."""
    jim = b"Jim:x:5:5::/h:/s\n"
    for words, taken in (([b"-Hu"], True), ([b"-HuU"], False), ([b"-HU", b"-u"], True), ([b"-H"], False)):
        assert (b"=Jim:" in assign(jim + ALIAS, _rules([b"qm-pw2u", *words]), NONE)) is taken


@pytest.mark.parametrize("argv", [["-x"], ["-c"], ["-c", "ab"], ["-c:"], ["word"], ["-c", ""]])
def test_usage(argv: list[str]) -> None:
    """Any other command line is refused."""
    with pytest.raises(Usage):
        _rules([b"qm-pw2u", *map(os.fsencode, argv)])


def test_who_is_skipped() -> None:
    """uid 0, capitals without -u, lines that are no accounts, and a name's second line are skipped."""
    others = (
        b"root:x:0:0::/root:/bin/sh\n+::::::\n-x::::::\n#joe\n\nJim:x:5:5::/h:/s\nbad:line\nnot:x:a:b::/h:/s\n"
        b"joe:x:9:9::/other:/s\nnul\0:x:1:1::/h:/s\n"
    )
    assert assign(JOE + others + ALIAS, ANY_HOME, NONE) == OF_JOE + OF_ALIAS + b".\n"
    assert b"=Jim:Jim:5:5:/h:::\n" in assign(others + ALIAS, Rules(home=b"H", upper=True), NONE)


@pytest.mark.parametrize(
    ("home", "missing", "others"), [(b"o", "skip", "skip"), (b"h", "fail", "skip"), (b"H", "take", "take")]
)
def test_homes(tmp_path: Path, home: bytes, missing: str, others: str) -> None:
    """-o skips who has no home of his own, -h stops at a missing home, -H does not look."""
    mine = os.getuid() or 1
    if mine != os.getuid():
        os.chown(tmp_path, mine, mine)
    alias = b"alias:x:%d:1::%b:/s\n" % (mine, os.fsencode(tmp_path))
    for line, fate in ((b"joe:x:503:78::/not/there:/s\n", missing), (b"joe:x:503:78::/:/s\n", others)):
        if fate == "fail":
            with pytest.raises(Temporary, match="/not/there"):
                assign(line + alias, Rules(home=home), NONE)
        else:
            assert (b"=joe:" in assign(line + alias, Rules(home=home), NONE)) == (fate == "take")


def test_alias_must_be_there() -> None:
    """Without an account alias there is nobody for all other mail, and so no file."""
    for text in (JOE, b"", ALIAS.replace(b"7790", b"0")):
        with pytest.raises(Temporary, match="no user alias"):
            assign(text, ANY_HOME, NONE)


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "users").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "users"


def test_files(users: Path) -> None:
    """include and exclude choose, mailnames rename, subusers and append add."""
    (users / "include").write_text("# ours\njoe\nALIAS\nsue  \n")
    (users / "exclude").write_text("sue\n")
    (users / "mailnames").write_text("joe:joe.user:j\nnot a line\n")
    (users / "subusers").write_text("web:joe:www:\n")
    (users / "append").write_text("=x:y:1:1:/z:::")
    passwd = JOE + b"sue:x:5:5::/h:/s\njim:x:6:6::/h:/s\n" + ALIAS
    assert assign(passwd, ANY_HOME, _names()) == (
        b"=joe.user:joe:503:78:/home/joe:::\n+joe.user-:joe:503:78:/home/joe:-::\n"
        b"=j:joe:503:78:/home/joe:::\n+j-:joe:503:78:/home/joe:-::\n" + OF_ALIAS + b"=web:joe:503:78:/home/joe:-:www:\n"
        b"+web-:joe:503:78:/home/joe:-:www-:\n=x:y:1:1:/z:::\n.\n"
    )


@pytest.mark.parametrize("line", ["web:jim:www:\n", "web:joe\n"])
def test_broken_subusers(users: Path, line: str) -> None:
    """A subuser of nobody, and a line that is none, stop it."""
    (users / "subusers").write_text(line)
    with pytest.raises(Temporary, match="users/subusers"):
        assign(JOE + ALIAS, ANY_HOME, _names())


def test_files_that_cannot_be_read(users: Path) -> None:
    """A file that is there and cannot be read is named."""
    (users / "append").mkdir()
    with pytest.raises(Temporary, match="users/append"):
        _names()
