"""Who gets the mail of a local part (qmail.md sections 10, 12)."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm.disk import cdb, users
from qm.disk.users import Directory, User
from qm.errors import Temporary
from qm.unix.accounts import Account
from qm.wire.assign import compile_lines

ALIAS_UID = 64001 if os.geteuid() == 0 else os.getuid()
ALIAS_GID = 64001 if os.geteuid() == 0 else os.getgid()
ASSIGN = b"""\
=joe:joe:503:78:/home/joe:::
+joe-:joe:503:78:/home/joe:-::
=joe-list:ann:504:78:home/ann:-:l:
+joe-list-:ann:504:78:home/ann:-:l-:
+x=:x:505:78:/home/x:=::
=root:joe:503:78:/home/joe:::
.
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with control/roles and an empty users/."""
    monkeypatch.chdir(tmp_path)
    for name in ("control", "users"):
        (tmp_path / name).mkdir()
    (tmp_path / "control" / "roles").write_text("alias:64001:64001\n")
    return tmp_path


def _assign(text: bytes) -> None:
    cdb.write("users/cdb", compile_lines(text).entries)


class _Accounts:
    """A user database of the test's own, which counts how often it is asked."""

    def __init__(self, *accounts: Account) -> None:
        self.known = {account.name: account for account in accounts}
        self.asked: list[bytes] = []

    def __call__(self, name: bytes) -> Account | None:
        self.asked.append(name)
        return self.known.get(name)


class _Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _of_alias(home: Path, local: bytes) -> User:
    return User(b"alias", ALIAS_UID, ALIAS_GID, os.fsencode(home / "alias"), b"-", local)


@pytest.mark.parametrize(
    ("local", "user"),
    [
        (b"joe", User(b"joe", 503, 78, b"/home/joe", b"", b"")),
        (b"JOE", User(b"joe", 503, 78, b"/home/joe", b"", b"")),
        (b"joe-", User(b"joe", 503, 78, b"/home/joe", b"-", b"")),
        (b"Joe-Foo.Bar", User(b"joe", 503, 78, b"/home/joe", b"-", b"Foo.Bar")),
        (b"joe-list-x-y", User(b"ann", 504, 78, b"HOME/home/ann", b"-", b"l-x-y")),
        (b"joe-list", User(b"ann", 504, 78, b"HOME/home/ann", b"-", b"l")),
        (b"joe-listx", User(b"joe", 503, 78, b"/home/joe", b"-", b"listx")),
        (b"x=y-z", User(b"x", 505, 78, b"/home/x", b"=", b"y-z")),
        (b"root", User(b"joe", 503, 78, b"/home/joe", b"", b"")),
    ],
)
def test_assigned(home: Path, local: bytes, user: User) -> None:
    """An exact line beats a prefix, the longest prefix beats others, and what follows it keeps its case."""
    _assign(ASSIGN)
    want = user._replace(home=user.home.replace(b"HOME", os.fsencode(home)))
    assert Directory(account=_Accounts()).find(local) == want


@pytest.mark.parametrize("local", [b"joes", b"x", b"", b"nobody", b"-", b"X"])
def test_not_assigned(home: Path, local: bytes) -> None:
    """What no line names is the alias user's, below our own home, with all of the local part as its extension."""
    _assign(ASSIGN)
    assert Directory(account=_Accounts()).find(local) == _of_alias(home, local)


def test_an_empty_prefix_catches_all(home: Path) -> None:
    """The prefix of no bytes takes what nothing else takes, and no account is asked for."""
    _assign(b"+:all:506:78:/home/all:-::\n=joe:joe:503:78:/home/joe:::\n.\n")
    accounts = _Accounts()
    directory = Directory(account=accounts)
    assert directory.find(b"Any-One") == User(b"all", 506, 78, b"/home/all", b"-", b"Any-One")
    assert directory.find(b"joe").user == b"joe"
    assert not accounts.asked


def test_a_prefix_must_end_where_prefixes_end(home: Path) -> None:
    """Only bytes that end some prefix are tried as ends: a capital one never matches, as in qmail."""
    _assign(b"+joeX:joe:503:78:/home/joe:-::\n.\n")
    assert Directory(account=_Accounts()).find(b"joeXy") == _of_alias(home, b"joeXy")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.binary(max_size=60).filter(lambda local: b"\0" not in local))
def test_any_local_part(home: Path, local: bytes) -> None:
    """Every local part is somebody's, and the end of it that is the extension is as it was written."""
    _assign(ASSIGN)
    user = Directory(account=_Accounts()).find(local)
    assert user.uid > 0
    assert local.endswith(user.ext) or user.user == b"ann"


def _account(home: Path, name: bytes, uid: int | None = None) -> Account:
    folder = home / os.fsdecode(name)
    folder.mkdir()
    return Account(name, os.getuid() or 1000 if uid is None else uid, 7, os.fsencode(folder), b"/bin/sh")


def _own(account: Account) -> Account:
    if os.geteuid() == 0:
        os.chown(account.home, account.uid, -1)
    return account


def test_accounts(home: Path) -> None:
    """An account of the name, else the longest one that ends at a dash; the rest is the extension, in its own case."""
    joe, joe_x = _own(_account(home, b"joe")), _own(_account(home, b"joe-x"))
    directory = Directory(account=_Accounts(joe, joe_x))
    assert directory.find(b"Joe") == User(b"joe", joe.uid, 7, joe.home, b"", b"")
    assert directory.find(b"joe-List-A") == User(b"joe", joe.uid, 7, joe.home, b"-", b"List-A")
    assert directory.find(b"JOE-X-a") == User(b"joe-x", joe_x.uid, 7, joe_x.home, b"-", b"a")
    assert directory.find(b"joe-") == User(b"joe", joe.uid, 7, joe.home, b"-", b"")
    assert directory.find(b"-joe") == _of_alias(home, b"-joe")
    assert directory.find(b"joex") == _of_alias(home, b"joex")


def test_long_names_are_no_accounts(home: Path) -> None:
    """Names of 32 bytes and more are not asked for; shorter beginnings of them are."""
    accounts = _Accounts()
    directory = Directory(account=accounts)
    directory.find(b"a" * 31)
    directory.find(b"a" * 32)
    directory.find(b"b" * 31 + b"-c")
    directory.find(b"d" * 32 + b"-c")
    assert [name for name in accounts.asked if name != b"alias"] == [b"a" * 31, b"b" * 31]


@pytest.mark.needs_root
def test_accounts_that_get_no_mail(home: Path) -> None:
    """Root, an account without a home, and one whose home is another's get none: their mail is the alias user's."""
    root = _account(home, b"toor", 0)
    homeless = Account(b"homeless", 1000, 7, b"/nonexistent", b"")
    foreign = _account(home, b"foreign", 1001)
    directory = Directory(account=_Accounts(root, homeless, foreign))
    for name in (b"toor", b"homeless", b"foreign"):
        assert directory.find(name) == _of_alias(home, name)


def test_a_home_that_nobody_can_tell_about(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home on a server that does not answer is a temporary failure: the mail is not the alias user's."""
    joe = _account(home, b"joe")

    def fail(path: object, **names: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    directory = Directory(account=_Accounts(joe))
    directory.find(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(users.os, "stat", fail)
        with pytest.raises(Temporary):
            directory.find(b"joe")
        with pytest.raises(users.HomeTrouble):
            users._owns(joe.home, joe.uid)


def test_the_accounts_cannot_be_asked(home: Path) -> None:
    """When the account database gives no answer, neither do we."""

    def account(name: bytes) -> Account | None:
        raise Temporary("cannot look up accounts now")

    with pytest.raises(Temporary):
        Directory(account=account).find(b"joe")


def test_the_alias_account(home: Path) -> None:
    """The account alias lends its home if it has the alias role's uid."""
    good = Account(b"alias", ALIAS_UID, 9, b"/var/alias", b"")
    assert Directory(account=_Accounts(good)).find(b"x").home == b"/var/alias"
    other = good._replace(uid=4242)
    assert Directory(account=_Accounts(other)).find(b"x") == _of_alias(home, b"x")


@pytest.mark.needs_root
def test_no_alias(home: Path) -> None:
    """Without an alias user the rest cannot be delivered now."""
    (home / "control" / "roles").write_text("")
    with pytest.raises(users.NoAlias, match="neither in control/roles nor an account"):
        Directory(account=_Accounts()).find(b"x")


def test_root_never(home: Path) -> None:
    """A cdb that another program made may name uid 0: that mail waits."""
    cdb.write("users/cdb", [(b"!root\0", b"root\x000\x000\0/root\0\0"), (b"", b"")])
    with pytest.raises(users.RootUser):
        Directory(account=_Accounts()).find(b"root")


@pytest.mark.parametrize("value", [b"", b"joe\0x\x001\0/h\0\0", b"joe\x001\x001\0/h"])
def test_a_broken_value(home: Path, value: bytes) -> None:
    """A value that makes no sense is trouble with users/cdb, and names it."""
    cdb.write("users/cdb", [(b"!joe\0", value), (b"", b"")])
    with pytest.raises(cdb.BadCdb, match="users/cdb"):
        Directory(account=_Accounts()).find(b"joe")


def test_a_cdb_of_something_else(home: Path) -> None:
    """A cdb without the wildcard characters is not believed, however often it is asked."""
    cdb.write("users/cdb", [(b"joe", b"x")])
    directory = Directory(account=_Accounts())
    for _ in range(2):
        with pytest.raises(cdb.BadCdb, match="not made by qm-newu"):
            directory.find(b"joe")


def test_a_broken_cdb(home: Path) -> None:
    """A broken users/cdb sends nobody's mail to the alias user; a good one ends the trouble."""
    (home / "users" / "cdb").write_bytes(b"broken")
    directory = Directory(account=_Accounts())
    for _ in range(2):
        with pytest.raises(cdb.BadCdb, match="users/cdb"):
            directory.find(b"joe")
    _assign(ASSIGN)
    assert directory.find(b"joe").user == b"joe"


def test_a_new_cdb_counts_at_once(home: Path) -> None:
    """What qm-newu has written is what the next question is answered from."""
    directory = Directory(account=_Accounts())
    assert directory.find(b"joe").user == b"alias"
    for number in range(1, 20):
        _assign(b"=joe:joe:%d:78:/home/joe:::\n.\n" % number)
        assert directory.find(b"joe").uid == number
    (home / "users" / "cdb").unlink()
    assert directory.find(b"joe").user == b"alias"


def test_accounts_are_believed_for_a_moment(home: Path) -> None:
    """Answers about accounts are kept for ACCOUNT_S and no longer; assigned users are kept."""
    _assign(ASSIGN)
    accounts, clock = _Accounts(), _Clock()
    directory = Directory(account=accounts, clock=clock)
    for _ in range(3):
        directory.find(b"who")
        directory.find(b"joe")
    assert accounts.asked == [b"who", b"alias"]
    clock.now_s += users.ACCOUNT_S
    directory.find(b"who")
    assert accounts.asked == [b"who", b"alias"] * 2
    directory.forget()
    directory.find(b"who")
    assert accounts.asked == [b"who", b"alias"] * 3


def test_memory_is_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger who asks for ever more names does not make us grow."""
    monkeypatch.setattr(users, "FOUND_MAX", 10)
    directory = Directory(account=_Accounts())
    for number in range(100):
        directory.find(b"x%d" % number)
        directory.find(b"x" * 900 + b"%d" % number)
    assert len(directory._found) <= 10
    assert all(len(local) <= 64 for local in directory._found)
