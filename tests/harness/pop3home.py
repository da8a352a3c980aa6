"""A home for popup, checkpassword and pop3d: one mailbox, a scripted userd, no other part of the suite."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = ROOT / "bin"
ROOT_USER = os.geteuid() == 0
ALICE, SPEAKER = (60101, 60102) if ROOT_USER else (os.geteuid(), os.geteuid())
LIMIT_S = 20
TEXT = b"Subject: hello\n\n.dot\nlast line\n"
WIRE = TEXT.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
NAME = "1700000000.Q000000000000000000R0L0.h,S=31,W=35"


def command(name: str) -> list[str]:
    """How a program of ours is run for a test, or one of the machine's."""
    path = BIN / name
    return ["/usr/bin/python3", "-bb", "-IS", str(path)] if path.exists() else [name]


class Client:
    """The network's side of a program: what it says, what we say."""

    def __init__(self, end: socket.socket, inode: int) -> None:
        self.socket = end
        self.inode = inode  # of the other end
        end.settimeout(LIMIT_S)
        self._file = end.makefile("rb")

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        return self._file.readline()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def ask(self, command: bytes) -> bytes:
        self.say(command + b"\r\n")
        return self.line()

    def rest(self) -> bytes:
        return self._file.read()

    def text(self) -> bytes:
        """The lines of a multi-line reply, with the end."""
        lines = []
        while not lines or lines[-1] not in (b".\r\n", b""):
            lines.append(self.line())
        return b"".join(lines)


class Home:
    """A private home with one mailbox, alice's, and a userd that knows her."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.maildir = path / "home/alice/Maildir"
        for name in ("control", "users", "home/alice/Maildir/tmp", "home/alice/Maildir/new", "home/alice/Maildir/cur"):
            (path / name).mkdir(parents=True)
        self.control("me", "mx.example")
        self.control("authfaildelay", "0")
        self.control("roles", f"qmailp:{SPEAKER}:{SPEAKER}")
        self.deliver(NAME)
        for folder, _, _ in os.walk(path / "home/alice"):
            os.chown(folder, ALICE, ALICE if ROOT_USER else -1)
        self.started: list[subprocess.Popen[bytes]] = []
        self.clients: list[Client] = []
        self._log = (path / "log").open("ab")

    def control(self, name: str, value: str) -> None:
        (self.path / "control" / name).write_text(value + "\n")

    def deliver(self, name: str, text: bytes = TEXT) -> None:
        path = self.maildir / "new" / name
        path.write_bytes(text)
        os.chown(path, ALICE, -1)

    def messages(self) -> list[str]:
        return sorted(f"{d}/{name}" for d in ("new", "cur") for name in os.listdir(self.maildir / d))

    def log(self) -> str:
        return (self.path / "log").read_text()

    def env(self, **more: str) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "QMHOME": str(self.path), "TCPREMOTEIP": "192.0.2.7", **more}

    def userd(self) -> None:
        gid = ALICE if ROOT_USER else os.getegid()
        script = [sys.executable, str(ROOT / "tests/harness/scripted_userd.py")]
        table = [f"alice:secret:{ALICE}:{gid}:{self.path}/home/alice", "later:later:1:1:/", "root:secret:0:0:/"]
        table.append(f"homeless:secret:{ALICE}:{gid}:{self.path}/nowhere")
        server = subprocess.Popen([*script, *table], cwd=self.path, stdout=subprocess.PIPE, process_group=0)
        self.started.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        self.questions = server.stdout

    def start(self, *argv: str, **env: str) -> tuple[Client, subprocess.Popen[bytes]]:
        """A program of ours with one end of a socket pair as its network."""
        ours, theirs = socket.socketpair()
        program = subprocess.Popen(
            [*command(argv[0]), *argv[1:]],
            cwd=self.path,
            env=self.env(**env),
            stdin=theirs,
            stdout=theirs,
            stderr=self._log,
        )
        inode = os.fstat(theirs.fileno()).st_ino
        theirs.close()
        self.started.append(program)
        self.clients.append(Client(ours, inode))
        return self.clients[-1], program

    def traced(self, *options: str) -> tuple[Client, subprocess.Popen[bytes]]:
        """popup and what it runs, under strace with *options*."""
        popup = (*command("qm-popup"), "mx.example", "checkpassword", "qm-pop3d", "Maildir")
        return self.start("strace", "-f", *options, *popup)

    def popup(self, **env: str) -> tuple[Client, subprocess.Popen[bytes]]:
        return self.start("qm-popup", "mx.example", "checkpassword", "qm-pop3d", "Maildir", **env)

    def listen(self) -> tuple[int, subprocess.Popen[bytes]]:
        """tcpserver with one worker before popup; its port."""
        reader, writer = os.pipe()
        popup = ("qm-popup", "mx.example", "checkpassword", "qm-pop3d", "Maildir")
        argv = [*command("tcpserver"), "-1HR", "-l0", "-c1", "127.0.0.1", "0", *popup]
        server = subprocess.Popen(argv, cwd=self.path, env=self.env(), stdout=writer, stderr=self._log)
        self.started.append(server)
        os.close(writer)
        with os.fdopen(reader) as said:
            return int(said.readline()), server

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for program in self.started:
            if program.poll() is None:
                program.kill()
            program.wait()
            if program.stdout is not None:
                program.stdout.close()
        self._log.close()


@contextmanager
def pop3_home() -> Iterator[Home]:
    """Not below pytest's directory, which only its owner can search."""
    path = Path(tempfile.mkdtemp(prefix="qm-pop3-"))
    path.chmod(0o755)
    made = Home(path)
    made.userd()
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(path)
