"""bin/quickstart: the newcomer's command."""

import os
import poplib
import re
import shutil
import smtplib
import socket
import struct
import subprocess
from collections.abc import Iterator, KeysView, Sequence
from pathlib import Path

import pytest

from tests.harness.suite import BIN, HOST, ROOT, wait_for

STRANGER = "65533"  # a uid without account
READS = {"x86_64": {0, 19, 45, 47}, "aarch64": {63, 65, 207, 212}}  # read, readv, recvfrom, recvmsg
POLLS = {"x86_64": {7, 271}, "aarch64": {73}}  # poll, ppoll
ANY_PORTS = [word for name in ("pop3", "submit", "submits", "pop3s") for word in (f"--{name}", "0")]


class Newcomer:
    """Whoever types the command, in a directory of his own."""

    def __init__(self, folder: Path, command: Sequence[str] = (str(BIN / "quickstart"),)) -> None:
        self.folder = folder
        self.command = list(command)

    def type(self, *arguments: str) -> tuple[int, str]:
        """Exit code and words; fails if something that was started keeps our pipe open."""
        done = subprocess.run(
            [*self.command, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.decode()

    def start(self, *arguments: str) -> dict[str, str]:
        """Run it on any ports; what it says, by name."""
        code, text = self.type("--smtp", "0", *ANY_PORTS, *arguments)
        assert code == 0, text
        found = re.search(r"SMTP on 127.0.0.1:(?P<smtp>\d+), POP3 on 127.0.0.1:(?P<pop3>\d+)", text)
        login = re.search(r"user (?P<user>\S+)   password (?P<password>\S+)", text)
        assert found and login, text
        return {"text": text, **found.groupdict(), **login.groupdict()}

    def rc(self, command: str, home: str = "var") -> int:
        return subprocess.run([self.folder / home / "rc", command], stdout=subprocess.DEVNULL, check=False).returncode


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    someone = Newcomer(tmp_path)
    yield someone
    for rc in tmp_path.glob("*/rc"):
        assert someone.rc("stop", rc.parent.name) == 0


def test_one_command(newcomer: Newcomer) -> None:
    """It makes ./var, starts it, shows a message with its Received line, and says how to use it and to stop it."""
    said = newcomer.start()
    assert re.search(r"^    Received: from quickstart\.example \(.*\)$", said["text"], re.MULTILINE)
    assert re.search(r"^    Subject: It works$", said["text"], re.MULTILINE)
    assert "var/rc stop" in said["text"]
    assert said["user"] == "demo"
    assert newcomer.rc("status") == 0
    assert list((newcomer.folder / "var/home/demo/Maildir").glob("*/*"))


def test_what_it_leaves_can_be_used(newcomer: Newcomer) -> None:
    """A mail program that is told what quickstart said can send and fetch."""
    said = newcomer.start("--user", "ann:s:ecret", "--domain", "Example.ORG")
    assert (said["user"], said["password"]) == ("ann", "s:ecret")
    with smtplib.SMTP(HOST, int(said["smtp"]), timeout=10) as smtp:
        smtp.sendmail("ann@example.org", ["postmaster@example.org"], b"Subject: to an alias\r\n\r\nhello\r\n")
    maildir = newcomer.folder / "var/home/ann/Maildir"
    wait_for(lambda: len([*maildir.glob("new/*"), *maildir.glob("cur/*")]) == 2, "the second message")
    client = poplib.POP3(HOST, int(said["pop3"]), timeout=10)
    client.user("ann")
    client.pass_("s:ecret")
    assert b"Subject: to an alias" in client.retr(2)[1]
    client.quit()


def test_a_second_run_uses_what_is_there(newcomer: Newcomer) -> None:
    """A second run neither restarts the suite nor changes ports or password."""
    first = newcomer.start()
    pid = (newcomer.folder / "var/run/lock").read_text()
    code, text = newcomer.type()
    assert code == 0, text
    assert f"runs already: SMTP on 127.0.0.1:{first['smtp']}, POP3 on 127.0.0.1:{first['pop3']}" in text
    assert f"password {first['password']}" in text
    assert (newcomer.folder / "var/run/lock").read_text() == pid


def test_a_run_after_stop_has_the_same_ports(newcomer: Newcomer) -> None:
    """The ports are kept in the services file, so a mail program need not be told again."""
    first = newcomer.start()
    newcomer.rc("stop")
    code, text = newcomer.type()
    assert code == 0, text
    assert f"started: SMTP on 127.0.0.1:{first['smtp']}, POP3 on 127.0.0.1:{first['pop3']}" in text


def test_another_port_moves_it(newcomer: Newcomer) -> None:
    """A port that is asked for, and is not the one that it runs on, is taken after a restart."""
    first = newcomer.start()
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free = probe.getsockname()[1]
    code, text = newcomer.type("--smtp", str(free))
    assert code == 0, text
    assert f"started: SMTP on 127.0.0.1:{free}, POP3 on 127.0.0.1:{first['pop3']}" in text


def test_a_port_that_is_taken(newcomer: Newcomer) -> None:
    """A busy port is no failure: it takes another and says which."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        busy = other.getsockname()[1]
        code, text = newcomer.type("--smtp", str(busy), *ANY_PORTS)
    assert code == 0, text
    found = re.search(rf"^port {busy} is taken; smtp uses (\d+)$", text, re.MULTILINE)
    assert found
    assert f"SMTP on 127.0.0.1:{found[1]}" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--home", "/proc/none"], r"quickstart: /proc/none: No such file or directory"),
        (["--home", "file"], r"quickstart: \S*file: File exists"),
        (["--home", "var", "--domain", "other.example"], r"quickstart: var is qm.example's; another --domain needs .*"),
    ],
)
def test_a_failure_is_one_line(newcomer: Newcomer, arguments: list[str], line: str) -> None:
    """What keeps it from working is one line, and the exit code 1."""
    (newcomer.folder / "file").write_text("")
    (newcomer.folder / "var/control").mkdir(parents=True)
    (newcomer.folder / "var/control/me").write_text("qm.example\n")
    code, text = newcomer.type(*arguments)
    (newcomer.folder / "var/control/me").unlink()
    assert code == 1
    assert re.fullmatch(line, text.strip()), text


@pytest.mark.parametrize("arguments", [["--smtp", "70000"], ["--user", "a/b:c"], ["--domain", "a b"], ["--nonsense"]])
def test_a_bad_option_is_a_usage_error(newcomer: Newcomer, arguments: list[str]) -> None:
    """An option that makes no sense changes nothing, and ends with 2."""
    assert newcomer.type(*arguments)[0] == 2
    assert not (newcomer.folder / "var").exists()


@pytest.mark.needs_root
def test_nobody_reads_the_network_as_root(newcomer: Newcomer) -> None:
    """Started by root: whoever waits on a connection is not root, in every phase of a session."""
    said = newcomer.start()
    text = (newcomer.folder / "var/control/roles").read_text()
    roles = {name: int(uid) for name, uid in re.findall(r"^(\w+):(\d+):", text, re.MULTILINE)}
    mailbox = (newcomer.folder / "var/home/demo").stat().st_uid
    with socket.create_connection((HOST, int(said["smtp"])), 10) as smtp, smtp.makefile("rb") as replies:
        replies.readline()
        assert _uids_of_readers(smtp) == {roles["qmaild"]}
        smtp.sendall(b"EHLO a.example\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        assert _uids_of_readers(smtp) == {roles["qmaild"]}
    with socket.create_connection((HOST, int(said["pop3"])), 10) as pop3, pop3.makefile("rb") as replies:
        replies.readline()
        assert _uids_of_readers(pop3) == {roles["qmailp"]}
        pop3.sendall(f"USER {said['user']}\r\nPASS {said['password']}\r\n".encode())
        assert replies.readline().startswith(b"+OK")
        assert replies.readline().startswith(b"+OK")
        pop3.sendall(b"STAT\r\n")
        assert replies.readline().startswith(b"+OK")
        assert _uids_of_readers(pop3) == {mailbox}
    assert mailbox not in {0, *roles.values()}


def _uids_of_readers(client: socket.socket) -> KeysView[int]:
    """As whom somebody waits on the other end of a connection."""
    return wait_for(lambda: _readers(client), "somebody who reads the connection").keys()


def _inode(client: socket.socket) -> str:
    """The inode of the other end of a connection to this machine."""
    local, remote = client.getsockname()[1], client.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == remote and int(fields[2].split(":")[1], 16) == local:
            return f"socket:[{fields[9]}]"
    raise AssertionError("no such connection")


def _readers(client: socket.socket) -> dict[int, str]:
    """Who waits on the connection's other end, in a read or a poll: uid, and what tells more."""
    inode, found = _inode(client), {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = {int(path.name) for path in (process / "fd").iterdir() if os.readlink(path) == inode}
            if held & _waited_for(process):
                more = [(process / name).read_text() for name in ("cmdline", "syscall", "status")]
                found[process.stat().st_uid] = " ".join(more)
        except (OSError, ValueError):
            continue
    return found


def _waited_for(process: Path) -> set[int]:
    """Descriptors that the system call in which *process* sleeps would read: its first argument, or poll's array."""
    number, first, second, *_ = (int(word, 0) for word in (process / "syscall").read_text().split())
    if number in READS[os.uname().machine]:
        return {first}
    if number not in POLLS[os.uname().machine]:
        return set()
    with (process / "mem").open("rb", buffering=0) as memory:
        memory.seek(first)
        polled = memory.read(8 * min(second, 16))
    return {fd for fd, _, _ in struct.iter_unpack("ihh", polled)}


@pytest.mark.needs_root
def test_a_checkout_that_only_root_can_read(tmp_path: Path) -> None:
    """As root all works where nobody else can search: whatever a role needs is imported before it is one."""
    tmp_path.chmod(0o700)
    copy_checkout(tmp_path / "qm")
    someone = Newcomer(tmp_path, [str(tmp_path / "qm/bin/quickstart")])
    try:
        said = someone.start()
        with smtplib.SMTP(HOST, int(said["smtp"]), timeout=10) as smtp:
            smtp.sendmail("", ["postmaster@qm.example"], b"Subject: to an alias\r\n\r\nhello\r\n")
            assert smtp.rcpt("nobody-here@qm.example")[0] == 503
            smtp.mail("a@example.org")
            assert smtp.rcpt("nobody-here@qm.example")[0] == 550
        maildir = tmp_path / "var/home/demo/Maildir"
        wait_for(lambda: len([*maildir.glob("new/*"), *maildir.glob("cur/*")]) == 2, "the second message")
        log = (tmp_path / "var/log/current").read_text()
        assert "alert:" not in log, log
    finally:
        someone.rc("stop")


@pytest.mark.needs_root
@pytest.mark.needs("setpriv")
def test_a_user_without_rights_can_run_it(open_folder: Path) -> None:
    """Without root it works in a checkout of one's own, and everything runs as that one user."""
    copy_checkout(open_folder / "qm")
    for path in [open_folder, *open_folder.rglob("*")]:
        os.chown(path, int(STRANGER), int(STRANGER), follow_symlinks=False)
    be = ["setpriv", "--reuid", STRANGER, "--regid", STRANGER, "--clear-groups", "--"]
    someone = Newcomer(open_folder, [*be, str(open_folder / "qm/bin/quickstart")])
    try:
        someone.start()
        command = [open_folder / "var/rc", "status"]
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows, _, rest = status.partition("queue: ")
        assert rest and all(f" as {STRANGER}" in row for row in rows.splitlines())
        assert "alert:" not in (open_folder / "var/log/current").read_text()
    finally:
        someone.rc("stop")


def copy_checkout(target: Path) -> None:
    """What a run needs of the checkout; the heavy tools of .venv stay behind."""
    tools = "ruff* *mypy* pip* pygments* setuptools* hypothesis* grimp* _pytest rich* ast_serialize*"
    tools += " pkg_resources* importlinter* coverage* librt* py-spy"
    for name in ("qm", "bin", "control", "alias", ".venv"):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns(*tools.split()))
    shutil.copy(ROOT / "setup.cfg", target / "setup.cfg")
