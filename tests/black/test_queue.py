"""qm-queue and the queue service, as real programs."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.unix.queueclient import QueueClient
from qm.wire import door, queuecode
from qm.wire.envelope import Envelope, Recipient
from tests.harness.queueservice import ENVELOPE, PYTHON, ROLES, QueueService
from tests.harness.suite import BIN
from tests.harness.waiting import wait_for

MIB = 1 << 20
STRANGER = 60999


@pytest.fixture
def home(tmp_path: Path) -> Iterator[QueueService]:
    """A home whose queue service does not run yet; the end of one that does must be in order."""
    service = QueueService(tmp_path / "home")
    yield service
    if service.process is not None:
        assert service.stop() == 0


@pytest.fixture
def queued(home: QueueService) -> QueueService:
    return home.start()


def _peak_kib(pid: int) -> int:
    """The most memory that the process has held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


@contextlib.contextmanager
def _as_user(uid: int) -> Iterator[None]:
    """Connect as *uid*: the service sees who connects."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


# the command


@pytest.mark.parametrize("with_service", [True, False])
def test_a_local_message_is_queued(home: QueueService, with_service: bool) -> None:
    """qm-queue prints nothing and exits 0; the message has one more field at its top, the envelope says who
    queued it.
    """
    home.start()
    if not with_service:
        home.stop()
    result = home.run_queue(b"Subject: x\n\nbody\n", b"Fa@b\0Tc@d\0Te@f\0\0")
    assert (result.returncode, result.stderr) == (0, b"")
    [name] = home.names("new")
    who = f"by uid {os.getuid()}"
    field = rf"Received: \(qm-queue invoked {who}\)\n  id {name}; \w+, \d+ \w+ \d{{4}} [0-9:]{{8}} -0000\n"
    assert re.fullmatch(field + r"Subject: x\n\nbody\n", home.message(name).decode())
    text = (home.home / "queue/new" / name).read_bytes()
    assert re.search(rb"\nu%d\0p\d+\0b\d{19}\0Plocal\0Fa@b\0Tc@d\0Te@f\0\n" % os.getuid(), text)
    assert home.names("tmp") == []


@pytest.mark.parametrize("with_service", [True, False])
@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (b"", 54),
        (b"Fa@b\0Tc@d\0", 54),
        (b"Fa@b\0Tc@d", 54),
        (b"Ta@b\0\0", 91),
        (b"Fa@b\0Xc@d\0\0", 91),
        (b"F" + b"a" * 1001 + b"\0\0", 11),
        (b"Fa@b\0T" + b"a" * 5000, 11),
        (b"Fa@b\0" + b"Ta\0" * 100_001 + b"\0", 31),
    ],
)
def test_a_broken_envelope_queues_nothing(home: QueueService, envelope: bytes, code: int, with_service: bool) -> None:
    """Exit codes are those of qmail.md section 5, and nothing is left."""
    home.start()
    if not with_service:
        home.stop()
    for message in (b"body\n", b"x" * 300_000):
        result = home.run_queue(message, envelope)
        assert (result.returncode, result.stderr) == (code, b"")
    wait_for(lambda: home.names("tmp") == [], "an empty tmp")
    assert home.names("new") == []


@pytest.mark.parametrize("with_service", [True, False])
def test_any_bytes_are_a_message(home: QueueService, with_service: bool) -> None:
    """NUL, 8-bit, no last line end, nothing at all: the bytes are kept as they are."""
    home.start()
    if not with_service:
        home.stop()
    for message in (b"", bytes(range(256)) * 3, b"\0" * 70_000, b"no end"):
        assert home.run_queue(message).returncode == 0
        [name] = home.names("new")
        assert home.message(name).split(b"-0000\n", 1)[1] == message
        (home.home / "queue/new" / name).unlink()


def test_very_many_recipients(queued: QueueService) -> None:
    """A hundred thousand recipients are taken, in their order."""
    recipients = b"".join(b"Tuser%d@example.org\0" % count for count in range(100_000))
    assert queued.run_queue(b"body\n", b"F\0" + recipients + b"\0").returncode == 0
    [name] = queued.names("new")
    assert recipients in (queued.home / "queue/new" / name).read_bytes()


def test_it_ends_with_the_envelope_and_not_with_the_descriptor(queued: QueueService) -> None:
    """A caller may keep descriptor 1 open: the last NUL is the end."""
    reader, writer = os.pipe()
    os.write(writer, b"Fa@b\0Tc@d\0\0")
    with subprocess.Popen(
        [*PYTHON, str(BIN / "qm-queue")], env=queued.env, stdin=subprocess.DEVNULL, stdout=reader
    ) as process:
        assert process.wait(30) == 0
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("redirection", ["<&-", "1<&-", "2>&-"])
def test_a_closed_descriptor_is_exit_54(queued: QueueService, redirection: str) -> None:
    """A caller that has closed one of the first three descriptors queues nothing, rather than something else."""
    result = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$@" {redirection}', *PYTHON, str(BIN / "qm-queue")],
        env=queued.env,
        input=b"body\n",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 54
    assert queued.names("new") == []


@pytest.mark.parametrize("with_service", [True, False])
def test_it_gives_up_at_its_alarm_and_ignores_a_hangup(home: QueueService, with_service: bool) -> None:
    """A message that never ends is exit 52 after a day (SIGALRM comes earlier here); HUP, INT and QUIT do nothing."""
    home.start()
    if not with_service:
        home.stop()
    with subprocess.Popen([*PYTHON, str(BIN / "qm-queue")], env=home.env, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * 300_000)
        process.stdin.flush()
        wait_for(lambda: home.names("tmp"), "a file in tmp")
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM):
            process.send_signal(signum)
        assert process.wait(30) == 52
    wait_for(lambda: home.names("tmp") == [], "an empty tmp")
    assert home.names("new") == []


def test_a_caller_that_dies_queues_nothing(queued: QueueService) -> None:
    """qm-queue killed in the middle of a message leaves nothing with the service."""
    with subprocess.Popen([*PYTHON, str(BIN / "qm-queue")], env=queued.env, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * 300_000)
        process.stdin.flush()
        wait_for(lambda: queued.names("tmp"), "a file in tmp")
        process.kill()
    wait_for(lambda: queued.names("tmp") == [], "an empty tmp")
    assert queued.names("new") == []


def test_without_a_home_it_is_exit_61(home: QueueService) -> None:
    """A home that cannot be entered has a code of its own."""
    assert home.run_queue(QMHOME="/nonexistent").returncode == 61


def test_without_a_queue_it_is_exit_62(home: QueueService) -> None:
    """No service and no directories: exit 62, for the queue's owner."""
    assert home.run_queue().returncode == 62


@pytest.mark.needs_root
def test_without_a_service_a_stranger_is_told_so(home: QueueService) -> None:
    """Only the queue's owner writes by himself: exit 56 for anybody else, and his message is not lost in a
    file of his own.
    """
    home.start()
    home.stop()
    assert home.run_queue(user=STRANGER).returncode == 56
    assert home.names("new") == []


@pytest.mark.needs_root
def test_whoever_queues_is_named(queued: QueueService) -> None:
    """Each role has its own words in the Received field, a stranger his number; files belong to the queue's owner."""
    words = {"alias": b"by alias", "qmaild": b"from network", "qmails": b"for bounce"}
    for uid, who in [*((ROLES[role], who) for role, who in words.items()), (STRANGER, b"by uid 60999")]:
        assert queued.run_queue(user=uid).returncode == 0
        [name] = queued.names("new")
        assert queued.message(name).startswith(b"Received: (qm-queue invoked " + who + b")\n")
        path = queued.home / "queue/new" / name
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (ROLES["qmailq"], 60000, 0o640)
        path.unlink()


@pytest.mark.needs_root
def test_root_without_a_service_writes_as_the_owner(home: QueueService) -> None:
    """Root becomes qmailq before it writes, so that send can read what it queued."""
    home.start()
    home.stop()
    assert home.run_queue().returncode == 0
    [name] = home.names("new")
    status = (home.home / "queue/new" / name).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (ROLES["qmailq"], 60000, 0o640)


# the service


def test_it_serves_as_the_owner_and_keeps_others_out(queued: QueueService) -> None:
    """No process of the service is root; the door is open to all, the rest of queue/ to nobody."""
    assert queued.process is not None
    queued.put()
    owner = ROLES["qmailq"] if os.geteuid() == 0 else os.geteuid()
    for pid in (queued.process.pid, *queued.workers()):
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(rf"^Uid:(\s+{owner}){{4}}$", status, re.MULTILINE)
        assert os.geteuid() != 0 or re.search(r"^Groups:\s+60000\s*$", status, re.MULTILINE)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (queued.home / "queue").iterdir()}
    assert modes.pop("socket") == 0o666
    assert all(mode & 0o007 == 0 for mode in modes.values())


def test_a_second_service_is_refused(queued: QueueService) -> None:
    """One queue, one service: the second exits 111 and says why, the first goes on."""
    second = subprocess.run(
        [*PYTHON, str(BIN / "qm-queued")], env=queued.env, capture_output=True, timeout=30, check=False
    )
    assert second.returncode == 111
    assert re.fullmatch(rb"qm-queued: fatal: already running \(queue/lock: .*\)\n", second.stderr)
    queued.put()


def test_without_its_directory_it_does_not_start(home: QueueService) -> None:
    """A missing queue/ is one clear line and exit 111."""
    (home.home / "queue").rmdir()
    result = subprocess.run(
        [*PYTHON, str(BIN / "qm-queued")], env=home.env, capture_output=True, timeout=30, check=False
    )
    assert result.returncode == 111
    assert result.stderr == b"qm-queued: fatal: cannot make the queue (queue/tmp: No such file or directory)\n"


def test_a_broken_control_file_is_named(home: QueueService) -> None:
    """The service does not start with it; a running one keeps the last good value and says so at SIGHUP."""
    home.control("concurrencyqueue", "many\n")
    result = subprocess.run(
        [*PYTHON, str(BIN / "qm-queued")], env=home.env, capture_output=True, timeout=30, check=False
    )
    assert result.returncode == 111
    assert b"control/concurrencyqueue:1: not a number" in result.stderr
    home.control("concurrencyqueue", "1\n")
    home.start()
    home.control("concurrencyqueue", "many\n")
    assert home.process is not None
    home.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "control/concurrencyqueue:1: not a number" in home.log(), "a complaint")
    home.put()


def test_a_large_message_is_held_by_nobody(queued: QueueService) -> None:
    """50 MiB go through client and service without either growing by more than a few datagrams."""
    with queued.client() as client:
        queued.put(b"small\n", client)
        [worker] = queued.workers()
        before_kib = _peak_kib(worker)
        mine_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        submission = client.begin()
        chunk = os.urandom(MIB // 16)
        for _ in range(50 * 16):
            submission.write(chunk)
        name = submission.commit(ENVELOPE).name
        assert _peak_kib(worker) < before_kib + 2048
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < mine_kib + 4096
    assert (queued.home / "queue/new" / name.decode()).stat().st_size > 50 * MIB


def test_more_clients_than_workers(queued: QueueService) -> None:
    """With one worker, several clients that keep their connections all get their messages through, in turn."""
    queued.control("concurrencyqueue", "1\n")
    assert queued.process is not None
    queued.stop()
    queued.start()
    clients = [queued.client() for _ in range(3)]
    for client in clients:
        client.ensure()
    for _ in range(2):
        for client in clients:
            queued.put(b"body\n", client)
    for client in clients:
        client.close()
    assert len(queued.names("new")) == 6
    assert len(queued.workers()) <= 1


@pytest.mark.needs_root
def test_a_stranger_cannot_close_the_door(home: QueueService) -> None:
    """A user who holds all the connections that he can get leaves room for smtpd, and gets his own served in
    the end.
    """
    home.control("concurrencyqueue", "4\n")
    home.start()
    with contextlib.chdir(home.home):
        _crowd_the_door(home)
    assert sorted(message.splitlines()[-1] for message in home.messages()) == [b"from a stranger", b"from the network"]


def _crowd_the_door(home: QueueService) -> None:
    with contextlib.ExitStack() as held:
        with _as_user(STRANGER):
            for _ in range(100):
                channel = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                channel.settimeout(10)
                channel.connect("queue/socket")
                with contextlib.suppress(BrokenPipeError):
                    channel.send(door.begin(door.Begin()))
        with _as_user(ROLES["qmaild"]), QueueClient() as client:
            home.put(b"from the network\n", client)
        assert len(home.workers()) == 2
    with _as_user(STRANGER), QueueClient() as client:
        codes = []
        wait_for(lambda: codes.append(_put_code(home, b"from a stranger\n", client)) or codes[-1] == 0, "his turn")
    assert set(codes[:-1]) <= {queuecode.BUSY, queuecode.UNREACHABLE}


def test_a_dead_worker_is_replaced(queued: QueueService) -> None:
    """A worker that is killed between two messages costs its client nothing."""
    with queued.client() as client:
        queued.put(b"first\n", client)
        [worker] = queued.workers()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not client._line.is_alive(), "the connection's end, which follows its own")
        queued.put(b"second\n", client)
    assert len(queued.names("new")) == 2


def test_a_restart_costs_a_waiting_client_nothing(queued: QueueService) -> None:
    """A client that keeps its connection over a restart of the service goes on with the new one."""
    with queued.client() as client:
        queued.put(b"first\n", client)
        assert queued.stop() == 0
        with pytest.raises(Temporary):
            client.ensure()
        queued.start()
        client.ensure()
        queued.put(b"second\n", client)
    assert len(queued.names("new")) == 2


def test_a_full_disk_is_a_temporary_failure(home: QueueService) -> None:
    """A file that may not grow: exit 53, an alert, nothing left; small messages still go through."""
    queued = home.start(["/bin/sh", "-c", 'ulimit -f 200; exec "$0" "$@"'])  # 102,400 bytes
    for size in (102_390, 500_000):
        assert queued.run_queue(b"x" * size).returncode == 53
    assert queued.run_queue(b"x" * 50_000).returncode == 0
    assert len(queued.names("new")) == 1
    assert queued.names("tmp") == []
    alert = r"^qm-queued: alert: cannot queue [0-9a-z]{18}: write: File too large$"
    assert re.search(alert, queued.log(), re.MULTILINE)


@pytest.mark.needs_root
@pytest.mark.needs("mount", "umount", "unshare")
def test_a_really_full_disk(home: QueueService) -> None:
    """On a file system of 256 KiB messages are taken until it is full, then refused with 53; what was taken is
    whole.
    """
    target = home.home / "queue"
    options = f"size=256k,mode=751,uid={ROLES['qmailq']},gid=60000"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)], check=False)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        home.start()
        codes = [_put_code(home, b"x" * 30_000) for _ in range(20)]
        assert home.names("tmp") == []
        assert codes == sorted(codes)
        assert set(codes) == {0, 53} or set(codes) == {0, 53, 63}
        assert len(home.messages()) == codes.count(0) > 3
        (target / "new" / home.names("new")[0]).unlink()
        assert _put_code(home, b"x" * 20_000) == 0
        assert home.stop() == 0
    finally:
        subprocess.run(["umount", str(target)], check=True)


def _put_code(home: QueueService, message: bytes, client: QueueClient | None = None) -> int:
    try:
        home.put(message, client)
    except Temporary as error:
        return error.code  # type: ignore[attr-defined,no-any-return]
    return 0


@pytest.mark.parametrize(("folder", "code"), [("tmp", 63), ("new", 66)])
def test_an_unwritable_queue_is_a_temporary_failure(queued: QueueService, folder: str, code: int) -> None:
    """A directory with the wrong mode is said in the log with its step; when it is right again, so is the queue."""
    path = queued.home / "queue" / folder
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
    path.chmod(0o555)
    assert queued.run_queue().returncode == code
    assert "Permission denied" in queued.log()
    if os.geteuid() == 0:
        os.chown(path, ROLES["qmailq"], 60000)
    path.chmod(0o770)
    assert queued.run_queue().returncode == 0
    assert queued.names("tmp") == []


def test_a_queue_that_goes_away_and_comes_back(queued: QueueService) -> None:
    """Directories that vanish under a running service are temporary failures until they are back, without a restart."""
    queued.put()
    queue = queued.home / "queue"
    (queue / "new").rename(queue / "away")
    for name in queued.names("away"):
        (queue / "away" / name).unlink()
    (queue / "away").rmdir()
    with queued.client() as client:
        for _ in range(2):
            with pytest.raises(Temporary):
                queued.put(b"body\n", client)
        (queue / "new").mkdir()
        if os.geteuid() == 0:
            os.chown(queue / "new", ROLES["qmailq"], 60000)
        queued.put(b"body\n", client)
    assert len(queued.names("new")) == 1
    assert queued.names("tmp") == []


def test_the_start_sweeps(home: QueueService) -> None:
    """What a crash left in tmp/ more than 36 h ago is gone after the start; younger litter stays."""
    home.start()
    home.stop()
    for name, age_s in (("old", 40 * 3600), ("young", 30 * 3600)):
        path = home.home / "queue/tmp" / name
        path.write_bytes(b"x")
        now_s = path.stat().st_mtime
        os.utime(path, (now_s - age_s, now_s - age_s))
    home.start()
    assert home.names("tmp") == ["young"]
    assert "swept 1 old files" in home.log()


def test_the_trigger_names_what_has_come(queued: QueueService) -> None:
    """send reads the ID of each message, and need not look into new/."""
    reader = os.open(queued.home / "queue/trigger", os.O_RDWR | os.O_NONBLOCK)
    names = [queued.put() for _ in range(3)]
    assert os.read(reader, 4096).split() == names
    os.close(reader)


def test_a_bounce_is_queued_once(queued: QueueService) -> None:
    """send, or the owner, may name a message; the second one of that name is success and says so."""
    uid = ROLES["qmails"] if os.geteuid() == 0 else os.geteuid()
    name = b"1htpzqqd7xhat00k7pb"
    envelope = Envelope(b"", (Recipient(b"a@b"),))
    user = _as_user(uid) if os.geteuid() == 0 else contextlib.nullcontext()
    with contextlib.chdir(queued.home), user, QueueClient() as client:
        accepted = [client.begin(name=name).commit(envelope) for _ in range(2)]
    assert accepted == [(name, False), (name, True)]
    assert queued.message(name).startswith(b"Received: (qm-queue invoked for bounce)\n  id " + name + b"; ")
