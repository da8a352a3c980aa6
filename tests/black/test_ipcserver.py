"""ipcserver: what its children get, who can connect, whose socket it is, and who may take it over."""

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.tcpserver import LAUNCH, PYTHON, IpcServer
from tests.harness.waiting import LIMIT_S

Serve = Callable[..., IpcServer]
NOBODY = 65534


@pytest.fixture
def serve(open_folder: Path) -> Iterator[Serve]:
    """Starts ipcservers at ``s/socket``; each that still runs must stop in order at the end."""
    servers: list[IpcServer] = []

    def start(*options: str, **settings: object) -> IpcServer:
        path = str(open_folder / "s/socket")
        servers.append(IpcServer(open_folder, *options, **{"host": path, **settings}))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    codes = [server.stop() for server in servers]
    assert set(codes) <= {0, -signal.SIGKILL}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One that is expected to end by itself."""
    return subprocess.run(
        [*PYTHON, LAUNCH, "ipcserver", *words], cwd=folder,
        env={"PATH": f"{folder}:/usr/bin:/bin", "QMHOME": str(folder)},
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("cold", [False, True])
def test_the_environment(serve: Serve, cold: bool) -> None:
    """The variables of UCSPI-IPC tell who the kernel says has connected; nothing of a TCP connection is left."""
    stale = dict.fromkeys(("TCPREMOTEIP", "TCPREMOTEHOST", "IPCREMOTEEUID", "PROTO"), "stale")
    server = serve(cold=cold, env={**stale, "KEPT": "yes"})
    env = server.report()["env"]
    assert {name: env[name] for name in env if name in ("KEPT", "PROTO") or "IPC" in name or "TCP" in name} == {
        "KEPT": "yes", "PROTO": "IPC", "IPCLOCALPATH": server.path, "IPCREMOTEPATH": "",
        "IPCREMOTEEUID": str(os.getuid()), "IPCREMOTEEGID": str(os.getgid()), "IPCREMOTEPID": str(os.getpid()),
    }  # fmt: skip


def test_the_peers_path(serve: Serve, open_folder: Path) -> None:
    """Its own end's name is told, whatever it is; an abstract one is not."""
    server = serve()
    name = str(open_folder / "a\nb=\x01")
    assert server.report(name)["env"]["IPCREMOTEPATH"].encode("latin-1") == os.fsencode(name)
    assert server.report(f"\0{os.getpid()}.qm-test")["env"]["IPCREMOTEPATH"] == ""


def test_the_log(serve: Serve) -> None:
    """With -v each connection is said, with uid, gid and pid of who has made it."""
    server = serve("-v")
    with server.connect("exit 3") as channel:
        assert channel.recv(1) == b""
    server.wait_for_log("ipcserver: end ")
    lines = [line.replace(str(os.getpid()), "MINE") for line in server.lines()]
    pid = lines[2].split()[2]
    assert lines == [
        "ipcserver: status: 0/40", "ipcserver: status: 1/40", f"ipcserver: pid {pid} from uid {os.getuid()}",
        f"ipcserver: ok {pid} {server.path} {os.getuid()}:{os.getgid()}:MINE", f"ipcserver: end {pid} status 768",
        "ipcserver: status: 0/40",
    ]  # fmt: skip


def test_limits(serve: Serve) -> None:
    """-C is for one user, and more of his connections are closed at once; -c is for all, and more wait."""
    server = serve("-v", "-c2", "-C1")
    with server.hold(), server.connect() as second:
        assert second.recv(1) == b""
        server.wait_for_log(f"dropping connection from uid {os.getuid()}: it has 1")
    server = serve("-c1", host=str(Path(server.path).with_name("other")))
    with server.hold() as first, server.connect("report") as second:
        server.wait_for_log("all 1 connections (-c) are in use")
        first.close()
        assert second.recv(1) == b"{"


@pytest.mark.needs_root
def test_owner_group_and_mode(serve: Serve) -> None:
    """The socket is theirs whom -o, -r and -m say, the program is run as whom -u and -g say; others cannot connect."""
    server = serve("-o", "nobody", "-r", str(NOBODY), "-m", "620", "-u", "60001", "-g", "60002")
    status = os.stat(server.path)
    assert (status.st_uid, status.st_gid, stat.filemode(status.st_mode)) == (NOBODY, NOBODY, "srw--w----")
    assert server.report()["ids"] == [[60001] * 3, [60002] * 3, [60002]]
    for uid, code in ((NOBODY, 0), (60003, 1)):
        ask = f"import socket; socket.socket(socket.AF_UNIX).connect({server.path!r})"
        done = subprocess.run(
            ["setpriv", "--reuid", str(uid), "--regid", "60003", "--clear-groups", "/usr/bin/python3", "-c", ask],
            capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_closed_by_default(serve: Serve) -> None:
    """Without -m only its owner can connect."""
    assert stat.filemode(os.stat(serve().path).st_mode) == "srw-------"


def test_a_second_one(serve: Serve, open_folder: Path) -> None:
    """While one serves no other takes its socket."""
    server = serve()
    done = run(open_folder, server.path, "probe")
    assert (done.returncode, "already running" in done.stderr) == (111, True)
    assert server.report()["env"]["PROTO"] == "IPC"


def test_a_stale_socket(serve: Serve) -> None:
    """What a killed server has left is taken over, although a connection of it goes on."""
    first = serve()
    with first.hold():
        first.stop(signal.SIGKILL)
        assert os.path.exists(first.path)
        assert serve().report()["env"]["PROTO"] == "IPC"


def test_what_is_no_socket(open_folder: Path) -> None:
    """A file, or a link, in its place is left alone, and said."""
    folder = open_folder / "s"
    folder.mkdir()
    for name, make in (("file", lambda path: path.write_text("x")), ("link", lambda path: path.symlink_to("file"))):
        make(folder / name)
        done = run(open_folder, str(folder / name), "probe")
        assert (done.returncode, "is there, and no socket; remove it" in done.stderr) == (111, True)
    assert (folder / "file").read_text() == "x"


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("mode", "uid", "said"), [(0o777, 0, "can write"), (0o1777, 0, "can write"), (0o755, NOBODY, "belongs to")]
)
def test_a_directory_that_is_not_safe(open_folder: Path, mode: int, uid: int, said: str) -> None:
    """Where another user could replace the socket there is none: what root gives away must be what root has made."""
    folder = open_folder / "s"
    folder.mkdir()
    os.chown(folder, uid, -1)
    folder.chmod(mode)
    done = run(open_folder, str(folder / "socket"), "probe")
    assert (done.returncode, said in done.stderr, os.listdir(folder)) == (111, True, [])


@pytest.mark.parametrize(
    "words",
    [
        ("/a",), ("", "probe"), ("-m", "888", "/a", "probe"), ("-m", "1777", "/a", "probe"),
        ("-x", "rules", "/a", "probe"), ("-H", "/a", "probe"), ("/" + "x" * 107, "probe"), ("-c0", "/a", "probe"),
    ],
)  # fmt: skip
def test_usage(open_folder: Path, words: tuple[str, ...]) -> None:
    """What it does not know is refused: tcpserver's -x, too, since there are no rules for users."""
    done = run(open_folder, *words)
    assert (done.returncode, "usage: ipcserver" in done.stderr) == (100, True)


def test_sigterm(serve: Serve) -> None:
    """It ends, and connections are refused from then on."""
    server = serve()
    assert server.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        server.connect()
