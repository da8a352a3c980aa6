"""userd and its client: who has a mailbox, who may log in (docs/INTERNALS.md 1.7)."""

import fcntl
import os
import signal
import socket
import stat
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import md5
from pathlib import Path

import pytest

from qm.disk import passwd
from qm.errors import Temporary
from qm.unix.userclient import (
    AskLogin,
    Exists,
    Later,
    Login,
    LoginAnswer,
    Method,
    Refused,
    UserClient,
    Verdict,
)
from qm.wire.record import RECORD_MAX
from tests.harness.barehome import OWNER, ROLES, BareHome, Daemon, bare_home, running, stopped
from tests.harness.waiting import wait_for

WRONG = Refused(b"wrong name or password")
NO = Exists(Verdict.NO, b"no mailbox here by that name")
YES = Exists(Verdict.YES, b"")
AS_OWNER = pytest.param(OWNER, id="owner", marks=pytest.mark.needs_root)
CANNOT_CHECK = Later(b"cannot check passwords now")


@pytest.fixture(params=[None, AS_OWNER])
def home(request: pytest.FixtureRequest) -> Iterator[BareHome]:
    """A home of whoever runs the tests, and one of a user without privileges."""
    with _home(request.param) as home:
        yield home


@pytest.fixture
def my_home() -> Iterator[BareHome]:
    """A home of whoever runs the tests."""
    with _home(None) as home:
        yield home


@pytest.fixture
def owners_home() -> Iterator[BareHome]:
    """A home of a user without privileges."""
    with _home(OWNER) as home:
        yield home


@contextmanager
def _home(uid: int | None) -> Iterator[BareHome]:
    with bare_home(uid) as home:
        assert home.run("qm-newu").returncode == 0
        home.control("authfaildelay", "0\n")
        put(home, b"ann", b"secret")
        yield home


def put(home: BareHome, name: bytes, secret: bytes, **options: bool) -> None:
    login = Login(b"ann", home.mailbox_uid, home.mailbox_uid, b"home/ann", b"/bin/sh")
    passwd.put(name, secret, login, directory=str(home.folder / "users"), **options)


def ann(home: BareHome, name: bytes = b"ann") -> Login:
    return Login(b"ann", home.mailbox_uid, home.mailbox_uid, os.fsencode(home.folder / "home/ann"), b"/bin/sh", name)


class Asking(UserClient):
    def login(self, name: bytes, secret: bytes, banner: bytes = b"") -> LoginAnswer:
        """A password, or the answer to an APOP banner, of somebody on this machine."""
        method = Method.APOP if banner else Method.PASSWORD
        return self.answer(AskLogin(method, name, secret, banner, b"127.0.0.1"))


def client(home: BareHome, timeout_s: float = 20.0) -> Asking:
    return Asking(str(home.folder / "users" / "socket"), timeout_s)


@pytest.fixture
def one_worker(home: BareHome) -> None:
    """Passwords are checked one at a time, so that a worker that is held still holds up all checks."""
    home.control("concurrencylogin", "1\n")


@pytest.fixture
def daemon(home: BareHome) -> Iterator[Daemon]:
    with running(home, "qm-userd") as daemon:
        yield daemon


@pytest.fixture
def ask(home: BareHome, daemon: Daemon) -> Iterator[Asking]:
    with client(home) as ask:
        yield ask


def hang_up(daemon: Daemon, ask: Asking) -> None:
    """SIGHUP, which its loop has seen at the latest in the turn of the second question after it."""
    daemon.process.send_signal(signal.SIGHUP)
    ask.exists(b"")
    ask.exists(b"")


def _unread_bytes(channel: socket.socket) -> int:
    """How much of what was sent the other end has not taken."""
    return int(struct.unpack("i", fcntl.ioctl(channel, termios.TIOCOUTQ, b"\0" * 4))[0])


# exists


def test_exists(home: BareHome, ask: Asking) -> None:
    """A user has a mailbox; an extension and an alias have one if a .qmail file says so; a remote address may."""
    (home.folder / "home/ann/.qmail-list").touch()
    (home.folder / "home/ann/.qmail-lists-default").touch()
    (home.folder / "alias/.qmail-postmaster").touch()
    (home.folder / "alias/.qmail-a:b").touch()
    assert {address: ask.exists(address) for address in _EXISTS} == _EXISTS


_EXISTS = {
    b"ann@me.example": YES,
    b"ANN@ME.Example": YES,
    b"ann": YES,
    b"ann-list@me.example": YES,
    b"ann-LIST@me.example": YES,
    b"ann-lists-x@me.example": YES,
    b"ann-lists@me.example": NO,
    b"ann-other@me.example": NO,
    b"ann-@me.example": NO,
    b"postmaster@me.example": YES,
    b"A.B@me.example": YES,
    b"nobody-here@me.example": NO,
    b"@me.example": NO,
    b"x@elsewhere.example": YES,
    b"": NO,
    b"a\0b@me.example": NO,
    b"x" * 5000 + b"@me.example": NO,
    b"../../../etc/passwd@me.example": NO,
    b"ann-/../list@me.example": NO,
    b"\xff\xfe\n\r@me.example": NO,
}


def test_what_is_no_file_is_no_mailbox(home: BareHome, ask: Asking) -> None:
    """A pipe and a directory are no .qmail files, and hold nobody up."""
    folder = home.folder / "home/ann"
    os.mkfifo(folder / ".qmail-pipe")
    (folder / ".qmail-folder").mkdir()
    for name in (b"pipe", b"folder"):
        assert ask.exists(b"ann-%b@me.example" % name) == NO


def test_links_tell_nothing_of_where_they_lead(home: BareHome, ask: Asking) -> None:
    """Whatever a link leads to, a secret file, a device or nothing, the answer is the same: its user will see."""
    folder = home.folder / "home/ann"
    for number, target in enumerate(("/etc/shadow", "/root/no/such", "nowhere", "/dev/zero", ".qmail-4")):
        (folder / f".qmail-{number}").symlink_to(target)
        assert ask.exists(b"ann-%d@me.example" % number) == YES


def test_trouble_is_later(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """A home that is missing and a file that everybody may write are trouble, not an answer; the log names them."""
    (home.folder / "home/ann/.qmail-open").touch()
    (home.folder / "home/ann/.qmail-open").chmod(0o666)
    assert ask.exists(b"ann-open@me.example").verdict is Verdict.LATER
    daemon.wait_for_log(".qmail-open: writable by everybody")
    (home.folder / "alias").rmdir()
    verdict, text = ask.exists(b"who@me.example")
    assert verdict is Verdict.LATER
    assert str(home.folder).encode() not in text, "no path goes to strangers"
    daemon.wait_for_log(f"{home.folder}/alias: No such file or directory")


def test_virtual_domains(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """What send would do with an address is what userd says of it: one set of rules, taken up when the files change."""
    (home.folder / "home/ann/.qmail-info").touch()
    assert ask.exists(b"other@v.example") == YES, "still remote"
    home.control("virtualdomains", "v.example:ann\n")
    hang_up(daemon, ask)
    assert ask.exists(b"other@v.example") == NO
    assert ask.exists(b"Info@V.example") == YES


def test_control_files_are_looked_at_again(home: BareHome, ask: Asking) -> None:
    """A changed control file counts within moments without any signal."""
    home.control("locals", "other.example\n")
    wait_for(lambda: ask.exists(b"nobody@me.example") == YES, "me.example is not local any more")
    assert ask.exists(b"nobody@other.example") == NO


def test_a_broken_control_file_keeps_its_last_value(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """A control file that somebody breaks is named in the log, and what it said before goes on."""
    home.control("virtualdomains", "v.example:ann\n")
    hang_up(daemon, ask)
    assert ask.exists(b"x@v.example") == NO
    home.control("virtualdomains", "v.example\n")
    hang_up(daemon, ask)
    assert ask.exists(b"x@v.example") == NO
    daemon.wait_for_log("control/virtualdomains:1: no colon")


def test_a_new_users_cdb_counts_at_once(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """A user that qm-newu has compiled has a mailbox with the next question; a broken users/cdb is later, not no."""
    assert ask.exists(b"bob@me.example") == NO
    home.assign("ann", "bob")
    assert home.run("qm-newu").returncode == 0
    assert ask.exists(b"bob@me.example") == YES
    (home.folder / "users/cdb").write_bytes(b"broken")
    assert ask.exists(b"bob@me.example").verdict is Verdict.LATER
    assert ask.exists(b"x@elsewhere.example") == YES
    daemon.wait_for_log("users/cdb: it is cut off")
    assert home.run("qm-newu").returncode == 0
    assert ask.exists(b"bob@me.example") == YES


# login


def test_login(home: BareHome, ask: Asking) -> None:
    """The right password tells who the user is; a wrong one and a name that nobody has get the same answer."""
    assert ask.login(b"ann", b"secret") == ann(home)
    assert ask.login(b"ANN", b"secret") == ann(home)
    for name, secret in [(b"ann", b"Secret"), (b"ann", b""), (b"bob", b"secret"), (b"", b""), (b"a b", b"x")]:
        assert ask.login(name, secret) == WRONG
    assert ask.login(b"ann", b"x" * 5000) == WRONG
    assert ask.login(b"x" * 5000, b"secret") == WRONG
    assert ask.login(b"ann\0", b"secret") == WRONG
    assert ask.login(b"x" * 100_000, b"secret") == WRONG
    assert ask.login(b"root", b"") == WRONG


def test_apop(home: BareHome, ask: Asking) -> None:
    """A digest is right for whose password is stored as it is; the password itself then works as well."""
    put(home, b"bob@v.example", b"tanstaaf", apop=True)
    banner = b"<1896.697170952@dbc.mtview.ca.us>"
    digest = md5(banner + b"tanstaaf", usedforsecurity=False).hexdigest().encode()
    assert ask.login(b"bob@v.example", digest, banner) == ann(home, b"bob@v.example")
    assert ask.login(b"bob@v.example", digest, b"<other>") == WRONG
    assert ask.login(b"bob@v.example", digest) == WRONG
    assert ask.login(b"ann", md5(banner + b"secret", usedforsecurity=False).hexdigest().encode(), banner) == WRONG
    assert ask.login(b"bob@v.example", b"tanstaaf") == ann(home, b"bob@v.example")


@pytest.mark.usefixtures("one_worker")
def test_a_verified_login_is_remembered(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """The second login needs no worker; another password, and a login that failed, do."""
    assert ask.login(b"ann", b"secret") == ann(home)
    assert ask.login(b"ann", b"wrong") == WRONG
    with stopped(daemon.workers()):
        assert ask.login(b"ann", b"secret") == ann(home)
        for secret in (b"wrong", b"Secret"):
            with client(home, 0.3) as other, pytest.raises(Temporary, match="no answer within"):
                other.login(b"ann", secret)


@pytest.mark.usefixtures("one_worker")
@pytest.mark.parametrize("forget", ["password", "time", "hangup", "delete"])
def test_a_remembered_login_is_forgotten(home: BareHome, forget: str) -> None:
    """A new password, a deleted user, SIGHUP, and authcachetime 0: the next login is verified anew."""
    if forget == "time":
        home.control("authcachetime", "0\n")
    with running(home, "qm-userd") as daemon, client(home) as ask:
        assert ask.login(b"ann", b"secret") == ann(home)
        if forget == "password":
            put(home, b"ann", b"new")
            assert ask.login(b"ann", b"secret") == WRONG
            assert ask.login(b"ann", b"new") == ann(home)
        elif forget == "delete":
            passwd.delete(b"ann", str(home.folder / "users"))
            assert ask.login(b"ann", b"secret") == WRONG
        else:
            if forget == "hangup":
                hang_up(daemon, ask)
            with stopped(daemon.workers()), client(home, 0.3) as other, pytest.raises(Temporary):
                other.login(b"ann", b"secret")


@pytest.mark.usefixtures("one_worker")
def test_a_check_holds_nobody_up(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """While a password is being checked, others get their answers; its own asker gets its own, in order."""
    ask.login(b"ann", b"wrong")
    channel = _connect(home)
    with stopped(daemon.workers()):
        channel.send(b"login\0password\0ann\0secret\0\0\0")
        channel.send(b"exists\0ann@me.example\0")
        assert ask.exists(b"ann@me.example") == YES
    assert channel.recv(1000).startswith(b"ok\0ann\0")
    assert channel.recv(1000) == b"yes\0\0"
    channel.close()


def test_many_logins_at_once(home: BareHome, daemon: Daemon) -> None:
    """More logins than workers wait their turn, and each gets its own answer."""
    answers: dict[int, object] = {}

    def login(number: int) -> None:
        with client(home) as ask:
            answers[number] = ask.login(b"ann", b"secret" if number % 2 else b"wrong%d" % number)

    threads = [threading.Thread(target=login, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {number: ann(home) if number % 2 else WRONG for number in range(16)}
    assert len(daemon.workers()) <= 4


@pytest.mark.usefixtures("one_worker")
def test_a_worker_that_dies(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """A worker that dies in a check makes that login later, and the next one has a new worker."""
    ask.login(b"ann", b"wrong")
    channel = _connect(home)
    with stopped(daemon.workers()):
        channel.send(b"login\0password\0ann\0secret\0\0\0")
        wait_for(lambda: _unread_bytes(channel) == 0, "userd has read the question")
        ask.exists(b"x@me.example")
        for pid in daemon.workers():
            os.kill(pid, signal.SIGKILL)
    assert channel.recv(1000) == b"later\0cannot check passwords now\0"
    assert ask.login(b"ann", b"secret") == ann(home)
    channel.close()


@pytest.mark.usefixtures("one_worker")
def test_a_client_that_leaves_during_its_check(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """Who does not wait for the answer leaves nothing behind."""
    ask.login(b"ann", b"wrong")
    ask.exists(b"x@me.example")
    descriptors = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    with stopped(daemon.workers()):
        for _ in range(5):
            channel = _connect(home)
            channel.send(b"login\0password\0ann\0secret\0\0\0")
            channel.close()
        ask.exists(b"x@me.example")
    assert ask.login(b"ann", b"secret") == ann(home)
    wait_for(lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd")) <= descriptors, "descriptors are closed")


def test_a_broken_password_file(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """A broken passwd.cdb is later, never a wrong password; no password is in the log."""
    (home.folder / "users/passwd.cdb").write_bytes(b"broken")
    assert isinstance(ask.login(b"ann", b"hunter2"), Later)
    daemon.wait_for_log("users/passwd.cdb: it is cut off")
    assert "hunter2" not in daemon.log()


def test_a_hash_that_cannot_be_checked(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """A hash that this machine's libraries do not know is later, with a line that says why."""
    (home.folder / "users/passwd").write_bytes(b"ann:$2y$99$nonsense:ann:1:1:/h:/s\n")
    home.own()
    assert home.run("qm-passwd", "--compile").returncode == 0
    assert ask.login(b"ann", b"hunter2") == CANNOT_CHECK
    daemon.wait_for_log("libcrypt does not know a hash of this kind")
    assert "hunter2" not in daemon.log()


# who may ask, and how


def _connect(home: BareHome) -> socket.socket:
    """A connection of the test's own; close it."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(20)
    channel.connect(str(home.folder / "users/socket"))
    return channel


_ASK = """
from qm.errors import Temporary
from qm.unix.userclient import UserClient
try:
    print(UserClient().exists(b"ann@me.example").verdict)
except Temporary as error:
    print(error)
"""


@pytest.mark.needs_root
def test_who_may_ask(my_home: BareHome) -> None:
    """root, qmaild and qmailp get answers; other roles, mailboxes and strangers do not, and the log says who tried."""
    with running(my_home, "qm-userd") as daemon:
        for uid in (None, ROLES["qmaild"], ROLES["qmailp"]):
            assert my_home.python(_ASK, uid) == b"Verdict.YES\n"
        for uid in (ROLES["qmailr"], ROLES["qmaill"], ROLES["alias"], my_home.mailbox_uid, 65534):
            assert b"does it know our uid?" in my_home.python(_ASK, uid)
            daemon.wait_for_log(f"refused: uid {uid} ")


@pytest.mark.needs_root
def test_in_a_private_system_the_owner_asks(owners_home: BareHome) -> None:
    """Without root, root and the owner get answers, and nobody else."""
    with running(owners_home, "qm-userd"):
        assert owners_home.python(_ASK, OWNER) == b"Verdict.YES\n"
        assert owners_home.python(_ASK, None) == b"Verdict.YES\n"
        assert b"does it know our uid?" in owners_home.python(_ASK, ROLES["qmaild"])


def _with_descriptor(channel: socket.socket) -> None:
    socket.send_fds(channel, [b"exists\0ann@me.example\0"], [0])


@pytest.mark.parametrize(
    "send",
    [
        lambda channel: channel.send(b"what\0"),
        lambda channel: channel.send(b"exists\0a"),
        lambda channel: channel.send(b"login\0ann\0secret\0"),
        lambda channel: channel.send(b"\0" * 1000),
        lambda channel: channel.send(b"exists\0" + b"x" * RECORD_MAX + b"\0"),
        _with_descriptor,
    ],
)
def test_malformed(home: BareHome, daemon: Daemon, ask: Asking, send: Callable[[socket.socket], object]) -> None:
    """Who sends what is no question is dropped, with a line in the log; others do not notice."""
    ask.exists(b"ann@me.example")
    descriptors = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    channel = _connect(home)
    send(channel)
    assert _closed(channel)
    channel.close()
    daemon.wait_for_log("dropped a client, uid ")
    assert ask.exists(b"ann@me.example") == YES
    assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) == descriptors


def _closed(channel: socket.socket) -> bool:
    try:
        return channel.recv(1000) == b""
    except ConnectionResetError:
        return True


def test_a_client_that_does_not_read(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """Who asks and asks and takes no answers is dropped, and holds nobody up."""
    channel = _connect(home)
    with pytest.raises(OSError):
        for _ in range(100_000):
            channel.send(b"exists\0ann@me.example\0")
    channel.close()
    daemon.wait_for_log("it does not take its answers")
    assert ask.exists(b"ann@me.example") == YES


def test_clients_beyond_the_limit(home: BareHome) -> None:
    """At the limit the client that has been silent longest makes room, and our client does not notice."""
    home.control("concurrencyuserd", "3\n")
    with running(home, "qm-userd"), ExitStack() as stack:
        clients = [stack.enter_context(client(home)) for _ in range(10)]
        for _ in range(3):
            for ask in clients:
                assert ask.exists(b"ann@me.example") == YES


@pytest.mark.usefixtures("one_worker")
def test_all_clients_busy(home: BareHome) -> None:
    """When all clients wait for checks, the next one waits to be taken, and is."""
    home.control("concurrencyuserd", "2\n")
    with running(home, "qm-userd") as daemon:
        with client(home) as ask:
            ask.login(b"ann", b"wrong")
        channels = [_connect(home), _connect(home)]
        with stopped(daemon.workers()):
            for channel in channels:
                channel.send(b"login\0password\0ann\0secret\0\0\0")
                wait_for(lambda: _unread_bytes(channel) == 0, "userd has read the question")  # noqa: B023
            with client(home, 0.3) as third, pytest.raises(Temporary):
                third.exists(b"ann@me.example")
        for channel in channels:
            assert channel.recv(1000).startswith(b"ok\0")
            channel.close()
        with client(home) as ask:
            assert ask.exists(b"ann@me.example") == YES


def test_a_restart_between_two_questions(home: BareHome) -> None:
    """A kept connection that userd's end has closed is made anew; without a userd the answer is later."""
    with client(home) as ask:
        with pytest.raises(Temporary, match="is qm-userd running"):
            ask.exists(b"ann@me.example")
        for _ in range(2):
            with running(home, "qm-userd"):
                assert ask.exists(b"ann@me.example") == YES
        with pytest.raises(Temporary, match="is qm-userd running"):
            ask.login(b"ann", b"secret")


# start and stop


def test_two_on_one_home(home: BareHome, daemon: Daemon, ask: Asking) -> None:
    """The second userd of a home does not start, and the first goes on."""
    result = home.run("qm-userd")
    assert result.returncode == 111
    assert b"already running" in result.stderr
    assert ask.exists(b"ann@me.example") == YES


def test_after_a_crash(home: BareHome) -> None:
    """A socket that a killed userd has left is replaced, and its workers end."""
    with running(home, "qm-userd") as first, client(home) as ask:
        ask.login(b"ann", b"secret")
        workers = first.workers()
        assert workers
        first.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), "the workers end")
    assert (home.folder / "users/socket").exists()
    with running(home, "qm-userd"), client(home) as ask:
        assert ask.login(b"ann", b"secret") == ann(home)


def test_stop(home: BareHome) -> None:
    """SIGTERM ends it at once with exit code 0, also during a check, and its socket is gone."""
    with running(home, "qm-userd") as daemon:
        with client(home) as ask:
            ask.login(b"ann", b"wrong")
        channel = _connect(home)
        channel.send(b"login\0password\0ann\0secret\0\0\0")
        workers = daemon.workers()
        assert daemon.stop() == 0
        channel.close()
    assert not (home.folder / "users/socket").exists()
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in workers)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("me", None, b"control/me:1: missing or empty"),
        ("virtualdomains", "a:b\nbroken\n", b"control/virtualdomains:2: no colon"),
        ("authcachetime", "soon\n", b"control/authcachetime:1: not a number"),
    ],
)
def test_it_does_not_start_with_broken_files(my_home: BareHome, name: str, text: str | None, said: bytes) -> None:
    """A control file that makes no sense is refused at the start, with file and line."""
    if text is None:
        (my_home.folder / "control" / name).unlink()
    else:
        my_home.control(name, text)
    result = my_home.run("qm-userd")
    assert result.returncode == 111
    assert said in result.stderr


def test_usage(my_home: BareHome) -> None:
    """It takes no arguments."""
    assert my_home.run("qm-userd", "x").returncode == 100


# privileges


@pytest.mark.needs_root
def test_workers_are_nobody(my_home: BareHome) -> None:
    """Passwords are checked by a process that is qmailp for good, with one group, no new privileges and one channel."""
    with running(my_home, "qm-userd") as daemon, client(my_home) as ask:
        ask.login(b"ann", b"secret")
        (worker,) = daemon.workers()
        lines = Path(f"/proc/{worker}/status").read_text().splitlines()
        status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        assert status["Uid"] == [str(ROLES["qmailp"])] * 4
        assert status["Gid"] == ["64000"] * 4
        assert status["Groups"] == ["64000"]
        assert status["NoNewPrivs"] == ["1"]
        assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0
        open_fds = {os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd") if int(fd) > 2}
        assert len(open_fds) == 1
        assert next(iter(open_fds)).startswith("socket:")


def test_modes(home: BareHome, daemon: Daemon) -> None:
    """The socket is for all to connect to, its lock for nobody else."""
    status = (home.folder / "users/socket").stat()
    assert stat.S_IMODE(status.st_mode) == 0o666
    assert stat.S_IMODE((home.folder / "users/userd.lock").stat().st_mode) == 0o600


# this machine's accounts

_BIND = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shadow && shift 2 && exec "$@"'


@pytest.fixture
def with_accounts(tmp_path: Path) -> list[str]:
    """A command that runs another where /etc/passwd and /etc/shadow have three accounts more."""
    (tmp_path / "zed").mkdir(mode=0o755)
    os.chown(tmp_path / "zed", 64199, 64199)
    openssl = subprocess.run(["openssl", "passwd", "-6", "geheim"], capture_output=True, check=True)
    hashed = openssl.stdout.decode().strip()
    lines = f"zed:x:64199:64198::{tmp_path}/zed:/bin/zsh\nold:x:64197:64198::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n"
    (tmp_path / "passwd").write_text(Path("/etc/passwd").read_text() + lines)
    shadow = f"zed:{hashed}:19000:0:99999:7:::\nold:{hashed}:19000:0:99999:7::1:\ntoor:{hashed}:19000:0:99999:7:::\n"
    (tmp_path / "shadow").write_text(Path("/etc/shadow").read_text() + shadow)
    command = ["unshare", "--mount", "sh", "-c", _BIND, "sh", str(tmp_path / "passwd"), str(tmp_path / "shadow")]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")
    return command


@pytest.mark.needs_root
@pytest.mark.needs("unshare", "openssl")
def test_accounts(my_home: BareHome, tmp_path: Path, with_accounts: list[str]) -> None:
    """As root, this machine's accounts have mailboxes and log in with their passwords; root and expired ones do not."""
    with running(my_home, "qm-userd", prefix=with_accounts), client(my_home) as ask:
        login = Login(b"zed", 64199, 64198, os.fsencode(tmp_path / "zed"), b"/bin/zsh", b"zed")
        assert ask.exists(b"zed@me.example") == YES
        assert ask.exists(b"zed-x@me.example") == NO
        assert ask.login(b"zed", b"geheim") == login
        assert ask.login(b"zed", b"falsch") == WRONG
        assert ask.login(b"ann", b"secret") == ann(my_home)
        for name in (b"old", b"toor", b"root", b"nobody"):
            assert ask.login(name, b"geheim") == WRONG
        my_home.control("logins", "passwd\n")
        wait_for(lambda: ask.login(b"zed", b"geheim") == WRONG, "control/logins is taken up")
        assert ask.login(b"ann", b"secret") == ann(my_home)


@pytest.mark.needs_root
@pytest.mark.needs("unshare", "openssl")
def test_no_accounts_in_a_private_system(owners_home: BareHome, with_accounts: list[str]) -> None:
    """Without root, accounts of this machine have neither mailbox nor login: not even the owner's."""
    home = owners_home
    drop = ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"]
    home.uid = None
    with running(home, "qm-userd", prefix=[*with_accounts, *drop]), client(home) as ask:
        assert ask.exists(b"zed@me.example") == NO
        assert ask.login(b"zed", b"geheim") == WRONG
        assert ask.login(b"ann", b"secret") == ann(home)
