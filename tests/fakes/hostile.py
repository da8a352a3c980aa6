"""What somebody tries who has taken a process of the suite over; each try says whether it worked, and undoes it.

test_hostile.py has processes of the running suite do this in a child of their own.  A program of a .qmail file runs
it as a script: hostile.py PLAN RESULT, two paths of JSON files.  The plan has the home, the other processes, and so on.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final

PLAN: dict[str, Any] = {}
TRY_S: Final = 8  # one try
CROWD: Final = 450  # connections to one door: more than either has for one user
LIBC: Final = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_DETACH, CLONE_NEWUSER, CLONE_NEWNS = 0x4206, 17, 0x10000000, 0x00020000
TRIES: dict[str, Callable[[], object]] = {}
MESSAGE: Final = b"Subject: hostile\n\nbody\n"


class Refused(Exception):
    """The answer was no."""


def path(name: str) -> str:
    return os.path.join(PLAN["home"], name)


def attempt(name: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Mark what does *name*: it gives something true if that worked, or raises."""

    def put(function: Callable[[], object]) -> Callable[[], object]:
        TRIES[name] = function
        return function

    return put


def files(name: str, paths: list[str], flags: int) -> None:
    """A try: open one of *paths*, each a file or a directory that stands for the files in it."""

    def act() -> bool:
        return any(opens(path(each), flags) for each in paths)

    TRIES[name] = act


def opens(where: str, flags: int) -> bool:
    try:
        if os.path.isdir(where) and not flags & os.O_DIRECTORY:
            return any(opens(os.path.join(where, name), flags) for name in os.listdir(where))
        os.close(os.open(where, flags | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def makes(name: str, folders: list[str]) -> None:
    """A try: make a file in one of *folders*; who can may remove and replace what is there, too."""

    def act() -> bool:
        return any(can_make(path(folder)) for folder in folders)

    TRIES[name] = act


def can_make(folder: str) -> bool:
    new = os.path.join(folder, f".hostile{os.getpid()}")
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(new)
    except OSError:
        return False
    return True


# files

READ, WRITE = os.O_RDONLY, os.O_WRONLY
files("read /etc/shadow", ["/etc/shadow"], READ)
files("read the stored passwords", ["users/passwd", "users/passwd.cdb"], READ)
files("read the server's key", ["control/servercert.pem"], READ)
files("read our passwords at relays", ["control/smtpauth"], READ)
files("read ann's mail", ["home/ann/Maildir/new", "home/ann/Maildir/cur"], READ)
files("read fay's mail", ["home/fay/Maildir/new", "home/fay/Maildir/cur"], READ)
files("read fay's .qmail", ["home/fay/.qmail"], READ)
files(
    "read messages in the queue",
    ["queue/cur", "queue/new", "queue/tmp", "queue/held", "queue/import", "queue/bad"],
    READ,
)
files("read who has got a message", ["queue/state"], READ)
files("read the log", ["log"], READ)
files("change an accepted message", ["queue/cur", "queue/new"], WRITE)
files("change who has got a message", ["queue/state"], WRITE)
files("wake send", ["queue/trigger"], WRITE)
files("take the queue's lock", ["queue/lock"], WRITE)
files("change the log", ["log"], WRITE)
files("change a control file", ["control"], WRITE)
files("change users or passwords", ["users/assign", "users/cdb", "users/passwd", "users/passwd.cdb"], WRITE)
files("change what is run", ["services", "rc", "run/lock", "run/status"], WRITE)
files("change an alias", ["alias/.qmail-root", "alias/.qmail-list"], WRITE)
files("change ann's mail", ["home/ann/Maildir/new", "home/ann/Maildir/cur"], WRITE)
files("change fay's .qmail", ["home/fay/.qmail"], WRITE)
files("change /etc/passwd", ["/etc/passwd", "/etc/shadow", "/etc/group"], WRITE)
files("write to the kernel", ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/dev/mem", "/dev/kmsg"], WRITE)
makes(
    "make and remove messages of the queue",
    ["queue/tmp", "queue/new", "queue/cur", "queue/state", "queue/held", "queue/import", "queue/bad"],
)
makes("replace the queue's socket", ["queue"])
makes("replace userd's or rspawn's socket", ["users", "run"])
makes("replace tlsd's socket", ["tls"])
makes("leave an MTA-STS policy", ["sts"])
makes("make and remove log files", ["log"])
makes("make and remove control files", [".", "control"])
makes("make an alias", ["alias"])
makes("put mail into ann's Maildir", ["home/ann/Maildir/new", "home/ann/Maildir", "home/ann"])
makes("put mail into fay's Maildir", ["home/fay/Maildir/new", "home/fay/Maildir", "home/fay"])


@attempt("change the programs")
def _programs() -> bool:
    return any(can_make(os.path.join(PLAN["root"], name)) for name in ("qm", "bin", "."))


@attempt("read what others say to the log")
def _log_pipe() -> bool:
    if os.readlink("/proc/self/fd/2") != PLAN["log"]:
        return False
    os.close(os.open("/proc/self/fd/2", os.O_RDONLY | os.O_NONBLOCK))
    return True


@attempt("change the message in hand")
def _message() -> bool:
    for name in os.listdir("/proc/self/fd"):
        where = f"/proc/self/fd/{name}"
        try:
            target = os.readlink(where)
            if target.startswith("/memfd:") or "/queue/tmp/" in target:
                fd = os.open(where, os.O_RDWR)
                os.pwrite(fd, b"X", 0)
                return True
        except OSError:
            continue
    return False


# who one is


@attempt("become root")
def _root() -> bool:
    for change in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.seteuid(0)):
        try:
            change()
        except OSError:
            continue
        return True
    return False


@attempt("become another user, or join a group")
def _other() -> bool:
    uid = 64999
    changes: tuple[Callable[[], object], ...] = (
        *(lambda: os.setuid(uid), lambda: os.setgid(0), lambda: os.setgroups([0])),
        *(lambda: os.setgroups([]), lambda: os.setresgid(uid, uid, uid)),
    )
    return any(not fails(change) for change in changes)


def fails(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError:
        return True
    return False


@attempt("have a capability")
def _capability() -> bool:
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    wanted = struct.pack("=6I", *(2**32 - 1,) * 4, 0, 0)
    return LIBC.capset(header, wanted) == 0


@attempt("be root by a set-user-ID program")
def _set_user_id() -> bool:
    said = subprocess.run([PLAN["set_user_id"], "-u"], stdout=subprocess.PIPE, check=False)
    return said.stdout == b"0\n"


@attempt("gain by an exec again")
def _regain() -> bool:
    return LIBC.prctl(39, 0, 0, 0, 0) == 1 and LIBC.prctl(38, 0, 0, 0, 0) == 0


@attempt("as root of a namespace of its own, read or mount what is others'")
def _namespace() -> bool:
    if LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        return False
    return opens("/etc/shadow", READ) or opens(path("users/passwd"), READ) or opens(path("control/me"), WRITE)


@attempt("mount, change root, make a device")
def _system() -> bool:
    node = path("home/hostile")
    return (
        LIBC.mount(b"none", PLAN["home"].encode(), b"tmpfs", 0, None) == 0
        or not fails(lambda: os.chroot(PLAN["home"]))
        or not fails(lambda: os.mknod(node, 0o020666, os.makedev(1, 1)))
    )


@attempt("raise its limits")
def _limits() -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return not fails(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1))) or not fails(
        lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)
    )


# other processes


def on_others(name: str, act: Callable[[int], object]) -> None:
    """A try on each other process; gives whose it worked on."""

    def all_of_them() -> list[int]:
        return [pid for pid in PLAN["victims"] if not fails(partial(act, pid))]

    TRIES[name] = all_of_them


def trace(pid: int) -> None:
    if LIBC.ptrace(PTRACE_SEIZE, pid, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    LIBC.ptrace(PTRACE_DETACH, pid, None, None)


def take_descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    with closing(os.fdopen(pidfd, "rb", closefd=True)):
        if LIBC.syscall(438, pidfd, 2, 0) < 0:  # pidfd_getfd
            raise OSError(ctypes.get_errno(), "pidfd_getfd")


on_others("trace", trace)
on_others("write into the memory of", lambda pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)))
on_others("take descriptors of", take_descriptor)
on_others("see the descriptors of", lambda pid: os.listdir(f"/proc/{pid}/fd"))
on_others("read the environment of", lambda pid: os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY)))
on_others("signal", lambda pid: os.kill(pid, 0))
on_others("change the limits of", lambda pid: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)))


# sockets


def envelope() -> Any:
    from qm.wire.envelope import Envelope, Recipient

    return Envelope(b"", (Recipient(PLAN["sink"].encode()),), client=b"192.0.2.1", protocol=b"ESMTP")


@attempt("put a message into the queue")
def _put() -> bool:
    return submit()


def submit(**more: Any) -> bool:
    from qm.unix.queueclient import QueueClient

    with QueueClient(path("queue/socket"), TRY_S / 2) as queue:
        submission = queue.begin(**more)
        submission.write(MESSAGE)
        return bool(submission.commit(envelope()).name)


@attempt("say where a message came from")
def _trace() -> bool:
    from qm.unix.queueclient import Trace

    submit(trace=Trace(b"Received: from hostile by %s" % PLAN["mark"].encode(), b""))
    return False  # the test looks at what arrives


@attempt("choose a message's ID")
def _name() -> bool:
    from qm.wire import queueid

    return submit(name=queueid.make(time.time_ns(), os.getpid()) + b"b")


def ask_userd(question: str, *fields: object) -> Any:
    from qm.unix.userclient import UserClient

    client = UserClient(path("users/socket"), TRY_S / 2)
    try:
        return getattr(client, question)(*fields)
    finally:
        client.close()


@attempt("ask userd for a mailbox")
def _mailbox() -> bool:
    return ask_userd("exists", PLAN["sink"].encode()).verdict.name == "YES"


@attempt("ask userd whether a password is right")
def _password() -> bool:
    from qm.wire.userquery import AskLogin, Method

    return bool(ask_userd("answer", AskLogin(Method.PASSWORD, b"ann", b"guess", b"", b"")).why)


@attempt("ask rspawn about addresses")
def _silent() -> bool:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as channel:
        channel.settimeout(TRY_S / 2)
        channel.connect(path("run/rspawn"))
    return True


@attempt("connect to a TCP service")
def _tcp() -> bool:
    socket.create_connection(("127.0.0.1", PLAN["port"]), TRY_S / 2).close()
    return True


@attempt("write a line into the log")
def _log() -> bool:
    where = os.readlink("/proc/self/fd/2")
    return where == PLAN["log"] and os.write(2, b"hostile: a line\n") > 0


@attempt("lock the Maildir of another")
def _lock() -> bool:
    with open(path("home/fay/Maildir/new"), "rb") as folder:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


# the run


@contextmanager
def limited() -> Iterator[None]:
    def late(signum: int, frame: object) -> None:
        raise TimeoutError("late")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(TRY_S)
    try:
        yield
    finally:
        signal.alarm(0)


def try_one(act: Callable[[], object]) -> object:
    """In a child, so that what one try changes is not there for the next."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        found: object = False
        try:
            with limited():
                found = act()
        except BaseException as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        finally:
            os.write(writer, json.dumps(found).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read(65536)
    os.waitpid(pid, 0)
    return json.loads(text or b'{"error": "died"}')


def read_plan(plan: str) -> None:
    """Wait until the test lets go of the plan, and take it."""
    with open(plan, encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        PLAN.update(json.load(file))


def run(plan: str, result: str) -> None:
    read_plan(plan)
    sys.path[:0] = PLAN["path"]
    PLAN["mark"] = os.path.basename(result)
    found = {name: try_one(act) for name, act in TRIES.items()}
    with open(result, "w", encoding="utf-8") as file:
        json.dump(found, file)


def crowd(plan: str, result: str) -> None:
    """Hold as many connections to our doors as we get, until killed."""
    read_plan(plan)
    held = []
    for name in ("queue/socket", "users/socket"):
        for _ in range(CROWD):
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel.settimeout(1)
            if fails(partial(channel.connect, path(name))):
                break
            held.append(channel)
    with open(result, "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "held": len(held)}, file)
    signal.pause()


def begin(act: str, plan: str, result: str) -> None:
    """In a process that has been made to call this: do *act* in a child that is nobody's to wait for."""
    pid = os.fork()
    if pid == 0:
        try:
            if os.fork() == 0:
                {"run": run, "crowd": crowd}[act](plan, result)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
