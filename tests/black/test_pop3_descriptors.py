"""popup, checkpassword and pop3d as real programs on a pair of descriptors, in a home of their own; no tcpserver."""

import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.pop3home import (
    ALICE,
    LIMIT_S,
    NAME,
    ROOT,
    ROOT_USER,
    SPEAKER,
    WIRE,
    Client,
    Home,
    command,
    pop3_home,
)


@pytest.fixture
def home() -> Iterator[Home]:
    with pop3_home() as made:
        yield made


def _others_can_read(path: Path) -> bool:
    return all(part.stat().st_mode & 0o005 == 0o005 for part in (path, *path.parents))


cold = pytest.param(
    {"QMCOLD": "1"},
    id="cold",
    marks=pytest.mark.skipif(ROOT_USER and not _others_can_read(ROOT), reason="other users cannot read the checkout"),
)
both_ways = pytest.mark.parametrize("way", [pytest.param({}, id="warm"), cold])


def _log_in(client: Client) -> None:
    assert client.line().startswith(b"+OK")
    assert client.ask(b"USER alice") == b"+OK\r\n"
    assert client.ask(b"PASS secret") == b"+OK 1 messages\r\n"


@both_ways
def test_a_session(home: Home, way: dict[str, str]) -> None:
    """Log in, read, remove, quit: the message is sent exactly, then gone; called in one process or exec'd."""
    client, program = home.popup(**way)
    _log_in(client)
    assert client.ask(b"STAT") == b"+OK 1 35\r\n"
    assert client.ask(b"RETR 1") == b"+OK\r\n"
    assert client.text() == WIRE + b".\r\n"
    assert client.ask(b"DELE 1") == b"+OK\r\n"
    assert home.messages() == [f"new/{NAME}"]
    assert client.ask(b"QUIT") == b"+OK goodbye\r\n"
    assert home.messages() == []
    assert client.rest() == b""
    assert program.wait(LIMIT_S) == 0


SESSION = b"USER alice\r\nPASS secret\r\nSTAT\r\nUIDL 1\r\nRETR 1\r\nQUIT\r\n"
ANSWERS = (
    b"+OK mx.example\r\n+OK\r\n+OK 1 messages\r\n+OK 1 35\r\n+OK 1 1700000000.Q000000000000000000R0L0.h\r\n+OK\r\n"
    + WIRE
    + b".\r\n+OK goodbye\r\n"
)


@both_ways
def test_everything_at_once(home: Home, way: dict[str, str]) -> None:
    """What a client sends behind its password, in the same segment, is not lost."""
    client, program = home.popup(**way)
    client.say(SESSION)
    assert client.rest() == ANSWERS
    assert program.wait(LIMIT_S) == 0
    assert home.messages() == [f"cur/{NAME}:2,"]


def test_byte_by_byte(home: Home) -> None:
    """A client that sends each byte alone gets the same."""
    client, _ = home.popup()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for byte in SESSION:
        client.say(bytes([byte]))
    assert client.rest() == ANSWERS


@both_ways
def test_pipes(home: Home, way: dict[str, str]) -> None:
    """Descriptors that are no sockets do as well."""
    argv = [*command("qm-popup"), "mx.example", "checkpassword", "qm-pop3d", "Maildir"]
    done = subprocess.run(argv, env=home.env(**way), input=SESSION, capture_output=True, timeout=LIMIT_S, check=False)
    assert done.stdout == ANSWERS
    assert done.returncode == 0


def test_apop(home: Home) -> None:
    """With control/pop3apop the greeting has a banner, and a digest over it logs in."""
    home.control("pop3apop", "1")
    client, _ = home.popup()
    banner = client.line().split()[1]
    assert banner.startswith(b"<")
    assert banner.endswith(b"@mx.example>")
    digest = hashlib.md5(banner + b"secret").hexdigest().encode()  # noqa: S324
    assert client.ask(b"APOP alice " + digest) == b"+OK 1 messages\r\n"
    assert home.questions.readline() == b"login alice digest\n"


def test_a_password_that_looks_like_a_digest(home: Home) -> None:
    """A password of 32 hex digits is asked for as the password that it is."""
    home.control("pop3apop", "1")
    client, _ = home.popup()
    client.line()
    client.ask(b"USER alice")
    assert client.ask(b"PASS " + b"0" * 32).startswith(b"-ERR [AUTH]")
    assert home.questions.readline() == b"login alice password\n"
    client.ask(b"QUIT")
    client.rest()


def test_another_try(home: Home) -> None:
    """A refused login says [AUTH] (RFC 3206), is logged with name and address but no password, and may be repeated."""
    client, _ = home.popup()
    client.line()
    client.ask(b"USER alice")
    assert client.ask(b"PASS not-the-password") == b"-ERR [AUTH] login refused\r\n"
    assert client.ask(b"USER alice") == b"+OK\r\n"
    assert client.ask(b"PASS secret") == b"+OK 1 messages\r\n"
    assert client.ask(b"QUIT") == b"+OK goodbye\r\n"
    client.rest()
    log = home.log()
    assert "login alice from 192.0.2.7: login refused" in log
    assert f"login alice from 192.0.2.7: ok, uid {ALICE}" in log
    assert "secret" not in log
    assert "not-the-password" not in log


def test_not_for_ever(home: Home) -> None:
    """After control/maxlogins refusals the connection is closed, and the exit code tells."""
    home.control("maxlogins", "2")
    client, program = home.popup()
    client.say(b"USER alice\r\nPASS wrong\r\nUSER bob\r\nPASS secret\r\nUSER alice\r\nPASS secret\r\n")
    assert (
        client.rest() == b"+OK mx.example\r\n+OK\r\n-ERR [AUTH] login refused\r\n+OK\r\n-ERR [AUTH] login refused\r\n"
    )
    assert program.wait(LIMIT_S) == 1


@both_ways
@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"USER alice\r\nPASS secret\r\nQUIT\r\n", 0),
        (b"QUIT\r\n", 0),
        (b"", 0),
        (b"USER alice\r\nPASS wrong\r\nQUIT\r\n", 1),
    ],
)
def test_exit_codes(home: Home, way: dict[str, str], said: bytes, code: int) -> None:
    """popup exits with 0 for a peer who leaves, or whose session ends well, with 1 if a login of his was refused."""
    client, popup = home.popup(**way)
    client.say(said)
    client.socket.shutdown(socket.SHUT_WR)
    client.rest()
    assert popup.wait(LIMIT_S) == code


@pytest.mark.parametrize(("way", "code"), [({}, 7), pytest.param({"QMCOLD": "1"}, 1, marks=cold.marks)])
def test_a_session_that_fails(home: Home, way: dict[str, str], code: int) -> None:
    """It exits with what the session does; after an exec that may have been checkpassword's word, which is 1."""
    client, popup = home.start("qm-popup", "mx.example", "checkpassword", "sh", "-c", "exit 7", **way)
    client.say(b"USER alice\r\nPASS secret\r\n")
    client.rest()
    assert popup.wait(LIMIT_S) == code


def test_it_cannot_serve(home: Home) -> None:
    """With a control file that is broken at the start popup exits with 111."""
    home.control("maxlogins", "many")
    client, popup = home.popup()
    assert client.rest() == b""
    assert popup.wait(LIMIT_S) == 111


def test_a_refusal_takes_its_time(home: Home) -> None:
    """The answer to a refused login waits as long as userd says."""
    client, _ = home.popup()
    client.line()
    client.ask(b"USER slow")
    before_s = time.monotonic()
    assert client.ask(b"PASS wrong").startswith(b"-ERR [AUTH]")
    assert time.monotonic() - before_s >= 1


@both_ways
def test_nobody_can_tell(home: Home, way: dict[str, str]) -> None:
    """When the password cannot be checked now, that is what the client hears, not that it is wrong."""
    client, _ = home.popup(**way)
    client.line()
    client.ask(b"USER later")
    assert client.ask(b"PASS x").startswith(b"-ERR [SYS/TEMP]")
    client.socket.close()
    home.started[0].kill()
    home.started[0].wait()
    client, _ = home.popup(**way)
    client.line()
    client.ask(b"USER alice")
    assert client.ask(b"PASS secret").startswith(b"-ERR [SYS/TEMP]")


def test_nobody_is_root(home: Home) -> None:
    """A userd that lets uid 0 in is not believed."""
    client, _ = home.popup()
    client.line()
    client.ask(b"USER root")
    assert client.ask(b"PASS secret").startswith(b"-ERR [SYS/TEMP]")


def test_a_home_that_is_missing(home: Home) -> None:
    """A right password for a home that cannot be entered is not called wrong: it is our trouble."""
    client, program = home.popup()
    client.line()
    client.ask(b"USER homeless")
    assert client.ask(b"PASS secret").startswith(b"-ERR [SYS/TEMP]")
    client.say(b"QUIT\r\n")
    assert client.rest() == b"+OK goodbye\r\n"
    assert program.wait(LIMIT_S) == 1


def test_a_mailbox_that_is_missing(home: Home) -> None:
    """A user without a Maildir is told so after login."""
    shutil.rmtree(home.maildir)
    client, _ = home.popup()
    client.line()
    client.ask(b"USER alice")
    assert client.ask(b"PASS secret").startswith(b"-ERR [SYS/PERM] there is no mailbox")
    assert client.rest() == b""


def _status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def _has_only(pid: int, number: int) -> None:
    """The process is of that uid, gid and group, and cannot be more."""
    status = _status(pid)
    assert (status["Uid"], status["Gid"], status["Groups"]) == ([str(number)] * 4, [str(number)] * 4, [str(number)])
    assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0


def _open_files(pid: int) -> dict[int, str]:
    return {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.needs_root
def test_who_reads_is_not_root(home: Home) -> None:
    """Before login a process of qmailp has the peer, after it one of the user; neither has a capability left."""
    client, program = home.popup()
    client.line()
    (speaker,) = _children(program.pid)
    _has_only(speaker, SPEAKER)
    client.ask(b"USER alice")
    assert client.ask(b"PASS secret").startswith(b"+OK")
    (user,) = set(_children(program.pid)) - {speaker}
    _has_only(user, ALICE)
    # the speaker has let go of the connection, and the user's process has nothing else
    assert all("socket" not in _open_files(speaker)[fd] for fd in (0, 1, 2))
    assert len([path for path in _open_files(speaker).values() if "socket" in path]) == 1
    assert len({path for path in _open_files(user).values() if "socket" in path}) == 1


@pytest.mark.needs_root
@pytest.mark.needs("strace")
def test_root_never_reads_from_the_network(home: Home) -> None:
    """A process that is root makes no system call that reads from the network, whatever the client sends."""
    trace = home.path / "trace"
    trace.mkdir(mode=0o777)
    calls = "trace=read,readv,recvfrom,recvmsg,pread64,setresuid"
    client, program = home.traced("-ff", "-y", "-o", str(trace / "t"), "-e", calls)
    client.say(b"USER alice\r\nPASS wrong\r\n" + SESSION)
    assert client.rest().endswith(b"+OK goodbye\r\n")
    program.wait(LIMIT_S)
    reads = 0
    for file in trace.iterdir():
        root = True
        for line in file.read_text().splitlines():
            if line.startswith("setresuid("):
                root = False
            elif f"[{client.inode}]" in line.partition(",")[0]:
                reads += 1
                assert not root, line
    assert reads > 5


def test_one_session_at_a_time(home: Home) -> None:
    """The second session on a mailbox gets [IN-USE] (RFC 2449 8.1.1); when the first has ended it may have it."""
    first, _ = home.popup()
    _log_in(first)
    second, _ = home.popup()
    second.line()
    second.ask(b"USER alice")
    assert second.ask(b"PASS secret").startswith(b"-ERR [IN-USE] ")
    assert second.rest() == b""
    assert first.ask(b"QUIT").startswith(b"+OK")
    third, _ = home.popup()
    _log_in(third)


def test_other_programs_in_the_mailbox(home: Home) -> None:
    """A message that moves meanwhile is found, one that is removed is answered -ERR, and the session goes on."""
    home.deliver("1700000001.1.h")
    client, _ = home.popup()
    client.line()
    client.ask(b"USER alice")
    assert client.ask(b"PASS secret") == b"+OK 2 messages\r\n"
    os.rename(home.maildir / "new" / NAME, home.maildir / "cur" / f"{NAME}:2,S")
    os.unlink(home.maildir / "new/1700000001.1.h")
    assert client.ask(b"RETR 1") == b"+OK\r\n"
    assert client.text() == WIRE + b".\r\n"
    assert client.ask(b"RETR 2").startswith(b"-ERR ")
    assert client.ask(b"TOP 2 0").startswith(b"-ERR ")
    assert client.ask(b"DELE 2") == b"+OK\r\n"
    assert client.ask(b"QUIT") == b"+OK goodbye\r\n"
    assert home.messages() == [f"cur/{NAME}:2,S"]


def test_silence(home: Home) -> None:
    """A client that says nothing is left after the time-out, before login and after it, and nothing is removed."""
    client, program = home.popup(TIMEOUTPOP3D="1")
    client.line()
    assert client.rest() == b""
    assert program.wait(LIMIT_S) == 0
    client, program = home.popup(TIMEOUTPOP3D="1")
    _log_in(client)
    assert client.ask(b"DELE 1") == b"+OK\r\n"
    assert client.rest() == b""
    assert program.wait(LIMIT_S) == 0
    assert home.messages() == [f"new/{NAME}"]
    assert " how=timeout " in home.log()


def test_killed_before_quit(home: Home) -> None:
    """A process that is killed after DELE has removed nothing."""
    client, program = home.popup()
    _log_in(client)
    client.ask(b"DELE 1")
    program.kill()
    program.wait(LIMIT_S)
    assert home.messages() == [f"new/{NAME}"]


@pytest.mark.needs("strace")
@pytest.mark.parametrize("when", range(1, 4))
@pytest.mark.parametrize("call", ["unlink", "fsync", "rename"])
def test_killed_in_quit(home: Home, call: str, when: int) -> None:
    """Killed at any step of QUIT: what was to stay is there once, what was to go is gone only if it was to go."""
    for n in (1, 2, 3):
        home.deliver(f"170000000{n}.{n}.h")
    kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}")
    client, program = home.traced("-o", "/dev/null", *kill)
    client.say(b"USER alice\r\nPASS secret\r\nDELE 1\r\nDELE 3\r\nQUIT\r\n")
    try:
        acknowledged = client.rest().endswith(b"+OK goodbye\r\n")
    except ConnectionResetError:
        acknowledged = False
    program.wait(LIMIT_S)
    names = [path.split("/")[1].split(":")[0] for path in home.messages()]
    assert [name for name in names if name in ("1700000001.1.h", "1700000003.3.h")] == [
        "1700000001.1.h",
        "1700000003.3.h",
    ]
    left = [name for name in names if name in (NAME, "1700000002.2.h")]
    assert not acknowledged or not left


@pytest.mark.parametrize(
    ("failing", "answer"),
    [
        ("unlink:error=EACCES", b"-ERR [SYS/TEMP]"),
        ("unlink:error=EIO", b"-ERR [SYS/TEMP]"),
        ("fsync:error=EIO", b"-ERR [SYS/TEMP]"),
        ("rename:error=ENOSPC", b"+OK"),
        ("flock:error=ENOLCK", b"-ERR [SYS/TEMP]"),
    ],
)
@pytest.mark.needs("strace")
def test_a_failing_disk(home: Home, failing: str, answer: bytes) -> None:
    """What cannot be promised is not: the last answer of the session tells."""
    home.deliver("1700000005.5.h")
    client, _ = home.traced("-o", "/dev/null", "-e", f"trace={failing.split(':')[0]}", "-e", f"inject={failing}")
    client.say(b"USER alice\r\nPASS secret\r\nDELE 1\r\nQUIT\r\n")
    assert client.rest().splitlines()[-1].startswith(answer)
    assert "1700000005.5.h" in " ".join(home.messages())


def test_popup_dies(home: Home) -> None:
    """When popup is stopped, the process that talks for it goes too, at once."""
    client, program = home.popup()
    client.line()
    program.send_signal(signal.SIGTERM)
    assert client.rest() == b""
    program.wait(LIMIT_S)


def _from(home: Home, address: str, port: int) -> Client:
    connection = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
    home.clients.append(Client(connection, 0))
    return home.clients[-1]


def test_who_talks_is_kept_for_the_same_address(home: Home) -> None:
    """One worker's connections share the process that talks to the peer as long as they come from one address."""
    port, server = home.listen()
    speakers = []
    for address in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
        client = _from(home, address, port)
        assert client.line() == b"+OK mx.example\r\n"
        (worker,) = _children(server.pid)
        speakers += _children(worker)
        client.say(b"USER alice\r\nPASS secret\r\nQUIT\r\n")
        assert client.rest().endswith(b"+OK goodbye\r\n")
    first, second, third = speakers
    assert first == second != third
    server.terminate()
    assert server.wait(LIMIT_S) == 0


def test_stopped_in_a_session(home: Home) -> None:
    """When popup is stopped, the session that it started ends with it, and nothing is removed."""
    client, program = home.popup()
    _log_in(client)
    client.ask(b"DELE 1")
    program.send_signal(signal.SIGTERM)
    assert client.rest() == b""
    assert program.wait(LIMIT_S) == -signal.SIGTERM
    assert home.messages() == [f"new/{NAME}"]


def test_garbage_before_login(home: Home) -> None:
    """Who talks nonsense before login is answered and, after control/maxerrors, disconnected."""
    home.control("maxerrors", "3")
    client, program = home.popup()
    client.say(b"GET / HTTP/1.1\r\n\0\xff\r\n" + b"A" * 100_000 + b"\r\nCAPA\r\n")
    replies = client.rest().split(b"\r\n")
    assert [reply[:4] for reply in replies] == [b"+OK ", b"-ERR", b"-ERR", b"-ERR", b"-ERR", b""]
    assert program.wait(LIMIT_S) == 0


def test_an_endless_line_before_login(home: Home) -> None:
    """A line without end is thrown away while it comes, and ends the connection."""
    client, program = home.popup()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            client.say(b"A" * 65536)
    assert program.wait(LIMIT_S) == 0


def test_a_client_that_never_reads(home: Home) -> None:
    """Somebody who only sends costs a time-out, not memory."""
    home.deliver("1700000005.5.h", b"x" * 79 + b"\n" * 4_000_000)
    client, program = home.popup(TIMEOUTPOP3D="1")
    client.say(b"USER alice\r\nPASS secret\r\n" + b"RETR 2\r\n" * 10)
    assert program.wait(LIMIT_S) == 0
    assert " how=timeout " in home.log()


@pytest.mark.needs_root
def test_pop3d_refuses_root(home: Home) -> None:
    """pop3d does not serve as root."""
    client, program = home.start("qm-pop3d", str(home.maildir))
    assert client.rest() == b""
    assert program.wait(LIMIT_S) == 1
    assert "refusing to serve as root" in home.log()


# checkpassword by itself (qmail.md 16.5)


def _check(home: Home, record: bytes, *program: str) -> subprocess.CompletedProcess[bytes]:
    """checkpassword with *record* on descriptor 3."""
    (home.path / "record").write_bytes(record)
    argv = ["sh", "-c", 'exec "$0" "$@" 3<record', *command("checkpassword"), *program]
    return subprocess.run(argv, cwd=home.path, env=home.env(), capture_output=True, timeout=LIMIT_S, check=False)


def test_checkpassword_runs_a_program(home: Home) -> None:
    """After a right password prog runs as the user in his home, with USER, HOME, SHELL, and nothing on descriptor 3."""
    script = 'echo $USER $HOME $SHELL; id -u; pwd; [ -e /proc/self/fd/3 ] && echo "fd 3 is open"; exit 7'
    done = _check(home, b"alice\0secret\0\0", "sh", "-c", script)
    path = f"{home.path}/home/alice"
    assert done.stdout.decode().splitlines() == [f"alice {path} /bin/sh", str(ALICE), path]
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (b"alice\0wrong\0\0", 1),
        (b"nobody\0secret\0<1.2@h>\0", 1),
        (b"alice\0secret\0" + b"t" * 499 + b"\0", 1),  # 513 bytes
        (b"later\0x\0\0", 111),
        (b"root\0secret\0\0", 111),
        (b"alice\0secret", 2),
        (b"alice", 2),
        (b"", 2),
    ],
)
def test_checkpassword_exit_codes(home: Home, record: bytes, code: int) -> None:
    """1 refused, 2 misuse, 111 cannot tell; and the program does not run."""
    done = _check(home, record, "echo", "ran")
    assert (done.returncode, done.stdout) == (code, b"")


def test_checkpassword_takes_512_bytes(home: Home) -> None:
    """A record of 512 bytes is not too long."""
    done = _check(home, b"alice\0secret\0" + b"t" * 498 + b"\0", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, b"ran\n")


def test_checkpassword_without_a_program(home: Home) -> None:
    """No program is misuse."""
    assert _check(home, b"alice\0secret\0\0").returncode == 2


def test_checkpassword_whose_program_is_missing(home: Home) -> None:
    """A program that is not there is not the password's fault."""
    assert _check(home, b"alice\0secret\0\0", "/nowhere/at/all").returncode in (100, 111)


def test_checkpassword_for_a_strangers_popup(home: Home) -> None:
    """A digest with a timestamp, as qmail-popup gives it for APOP, is tried as a password first, then as a digest."""
    digest = hashlib.md5(b"<1.2@h>secret").hexdigest().encode()  # noqa: S324
    assert _check(home, b"alice\0" + digest + b"\0<1.2@h>\0", "true").returncode == 0
    assert [home.questions.readline() for _ in range(2)] == [b"login alice password\n", b"login alice digest\n"]
    assert _check(home, b"alice\0secret\0<1.2@h>\0", "true").returncode == 0


# a stranger's checkpassword behind our popup


def _stranger(home: Home, text: str) -> str:
    path = home.path / "stranger"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("code", "answer"), [(1, b"-ERR [AUTH] "), (2, b"-ERR [SYS/TEMP] "), (111, b"-ERR [SYS/TEMP] ")]
)
def test_a_stranger_refuses(home: Home, code: int, answer: bytes) -> None:
    """Exit codes of a checkpassword that is not ours get their answers, and there is no second try, as in qmail."""
    client, program = home.start("qm-popup", "mx.example", _stranger(home, f"exit {code}"), "x")
    client.line()
    client.say(b"USER alice\r\nPASS secret\r\nUSER alice\r\nPASS secret\r\n")
    assert client.rest().splitlines()[1].startswith(answer)
    assert program.wait(LIMIT_S) == 1
    assert "login alice from 192.0.2.7" in home.log()


def test_a_stranger_that_crashes(home: Home) -> None:
    """A checkpassword that is killed says nothing about the password."""
    client, _ = home.start("qm-popup", "mx.example", _stranger(home, "kill -9 $$"), "x")
    client.line()
    client.ask(b"USER alice")
    assert client.ask(b"PASS secret").startswith(b"-ERR [SYS/TEMP] ")


def test_a_stranger_serves(home: Home) -> None:
    """A checkpassword that is not ours gets the record on descriptor 3 and the network on 0 and 1."""
    script = 'tr "\\0" "|" <&3 >record; printf "+OK served\\r\\n"; read -r line; printf "+OK %s\\r\\n" "$line"; exit 0'
    client, program = home.start("qm-popup", "mx.example", _stranger(home, script), "x")
    client.line()
    client.ask(b"USER alice")
    assert client.ask(b"PASS a secret\r\nSTAT") == b"+OK served\r\n"
    assert client.rest() == b"+OK STAT\r\r\n"
    assert program.wait(LIMIT_S) == 0
    name, secret, banner, method = (home.path / "record").read_text().split("|")[:4]
    assert (name, secret, method) == ("alice", "a secret", "PASS")
    assert banner.startswith("<")


def test_nothing_to_read_is_not_waited_for(home: Home) -> None:
    """popup speaks first: the greeting comes without a word from the client."""
    client, _ = home.popup()
    assert select.select([client.socket], [], [], LIMIT_S)[0]
    assert client.line() == b"+OK mx.example\r\n"
