"""rc: start and stop a home's mail system (the script rc in the home runs it).

Usage:   qm-rc start|stop|restart|reload|status|run
Reads:   run/status, run/lock; status: services, control/me, certificates, and how many files are in
         queue/{new,cur,bad}
Env:     QMHOME, NOTIFY_SOCKET (run: a service manager's)
Writes:  fd 1 (what it did); signals qm-supervise
As:      root, or the owner of a private system
Exits:   as the LSB says: 0 done, or running; 1 failed, or a service is down; 2 usage; 3 status: not running; 4 not
         permitted; 7 reload: not running
See:     qm-rc(8), qm-supervise(8)

start comes back when every service serves.  What it leaves running holds neither its terminal nor its descriptors, nor
its environment.
run stays in the foreground, for systemd and containers.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from signal import SIGHUP, SIGTERM
from typing import Final, NoReturn

from qm import errors
from qm.supervise import LOCK, SERVICES, SERVICES_MAX, STOP_S, numbers, policy, status
from qm.unix import chain, owner, privs, program
from qm.unix.program import Argv, Env

START_S: Final = 30.0  # services that do not serve by then have failed
_KEPT: Final = (b"QMCOLD", b"TZ", b"LANG")
_USAGE: Final = "usage: rc start|stop|restart|reload|status|run"
FAILED, USAGE, NOT_RUNNING, NOT_PERMITTED, NOT_RUNNING_RELOAD = 1, 2, 3, 4, 7


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _clean_env(env: Env) -> Env:
    """Everything down to users' programs inherits this (qmail.md section 8)."""
    kept = {key: value for key, value in env.items() if key in _KEPT}
    path = os.fsencode(chain.BIN) + b":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, b"PATH": path, b"QMHOME": os.getcwdb()}


def _supervise(env: Env) -> NoReturn:
    chain.execute([os.fsencode(os.path.join(chain.BIN, "qm-supervise"))], env)


def _run(env: Env) -> int:
    manager = {key: value for key, value in env.items() if key == b"NOTIFY_SOCKET"}
    _supervise({**_clean_env(env), **manager})


def _daemonise(env: Env, writer: int) -> NoReturn:
    """In a forked child: leave all that is our caller's, and become the supervisor that tells *writer* how it goes."""
    from daemon import DaemonContext  # only start needs it

    try:
        with open(writer, "wb", closefd=False) as stderr:
            DaemonContext(working_directory=os.getcwd(), umask=0o022, files_preserve=[writer], stderr=stderr).open()
        os.set_inheritable(writer, True)
        _supervise({**_clean_env(env), b"QMREADY": b"%d" % writer})
    finally:
        os._exit(FAILED)


def _lines(reader: int, until_s: float) -> Iterator[str]:
    """Lines of *reader* as they come; ends at its end, or at *until_s* of the monotonic clock."""
    rest = b""
    while select.select([reader], [], [], max(0.0, until_s - time.monotonic()))[0]:
        data = os.read(reader, 4096)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")


def _hear(reader: int) -> int:
    """Say what the supervisor tells until all serve; the exit code."""
    failed = False
    until_s = time.monotonic() + START_S
    for line in _lines(reader, until_s):
        word, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if word == "all":
            return 0
        if word == "ready":
            _say(f"{name}: ready" + (f", port {text}" if text else ""))
        elif word == "died":
            failed = True
            _say(f"{name}: does not start, exit code {text}; log/current says why; it is tried again until rc stop")
            break
        else:
            _say(line)  # what the supervisor itself has to say
            failed = True
    if not failed and time.monotonic() < until_s:
        _say("the supervisor has ended; log/current says why")
    elif not failed:
        _say(f"not every service serves after {START_S:.0f} s; rc status tells which")
    return FAILED


def _start(env: Env) -> int:
    running = owner.find(LOCK)
    if running is not None:
        _say(f"already running, pid {running.pid}")
        return 0
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _daemonise(env, writer)
    os.close(writer)
    os.waitpid(child, 0)
    return _hear(reader)


def _stop(env: Env) -> int:
    running = owner.find(LOCK)
    if running is None:
        _say("not running")
        return 0
    running.signal(SIGTERM)
    if not running.wait(STOP_S):
        _say(f"pid {running.pid} has not stopped after {STOP_S:.0f} s")
        return FAILED
    _say("stopped")
    return 0


def _restart(env: Env) -> int:
    return _stop(env) or _start(env)


def _reload(env: Env) -> int:
    running = owner.find(LOCK)
    if running is None:
        _say("not running")
        return NOT_RUNNING_RELOAD
    running.signal(SIGHUP)
    _say("told to read its control files again")
    return 0


def _status(env: Env) -> int:
    running = owner.find(LOCK)
    if running is None:
        _say("not running")
        return NOT_RUNNING
    rows = status.read()
    if not rows:
        _say("starting")
    limits = _limits()
    for row in rows:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(row.since_s))
        who = f"pid {row.pid} as {_user(row.pid)}" if row.pid else "no process"
        port = f", port {row.text}" if row.text else ""
        _say(f"{row.name:<10} {row.state:<8} since {since}, {who}{port}{_busy(row, limits)}")
    waiting = numbers.queue()
    if waiting:
        _say(f"queue: {waiting}")
    for line in numbers.certificates(_host(), datetime.now(UTC)):
        _say(line)
    return 0 if rows and all(row.state == "up" for row in rows) else FAILED


def _host() -> str:
    """What control/me says; whoever may not read it is told of no certificate either."""
    try:
        with open("control/me", encoding="ascii", errors="replace") as file:
            return file.readline(256).strip()
    except OSError:
        return "this host"


def _limits() -> dict[str, int]:
    """The connections that each service may have; none known where the services file cannot be read now."""
    try:
        with open(SERVICES, "rb") as file:
            return {service.name: numbers.limit(service.argv) for service in policy.parse(file.read(SERVICES_MAX))}
    except (OSError, errors.QmError):
        return {}


def _busy(row: status.Row, limits: dict[str, int]) -> str:
    """Its connections, if it is one that takes some."""
    if not (limits.get(row.name) and row.pid and row.text.isdecimal()):
        return ""
    return f", {numbers.connections(int(row.text))} of {limits[row.name]} connections"


def _user(pid: int) -> str:
    try:
        return privs.account(os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return "nobody any more"


_COMMANDS: Final[dict[bytes, Callable[[Env], int]]] = {
    b"start": _start,
    b"stop": _stop,
    b"restart": _restart,
    b"reload": _reload,
    b"status": _status,
    b"run": _run,
}


def _open_standard_descriptors() -> None:
    """Who runs us without a descriptor 0, 1 or 2 shall not get a pipe of ours there."""
    while (fd := os.open("/dev/null", os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))


@program.program()
def main(argv: Argv, env: Env) -> int:
    _open_standard_descriptors()
    command = _COMMANDS.get(argv[1]) if len(argv) == 2 else None
    if command is None:
        _say(_USAGE)
        return USAGE
    try:
        return command(env)
    except PermissionError as error:
        _say(f"not permitted: {error.strerror}")
        return NOT_PERMITTED
