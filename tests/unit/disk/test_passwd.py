"""users/passwd and users/passwd.cdb: edited under a lock, read while that happens."""

import os
import stat
from pathlib import Path

import pytest

from qm.disk import atomic, cdb, hashes, passwd
from qm.disk.passwd import Passwords, compile_text, delete, login_of, put
from qm.errors import Permanent, Temporary
from qm.wire.userquery import Login

ANN = Login(b"ann", 1001, 1002, b"home/ann", b"/bin/sh")
KEPT = b"# our users\n\nbob:$6$salt$hashhash:bob:7:7:/home/bob:/bin/sh\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an empty users/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users").mkdir()
    monkeypatch.setattr(hashes, "TIME_COST", 1)
    monkeypatch.setattr(hashes, "MEMORY_KIB", 8)
    return tmp_path


def _matches(name: bytes, secret: bytes) -> bool:
    entry = Passwords().lookup(name)
    return entry is not None and hashes.check(entry.secrets.hash, secret)


def test_a_new_user(home: Path) -> None:
    """When put returns, a reader finds the user, by the name in any case, at home below our home."""
    put(b"Ann@Ex.Example", b"secret", ANN)
    entry = Passwords().lookup(b"ann@ex.EXAMPLE")
    assert entry is not None
    assert entry.login == ANN._replace(home=os.fsencode(home / "home/ann"))
    assert _matches(b"ann@ex.example", b"secret")
    assert not _matches(b"ann@ex.example", b"Secret")
    assert Passwords().lookup(b"bob") is None


def test_files_are_private(home: Path) -> None:
    """Text and cdb are their owner's alone, whatever they were before, and nothing else is left in users/."""
    (home / "users" / "passwd").write_bytes(KEPT)
    (home / "users" / "passwd").chmod(0o644)
    put(b"ann", b"secret", ANN)
    for name in ("passwd", "passwd.cdb", "lock", "salt"):
        assert stat.S_IMODE((home / "users" / name).stat().st_mode) == 0o600
    assert sorted(os.listdir("users")) == ["lock", "passwd", "passwd.cdb", "salt"]


def test_a_new_password_keeps_the_rest(home: Path) -> None:
    """A new password changes one line: comments, other users and who the user is stay."""
    (home / "users" / "passwd").write_bytes(KEPT)
    put(b"ann", b"old", ANN)
    put(b"ann", b"new")
    assert _matches(b"ann", b"new")
    assert not _matches(b"ann", b"old")
    text = (home / "users" / "passwd").read_bytes()
    assert text.startswith(KEPT)
    assert text.count(b"\n") == 4
    assert login_of(b"ANN") == ANN
    assert Passwords().lookup(b"bob") is not None


def test_a_file_without_its_last_line_end(home: Path) -> None:
    """A last line that an editor left open is a line."""
    (home / "users" / "passwd").write_bytes(KEPT.rstrip(b"\n"))
    put(b"ann", b"x", ANN)
    assert {name for name in (b"ann", b"bob") if Passwords().lookup(name)} == {b"ann", b"bob"}


def test_delete(home: Path) -> None:
    """A deleted user is gone from text and cdb; one that is not there is an error."""
    (home / "users" / "passwd").write_bytes(KEPT)
    put(b"ann", b"secret", ANN)
    delete(b"Ann")
    assert Passwords().lookup(b"ann") is None
    assert (home / "users" / "passwd").read_bytes() == KEPT
    with pytest.raises(Permanent, match="no such user"):
        delete(b"ann")


def test_apop(home: Path) -> None:
    """For APOP the password is stored as it is, with its colons and backslashes."""
    put(b"ann", b"a:b\\c", ANN, apop=True)
    entry = Passwords().lookup(b"ann")
    assert entry is not None
    assert entry.secrets.hash == b"{PLAIN}a:b\\c"
    assert b" {PLAIN}a\\:b\\\\c:" in (home / "users" / "passwd").read_bytes()


@pytest.mark.parametrize("secret", [b"", b"a\0b", b"a\nb", b"a\rb", b"x" * 512])
def test_what_is_no_password(home: Path, secret: bytes) -> None:
    """A password that could not be typed in POP3 is refused, and nothing is written."""
    with pytest.raises(Permanent, match="not a password"):
        put(b"ann", secret, ANN)
    assert os.listdir("users") == []


@pytest.mark.parametrize(
    ("name", "login"),
    [
        (b"", ANN),
        (b"a b", ANN),
        (b"#ann", ANN),
        (b"ann", None),
        (b"ann", ANN._replace(uid=0)),
        (b"ann", ANN._replace(uid=2**32 - 1)),
        (b"ann", ANN._replace(home=b"")),
        (b"ann", ANN._replace(user=b"")),
        (b"ann", ANN._replace(home=b"/a\0b")),
    ],
)
def test_what_is_no_user(home: Path, name: bytes, login: Login | None) -> None:
    """A name or a login that could not be read back is refused, and nothing is written."""
    with pytest.raises(Permanent):
        put(name, b"secret", login)
    assert set(os.listdir("users")) <= {"lock", "salt"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"# x\nann:h\n", "users/passwd:2: not name:hash"),
        (b"ann:plaintext:ann:1:1:/h:s\n", "users/passwd:1: a hash of no kind"),
        (b"ann:$6$x$y:ann:0:1:/h:s\n", "users/passwd:1: uid 0"),
        (KEPT + KEPT, "users/passwd:6: the name of line 3 again"),
    ],
)
def test_a_broken_line(home: Path, text: bytes, where: str) -> None:
    """A line that somebody broke by hand is named; nothing is changed until it is mended, and the old cdb stays."""
    put(b"bob", b"secret", ANN)
    (home / "users" / "passwd").write_bytes(text)
    for action in (lambda: put(b"x", b"secret", ANN), lambda: delete(b"x"), compile_text, lambda: login_of(b"x")):
        with pytest.raises(Temporary) as caught:
            action()
        assert where in str(caught.value)
    assert (home / "users" / "passwd").read_bytes() == text
    assert _matches(b"bob", b"secret")


def test_compile_after_an_editor(home: Path) -> None:
    """What was edited by hand counts after compile."""
    (home / "users" / "passwd").write_bytes(KEPT)
    assert Passwords().lookup(b"bob") is None
    compile_text()
    assert Passwords().lookup(b"bob") is not None


@pytest.mark.parametrize("cut", range(2 * len(atomic.STEPS)))
def test_cut_anywhere(home: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """After a crash at any step both files are whole; the text is old or new, and doing it again mends all."""
    put(b"ann", b"old", ANN)
    steps = iter(range(2 * len(atomic.STEPS)))

    class Crash(BaseException):
        pass

    def counted(step: object) -> object:
        def run(work: object) -> None:
            if next(steps) == cut:
                raise Crash
            step(work)  # type: ignore[operator]

        return run

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "STEPS", tuple(map(counted, atomic.STEPS)))
        patch.setattr(atomic, "_discard", lambda work: None)
        with pytest.raises(Crash):
            put(b"ann", b"new")
    assert login_of(b"ann") == ANN
    assert _matches(b"ann", b"old") != _matches(b"ann", b"new")
    put(b"ann", b"new")
    assert _matches(b"ann", b"new")
    assert sorted(os.listdir("users")) == ["lock", "passwd", "passwd.cdb", "salt"]


def test_a_reader_sees_changes(home: Path) -> None:
    """A reader that stays finds what was written since."""
    passwords = Passwords()
    assert passwords.lookup(b"ann") is None
    put(b"ann", b"1", ANN)
    first = passwords.lookup(b"ann")
    put(b"ann", b"2")
    second = passwords.lookup(b"ann")
    assert first is not None
    assert second is not None
    assert first.secrets.hash != second.secrets.hash


def test_a_broken_cdb(home: Path) -> None:
    """A broken passwd.cdb is a temporary failure that names it: not a wrong password."""
    (home / "users" / "passwd.cdb").write_bytes(b"broken")
    with pytest.raises(cdb.BadCdb, match=r"users/passwd\.cdb"):
        Passwords().lookup(b"ann")
    cdb.write("users/passwd.cdb", [(b"ann", b"$6$x$y\0ann\x000\x001\0/h\0s")])
    with pytest.raises(cdb.BadCdb, match=r"users/passwd\.cdb: a value has uid 0"):
        Passwords().lookup(b"ann")


def test_unreadable(home: Path) -> None:
    """A text that cannot be read is a temporary failure that names it."""
    (home / "users" / "passwd").mkdir()
    with pytest.raises(Temporary, match="users/passwd: Is a directory"):
        put(b"ann", b"x", ANN)
    with pytest.raises(Temporary, match="none/lock"):
        passwd.put(b"ann", b"x", ANN, directory="none")
