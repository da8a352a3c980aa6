"""Lines of control/logins that ask others: PAM, checkpassword programs, programs for tokens."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qm.disk import passwd
from qm.unix.userclient import UserClient
from qm.wire.userquery import AskLogin, Later, Login, LoginAnswer, Method, Refused
from tests.harness.barehome import MAILBOX, OWNER, ROLES, BareHome, bare_home, running

WRONG = Refused(b"wrong name or password")
CANNOT = Later(b"cannot check passwords now")
THERE = b"203.0.113.5"
_BIND = """for file in passwd shadow pam.d; do mount --bind "$1/$file" "/etc/$file" || exit 1; done; shift; exec "$@"
"""

# As DJB's: a name, a password and a timestamp on descriptor 3; then it is the user, and runs what follows.
_CHECKPASSWORD = r"""#!/usr/bin/perl
use POSIX ();
my ($name, $password, $rest) = do { open(my $in, "<&=", 3); local $/; split(/\0/, <$in>, 3) };
exit 111 if $name eq "later";
exit 1 if $password ne "geheim" and $password ne "a.signed.token";
exec("sleep", "1000") if $name eq "hang";
exec("yes") if $name eq "chatter";
if ($name eq "daemon") { if (fork()) { exit 0 } exec("sleep", "1000") }
exit 0 if $name eq "silent";
($ENV{USER}, $ENV{HOME}, $ENV{SHELL}) = ("virtual", "/home/virtual", "/bin/false");
$ENV{USER} = "ann" if $password eq "a.signed.token" and $name ne "bob";
if ($> == 0 and $name ne "root") { $( = $) = "%d %d"; POSIX::setuid(%d) }
exec @ARGV;
exit 111;
"""


@pytest.fixture(params=[None, pytest.param(OWNER, id="owner", marks=pytest.mark.needs_root)])
def home(request: pytest.FixtureRequest) -> Iterator[BareHome]:
    """A home with another's checkpassword, of whoever runs the tests and of a user without privileges."""
    with _home(request.param) as home:
        yield home


@pytest.fixture
def my_home() -> Iterator[BareHome]:
    """The same, of whoever runs the tests."""
    with _home(None) as home:
        yield home


@contextmanager
def _home(uid: int | None) -> Iterator[BareHome]:
    with bare_home(uid) as home:
        home.control("authfaildelay", "0\n")
        home.control("authcachetime", "0\n")
        home.control("timeoutlogin", "20\n")
        program = home.folder / "check"
        program.write_text(_CHECKPASSWORD.replace("%d", str(home.mailbox_uid)))
        program.chmod(0o755)
        yield home


def login(home: BareHome, name: bytes, secret: bytes, method: Method = Method.PASSWORD) -> LoginAnswer:
    with UserClient(str(home.folder / "users/socket"), 40.0) as ask:
        return ask.answer(AskLogin(method, name, secret, b"", THERE))


def virtual(home: BareHome, name: bytes) -> Login:
    uid = home.mailbox_uid
    return Login(b"virtual", uid, uid, b"/home/virtual", b"/bin/false", name)


# checkpassword programs


def test_a_program(home: BareHome) -> None:
    """Another's checkpassword lets in whom it likes, as the user that it becomes; after the lines before it."""
    home.control("logins", "passwd\nprogram ./check\n")
    passwd.put(b"ann", b"secret", Login(b"ann", 7, 7, b"/h", b"/s"), directory=str(home.folder / "users"))
    home.own()
    with running(home, "qm-userd") as daemon:
        assert login(home, b"Bob", b"geheim") == virtual(home, b"bob")
        assert login(home, b"bob", b"falsch") == WRONG
        assert login(home, b"ann", b"secret") == Login(b"ann", 7, 7, b"/h", b"/s", b"ann")
        assert login(home, b"ann", b"geheim") == virtual(home, b"ann"), "who has two passwords may use both"
        assert login(home, b"bob", b"x" * 511) == WRONG
        assert login(home, b"bob", b"x" * 20_000) == WRONG
        assert "geheim" not in daemon.log()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"later", "./check ended with 111"),
        (b"silent", "./check ended with 0"),
        (b"chatter", "./check has not ended in time"),
    ],
)
def test_a_program_in_trouble(home: BareHome, name: bytes, said: str) -> None:
    """What is neither yes nor exit 1 is later, with a line in the log; and the next login is answered."""
    home.control("logins", "program ./check\n")
    with running(home, "qm-userd") as daemon:
        assert login(home, name, b"geheim") == CANNOT
        daemon.wait_for_log(said)
        assert login(home, b"bob", b"geheim") == virtual(home, b"bob")


@pytest.mark.parametrize("name", [b"hang", b"daemon"])
def test_a_program_that_hangs(home: BareHome, name: bytes) -> None:
    """One that does not end in control/timeoutlogin is killed, with all that it has started."""
    home.control("logins", "program ./check\n")
    home.control("timeoutlogin", "1\n")
    with running(home, "qm-userd") as daemon:
        assert login(home, name, b"geheim") == CANNOT
        daemon.wait_for_log("./check has not ended in time")


@pytest.mark.needs_root
def test_a_program_that_stays_root(my_home: BareHome) -> None:
    """Nobody logs in as root, whatever a program says."""
    home = my_home
    home.control("logins", "program ./check\n")
    with running(home, "qm-userd") as daemon:
        assert login(home, b"root", b"geheim") == CANNOT
        daemon.wait_for_log("has stayed root")


def test_a_program_that_is_missing(home: BareHome) -> None:
    """A program that cannot be run is later."""
    home.control("logins", "program ./none\n")
    with running(home, "qm-userd") as daemon:
        assert login(home, b"bob", b"geheim") == CANNOT
        daemon.wait_for_log("./none ended with 100")


def test_what_a_program_inherits(home: BareHome) -> None:
    """Its descriptors are 0 to 3, its environment says where the peer is and nothing of ours."""
    (home.folder / "check").write_text(
        '#!/bin/sh\nls -l /proc/self/fd > seen; env | sort >> seen; tr "\\0" "|" <&3 >> seen; exit 1\n'
    )
    home.own()
    (home.folder / "seen").touch()
    home.control("logins", "program ./check one two\n")
    home.own()
    with running(home, "qm-userd"):
        assert login(home, b"bob", b"geheim") == WRONG
    seen = (home.folder / "seen").read_text()
    assert seen.endswith("bob|geheim||PASS|")
    assert f"TCPREMOTEIP={THERE.decode()}\n" in seen
    assert "QMREADY" not in seen
    descriptors = [line.split(" -> ")[0].rpartition(" ")[2] for line in seen.splitlines() if " -> " in line]
    assert set(descriptors) <= {"0", "1", "2", "3", "4"}  # 4 is ls's own
    assert "socket:" not in "".join(line for line in seen.splitlines() if " 4 -> " in line)


# tokens


def test_tokens(home: BareHome) -> None:
    """A program for tokens says whose a token is; who that is here, users/passwd says.  Passwords never get to it."""
    home.control("logins", "passwd\noauthbearer ./check\n")
    uid = home.mailbox_uid
    passwd.put(b"ann", b"secret", Login(b"ann", uid, uid, b"/h", b"/s"), directory=str(home.folder / "users"))
    home.own()
    with running(home, "qm-userd"), UserClient(str(home.folder / "users/socket")) as ask:
        assert b"OAUTHBEARER" in ask.mechanisms()
        assert login(home, b"", b"a.signed.token", Method.OAUTHBEARER) == Login(b"ann", uid, uid, b"/h", b"/s", b"ann")
        assert isinstance(login(home, b"Ann", b"a.signed.token", Method.OAUTHBEARER), Login)
        assert login(home, b"zed", b"a.signed.token", Method.OAUTHBEARER) == WRONG, "who names himself has his own"
        assert login(home, b"", b"another", Method.OAUTHBEARER) == WRONG
        assert login(home, b"bob", b"a.signed.token", Method.OAUTHBEARER) == WRONG, "virtual is nobody here"
        assert login(home, b"bob", b"geheim") == WRONG


@pytest.mark.needs_root
def test_tokens_are_looked_at_by_nobody(my_home: BareHome) -> None:
    """A program for tokens is qmailp, with no way back: it reads what strangers write."""
    home = my_home
    (home.folder / "seen").write_text("")
    os.chown(home.folder / "seen", ROLES["qmailp"], 0)
    (home.folder / "check").write_text("#!/bin/sh\nexec grep -E 'Uid|Groups|NoNewPrivs' /proc/self/status > seen\n")
    home.control("logins", "oauthbearer ./check\n")
    with running(home, "qm-userd"):
        assert login(home, b"", b"token", Method.OAUTHBEARER) == CANNOT
    lines = (line.partition(":") for line in (home.folder / "seen").read_text().splitlines())
    seen = {key: value.split() for key, _, value in lines}
    assert seen == {"Uid": [str(ROLES["qmailp"])] * 4, "Groups": ["64000"], "NoNewPrivs": ["1"]}


# PAM


class Machine:
    """Files that a userd sees in the place of this machine's: accounts zed and old, and /etc/pam.d/qm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pam = folder / "pam.d"
        self.pam.mkdir(parents=True)
        openssl = subprocess.run(["openssl", "passwd", "-6", "geheim"], capture_output=True, check=True)
        hashed = openssl.stdout.decode().strip()
        lines = f"zed:x:{MAILBOX}:{MAILBOX}::{folder}:/bin/zsh\nold:x:64197:64198::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n"
        (folder / "passwd").write_text(Path("/etc/passwd").read_text() + lines)
        ends = {"zed": "", "old": "1", "toor": ""}
        shadow = "".join(f"{name}:{hashed}:19000:0:99999:7::{end}:\n" for name, end in ends.items())
        (folder / "shadow").write_text(Path("/etc/shadow").read_text() + shadow)
        (self.pam / "other").write_text("auth required pam_deny.so\naccount required pam_deny.so\n")
        self.service("auth required pam_unix.so", "account required pam_unix.so")

    def service(self, *lines: str) -> None:
        (self.pam / "qm").write_text("".join(f"{line}\n" for line in lines))

    @property
    def command(self) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _BIND, "sh", str(self.folder)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "etc")
    if subprocess.run([*machine.command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")
    return machine


@pytest.fixture
def roots_home() -> Iterator[BareHome]:
    with bare_home(None) as home:
        home.control("authfaildelay", "0\n")
        home.control("logins", "pam\n")
        yield home


@pytest.mark.needs_root
@pytest.mark.needs("unshare", "openssl")
def test_pam(roots_home: BareHome, machine: Machine) -> None:
    """Who PAM's service qm lets in logs in as that account; an expired one, root and nobody do not."""
    with running(roots_home, "qm-userd", prefix=machine.command) as daemon:
        zed = Login(b"zed", MAILBOX, MAILBOX, os.fsencode(machine.folder), b"/bin/zsh", b"zed")
        assert login(roots_home, b"zed", b"geheim") == zed
        for secret in (b"falsch", b"", b"geheim "):
            assert login(roots_home, b"zed", secret) == WRONG
        for name in (b"old", b"toor", b"who", b"root", b"zed:", b"../zed"):
            assert login(roots_home, name, b"geheim") == WRONG, name
        assert login(roots_home, b"zed", b"x" * 20_000) == WRONG
        assert login(roots_home, b"zed", b"geheim") == zed
        assert "geheim" not in daemon.log()


@pytest.mark.needs_root
@pytest.mark.needs("unshare", "openssl")
def test_pam_knows_where_the_peer_is(roots_home: BareHome, machine: Machine) -> None:
    """Modules see the client's address, which those that count failures need, and the password."""
    script = f'#!/bin/sh\nexec > {machine.folder}/seen\necho "$PAM_SERVICE $PAM_USER $PAM_RHOST"\ncat\n'
    (machine.folder / "look").write_text(script)
    (machine.folder / "look").chmod(0o755)
    machine.service(f"auth required pam_exec.so expose_authtok {machine.folder}/look", "account required pam_permit.so")
    with running(roots_home, "qm-userd", prefix=machine.command):
        assert isinstance(login(roots_home, b"zed", b"one time only"), Login)
    assert (machine.folder / "seen").read_bytes().rstrip(b"\0") == b"qm zed 203.0.113.5\none time only"


@pytest.mark.needs_root
@pytest.mark.needs("unshare", "openssl")
def test_pam_is_asked_each_time(roots_home: BareHome, machine: Machine) -> None:
    """What PAM has let in is not remembered: it may be a password for once."""
    with running(roots_home, "qm-userd", prefix=machine.command):
        assert isinstance(login(roots_home, b"zed", b"geheim"), Login)
        machine.service("auth required pam_deny.so", "account required pam_permit.so")
        assert login(roots_home, b"zed", b"geheim") == WRONG


@pytest.mark.needs_root
@pytest.mark.needs("unshare", "openssl")
def test_pam_in_trouble(roots_home: BareHome, machine: Machine) -> None:
    """A module that hangs is later after control/timeoutlogin; without a service file PAM's `other` refuses."""
    roots_home.control("timeoutlogin", "1\n")
    machine.service("auth required pam_exec.so /bin/sleep 1000", "account required pam_permit.so")
    with running(roots_home, "qm-userd", prefix=machine.command) as daemon:
        assert login(roots_home, b"zed", b"geheim") == CANNOT
        daemon.wait_for_log("pam: a worker failed, or took too long")
        (machine.pam / "qm").unlink()
        assert login(roots_home, b"zed", b"geheim") == WRONG
