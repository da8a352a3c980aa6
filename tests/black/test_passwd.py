"""qm-passwd: users/passwd and users/passwd.cdb."""

import os
import pty
import select
import subprocess
from collections.abc import Iterator

import pytest

from qm.disk import hashes
from qm.wire import scram
from qm.wire.passwdfile import Entry, parse
from qm.wire.storedsecret import is_app_secret
from qm.wire.userquery import Login
from tests.harness.barehome import OWNER, BareHome, bare_home

WAIT_S = 20.0


@pytest.fixture(params=[None, pytest.param(OWNER, id="owner", marks=pytest.mark.needs_root)])
def home(request: pytest.FixtureRequest) -> Iterator[BareHome]:
    """A home of whoever runs the tests, and one of a user without privileges; users/assign is compiled."""
    with bare_home(request.param) as home:
        assert home.run("qm-newu").returncode == 0
        yield home


def qm_passwd(home: BareHome, *arguments: str, secret: bytes = b"secret\n") -> subprocess.CompletedProcess[bytes]:
    return home.run("qm-passwd", *arguments, input=secret)


def entry(home: BareHome, name: bytes) -> Entry | None:
    found = parse((home.folder / "users/passwd").read_bytes()).get(name)
    return found[1] if found else None


def login(home: BareHome) -> Login:
    uid = home.mailbox_uid
    return Login(b"ann", uid, uid, os.fsencode(home.folder / "home/ann"), b"/bin/sh")


def test_a_mailbox_gets_a_password(home: BareHome) -> None:
    """Who has a mailbox in users/assign needs no more than a password."""
    result = qm_passwd(home, "--stdin", "ann")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    found = entry(home, b"ann")
    assert found is not None
    assert found.login == login(home)
    assert hashes.check(found.secrets.hash, b"secret")
    assert b"secret" not in (home.folder / "users/passwd").read_bytes()
    status = (home.folder / "users/passwd").stat()
    assert home.uid in (None, status.st_uid)


def test_an_address_gets_a_password(home: BareHome) -> None:
    """NAME may be an address: its mailbox is the one that mail for it goes to, virtual domains included."""
    home.control("virtualdomains", "ann@v.example:ann\nw.example:ann\n")
    home.assign("ann", "ann-Ann@w.example".partition("@")[0].lower())
    assert home.run("qm-newu").returncode == 0
    assert qm_passwd(home, "--stdin", "Ann@me.example").returncode == 0
    found = entry(home, b"ann@me.example")
    assert found is not None
    assert found.login == login(home)
    assert qm_passwd(home, "--stdin", "Ann@w.example").returncode == 0
    found = entry(home, b"ann@w.example")
    assert found is not None
    assert found.login.user == b"ann-ann"


@pytest.mark.parametrize("name", ["nobody", "ann-list", "ann@elsewhere.example"])
def test_who_has_no_mailbox_needs_more(home: BareHome, name: str) -> None:
    """A name that is nobody's mailbox, an extension or remote needs --home, --uid and --gid."""
    result = qm_passwd(home, "--stdin", name)
    assert result.returncode == 100
    assert b"needs --home, --uid and --gid" in result.stderr
    uid = str(home.mailbox_uid)
    assert qm_passwd(home, "--stdin", "--home", "mail/x", "--uid", uid, "--gid", uid, name).returncode == 0
    found = entry(home, name.encode())
    assert found is not None
    assert found.login == Login(name.encode(), int(uid), int(uid), b"mail/x", b"/bin/sh")


def test_in_a_private_system_there_is_one_uid(home: BareHome) -> None:
    """Without root a new user needs a home only."""
    result = qm_passwd(home, "--stdin", "--home", "/mail/x", "x")
    if home.uid is None and os.geteuid() == 0:
        assert result.returncode == 100
        return
    assert result.returncode == 0
    found = entry(home, b"x")
    assert found is not None
    assert (found.login.uid, found.login.gid) == (home.mailbox_uid, home.mailbox_uid)


def test_a_new_password(home: BareHome) -> None:
    """A second password takes the place of the first, and keeps who the user is; options change that."""
    uid = str(home.mailbox_uid)
    assert qm_passwd(home, "--stdin", "--home", "/1", "--uid", uid, "--gid", uid, "x").returncode == 0
    assert qm_passwd(home, "--stdin", "x", secret=b"new").returncode == 0
    found = entry(home, b"x")
    assert found is not None
    assert found.login.home == b"/1"
    assert hashes.check(found.secrets.hash, b"new")
    assert qm_passwd(home, "--stdin", "--home", "/2", "x").returncode == 0
    found = entry(home, b"x")
    assert found is not None
    assert (found.login.home, found.login.uid) == (b"/2", int(uid))


def test_delete(home: BareHome) -> None:
    """--delete takes a name out; one that is not there is exit 100."""
    assert qm_passwd(home, "--stdin", "ann").returncode == 0
    assert qm_passwd(home, "--delete", "ANN", secret=b"").returncode == 0
    assert entry(home, b"ann") is None
    result = qm_passwd(home, "--delete", "ann", secret=b"")
    assert result.returncode == 100
    assert b"no such user" in result.stderr


def test_apop(home: BareHome) -> None:
    """--apop stores the password as it is, with blanks and colons."""
    assert qm_passwd(home, "--apop", "--stdin", "ann", secret=b" a:b \r\n").returncode == 0
    found = entry(home, b"ann")
    assert found is not None
    assert found.secrets.hash == b"{PLAIN} a:b "


def test_compile(home: BareHome) -> None:
    """--compile takes up what was edited by hand, or names the line that is wrong, and the old cdb stays."""
    path = home.folder / "users/passwd"
    path.write_bytes(b"ann:$6$salt$hash:ann:7:7:/h:/s\n")
    home.own()
    assert qm_passwd(home, "--compile").returncode == 0
    before = (home.folder / "users/passwd.cdb").read_bytes()
    path.write_bytes(b"ann:$6$salt$hash:ann:7:7:/h:/s\nbob:clear\n")
    result = qm_passwd(home, "--compile")
    assert result.returncode == 111
    assert b"users/passwd:2: not name:hash:user:uid:gid:home:shell" in result.stderr
    assert (home.folder / "users/passwd.cdb").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "b"],
        ["--stdin"],
        ["--compile", "ann"],
        ["--app", "phone", "--apop", "ann"],
        ["--app", "phone", "--stdin", "ann"],
        ["--certificate", "--stdin", "ann"],
        ["--list"],
        ["--list", "--stdin", "ann"],
        ["--revoke", "ann"],
        ["--revoke", "phone", "--app", "x", "ann"],
        ["--delete"],
        ["--delete", "--stdin", "ann"],
        ["--secret", "ann"],
        ["--uid", "0", "ann"],
        ["--uid", "x", "ann"],
        ["--uid", "9" * 5000, "ann"],
        ["--stdin", "a b"],
        ["--stdin", ""],
    ],
)
def test_usage(home: BareHome, arguments: list[str]) -> None:
    """A command line that makes no sense is exit 100, and nothing is written."""
    assert qm_passwd(home, *arguments).returncode == 100
    assert not (home.folder / "users/passwd").exists()


@pytest.mark.parametrize("secret", [b"", b"\n", b"x" * 512 + b"\n", b"x" * 100_000, b"a\0b\n"])
def test_what_is_no_password(home: BareHome, secret: bytes) -> None:
    """An empty password, one that is too long and one with a NUL are exit 100, and nothing is written."""
    result = qm_passwd(home, "--stdin", "ann", secret=secret)
    assert result.returncode == 100
    assert b"not a password" in result.stderr
    assert not (home.folder / "users/passwd").exists()


def test_trouble(home: BareHome) -> None:
    """A broken control file and a missing users/ are exit 111, with the file's name."""
    home.control("virtualdomains", "broken\n")
    result = qm_passwd(home, "--stdin", "ann")
    assert result.returncode == 111
    assert b"control/virtualdomains:1: no colon" in result.stderr
    (home.folder / "users").rename(home.folder / "users.away")
    result = qm_passwd(home, "--delete", "ann")
    assert result.returncode == 111
    assert b"users/lock" in result.stderr


# the terminal


def type_at(home: BareHome, *lines: bytes) -> tuple[int, bytes]:
    """Run qm-passwd ann at a terminal, and type one line at each prompt; its exit code, and what it showed."""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *home.command(["qm-passwd", "ann"])], cwd=home.folder, env=home.environment(),
        stdin=theirs, stdout=theirs, stderr=theirs, user=home.uid, group=home.uid,
        extra_groups=None if home.uid is None else [],
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    for line in lines:
        shown += _read_until(terminal, b": ")
        os.write(terminal, line + b"\n")
    shown += _read_until(terminal, None)
    os.close(terminal)
    return process.wait(WAIT_S), shown


def _read_until(terminal: int, end: bytes | None) -> bytes:
    shown = b""
    while end is None or not shown.endswith(end):
        assert select.select([terminal], [], [], WAIT_S)[0], shown
        try:
            piece = os.read(terminal, 1000)
        except OSError:
            piece = b""  # the terminal's way to say that nobody has it open any more
        if not piece:
            break
        shown += piece
    return shown


def test_typed_twice(home: BareHome) -> None:
    """At a terminal the password is asked for twice, and not shown."""
    code, shown = type_at(home, b"ge:heim", b"ge:heim")
    assert code == 0, shown
    assert b"heim" not in shown
    found = entry(home, b"ann")
    assert found is not None
    assert hashes.check(found.secrets.hash, b"ge:heim")


def test_typed_differently(home: BareHome) -> None:
    """Two different passwords change nothing."""
    code, shown = type_at(home, b"one", b"two")
    assert code == 100
    assert b"the passwords differ" in shown
    assert not (home.folder / "users/passwd").exists()


def test_no_terminal(home: BareHome) -> None:
    """Without a terminal, and without --stdin, nothing is read from descriptor 0."""
    result = qm_passwd(home, "ann")
    assert result.returncode == 100
    assert b"use --stdin" in result.stderr
    assert not (home.folder / "users/passwd").exists()


# what else there is to log in with


def test_an_app_password(home: BareHome) -> None:
    """--app shows a random password once, keeps the other one, and --revoke takes it back; --list shows no secret."""
    assert qm_passwd(home, "--stdin", "ann").returncode == 0
    result = qm_passwd(home, "--app", "phone", "ann", secret=b"")
    assert (result.returncode, result.stderr) == (0, b"")
    secret = result.stdout.removesuffix(b"\n")
    assert is_app_secret(secret)
    found = entry(home, b"ann")
    assert found is not None
    assert hashes.check(found.secrets.hash, b"secret")
    ((label, verifier),) = found.secrets.apps
    assert label == b"phone"
    assert scram.verifier(secret, verifier.salt, verifier.iterations) == verifier
    assert secret not in (home.folder / "users/passwd").read_bytes()
    listed = qm_passwd(home, "--list", "ann", secret=b"")
    assert listed.stdout == b"password argon2id, SCRAM-SHA-256\napp phone\n"
    assert qm_passwd(home, "--stdin", "ann", secret=b"new").returncode == 0
    found = entry(home, b"ann")
    assert found is not None
    assert found.secrets.apps == ((label, verifier),), "a new password leaves it alone"
    assert qm_passwd(home, "--revoke", "phone", "ann", secret=b"").returncode == 0
    found = entry(home, b"ann")
    assert found is not None
    assert found.secrets.apps == ()


def test_app_passwords_that_cannot_be(home: BareHome) -> None:
    """A label twice, no label, one that is not there, a seventeenth, and the last secret of a name: exit 100."""
    for number in range(16):
        assert qm_passwd(home, "--app", f"app{number}", "ann", secret=b"").returncode == 0
    before = (home.folder / "users/passwd").read_bytes()
    for arguments in (["--app", "app1"], ["--app", "a b"], ["--app", "a,b"], ["--app", "app16"], ["--revoke", "none"]):
        result = qm_passwd(home, *arguments, "ann", secret=b"")
        assert (result.returncode, result.stdout) == (100, b""), arguments
    assert qm_passwd(home, "--revoke", "phone", "nobody", secret=b"").returncode == 100
    assert qm_passwd(home, "--list", "nobody", secret=b"").returncode == 100
    assert (home.folder / "users/passwd").read_bytes() == before


def test_a_certificate(home: BareHome) -> None:
    """--certificate lets a certificate in the user's name log in, and gives no password."""
    assert qm_passwd(home, "--certificate", "ann", secret=b"").returncode == 0
    assert qm_passwd(home, "--list", "ann", secret=b"").stdout == b"certificate\n"
    found = entry(home, b"ann")
    assert found is not None
    assert found.login == login(home)
    assert (found.secrets.external, found.secrets.hash, found.secrets.verifiers) == (True, b"", ())


def test_salts_tell_nothing(home: BareHome) -> None:
    """A name's salt is the same before it has a password, with it, and with another: only users/salt makes it."""
    assert qm_passwd(home, "--stdin", "ann").returncode == 0
    first = entry(home, b"ann")
    assert qm_passwd(home, "--delete", "ann", secret=b"").returncode == 0
    assert qm_passwd(home, "--stdin", "ann", secret=b"new").returncode == 0
    second = entry(home, b"ann")
    assert first is not None
    assert second is not None
    assert first.secrets.scram is not None
    assert second.secrets.scram is not None
    assert first.secrets.scram.salt == second.secrets.scram.salt
    assert first.secrets.scram.stored_key != second.secrets.scram.stored_key
    assert (home.folder / "users/salt").stat().st_mode & 0o777 == 0o600


def test_a_password_that_is_no_text(home: BareHome) -> None:
    """A password that is no UTF-8 is stored as a hash alone; no client could prove it by SCRAM."""
    assert qm_passwd(home, "--stdin", "ann", secret=b"gr\xfcn\n").returncode == 0
    found = entry(home, b"ann")
    assert found is not None
    assert hashes.check(found.secrets.hash, b"gr\xfcn")
    assert found.secrets.scram is None
