"""tcpserver as a program: what its children get, whom it lets in, what it survives."""

import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.peers import DnsAnswerer
from tests.harness.tcpserver import LAUNCH, PYTHON, ROOT, TcpServer
from tests.harness.waiting import LIMIT_S, wait_for

QUICK = ("-H", "-R", "-l", "0")
Serve = Callable[..., TcpServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts tcpservers; each must stop in order at the end."""
    servers: list[TcpServer] = []

    def start(*options: str, **settings: object) -> TcpServer:
        servers.append(TcpServer(tmp_path, *(options or QUICK), **settings))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    codes = [server.stop() for server in servers]
    assert codes == [0] * len(servers)


@pytest.fixture(params=["warm", "cold"])
def both_ways(request: pytest.FixtureRequest, serve: Serve) -> Serve:
    """As serve, with a program of ours that is called in the worker, and exec'd."""
    return lambda *options, **settings: serve(*options, **{"cold": request.param == "cold", **settings})


def _rules(folder: Path, text: str) -> str:
    command = [*PYTHON, LAUNCH, "tcprules", "rules.cdb", "rules.tmp"]
    subprocess.run(command, input=text.encode(), cwd=folder, check=True, timeout=LIMIT_S)
    return "rules.cdb"


def _shut(channel: socket.socket) -> bool:
    """Whether the other end has closed."""
    try:
        return channel.recv(1) == b""
    except ConnectionResetError:
        return True


def _fds(pid: int) -> list[str]:
    return sorted(os.listdir(f"/proc/{pid}/fd"), key=int)


# what the program gets


def test_the_environment(both_ways: Serve) -> None:
    """The UCSPI variables as they are, nothing stale, and everything else of tcpserver's own environment."""
    stale = dict.fromkeys(("TCPREMOTEHOST", "TCPREMOTEINFO", "TCP6REMOTEIP", "PROTO"), "stale")
    server = both_ways("-H", "-R", "-l", "mx.example", env={**stale, "KEPT": "yes"})
    with server.connect("report") as channel:
        port = channel.getsockname()[1]
        env = _json(channel)["env"]
    ignored = ("PATH", "QMHOME", "QMCOLD", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE")  # the shell's and Python's
    assert {name: value for name, value in env.items() if name not in ignored} == {
        "KEPT": "yes",
        "PROTO": "TCP",
        "TCPLOCALIP": "127.0.0.1",
        "TCPLOCALPORT": str(server.port),
        "TCPLOCALHOST": "mx.example",
        "TCPREMOTEIP": "127.0.0.1",
        "TCPREMOTEPORT": str(port),
    }
    assert env["PATH"].endswith("/bin")


def _json(channel: socket.socket) -> dict[str, dict[str, str]]:
    with channel.makefile("rb") as stream:
        told: dict[str, dict[str, str]] = json.loads(stream.readline())
    return told


def test_both_ways_are_the_same(serve: Serve) -> None:
    """Warm and exec'd, a program sees the same environment, arguments and directory, and inherits 0, 1 and 2."""
    told = [serve(cold=cold, program=("probe", "-x", "y z")).report() for cold in (False, True)]
    for report in told:
        assert report["argv"] == ["probe", "-x", "y z"]
        for name in ("TCPLOCALPORT", "TCPREMOTEPORT", "QMCOLD", "PWD", "OLDPWD", "SHLVL", "_"):
            report["env"].pop(name, None)
    assert told[0]["env"] == told[1]["env"]
    assert told[0]["cwd"] == told[1]["cwd"]
    assert told[0]["inherited"] == told[1]["inherited"] == ["0", "1", "2"]


def test_the_descriptors(both_ways: Serve, tmp_path: Path) -> None:
    """0 and 1 are the connection, 2 the log, and nothing else holds the connection."""
    server = both_ways()
    fds = server.report()["fds"]
    assert fds["0"] == fds["1"]
    assert fds["0"].startswith("socket:")
    assert fds["2"] == str(server.log_path)
    assert list(fds.values()).count(fds["0"]) == 2


def test_an_execd_program_has_nothing_more(serve: Serve) -> None:
    """A stranger's program has 0, 1 and 2."""
    server = serve(program=("sh", "-c", "ls -l /proc/self/fd | wc -l"))
    assert server.ask("") == b"5\n"  # the total, three descriptors, and the directory that ls reads


def test_the_peer_sees_the_end_when_the_program_says_so(both_ways: Serve, tmp_path: Path) -> None:
    """A program that closes 0 and 1 ends the connection, though it goes on: nobody else holds it."""
    os.mkfifo(tmp_path / "fifo")
    server = both_ways()
    with server.connect(f"close {tmp_path}/fifo") as channel:
        assert channel.recv(1) == b""
    with (tmp_path / "fifo").open("wb"):
        pass
    server.report()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3 << 8),
        ("leave 5", 5 << 8),
        ("kill", 9),
        ("temporary", 111 << 8),
        ("permanent", 100 << 8),
    ],
)
def test_the_exit_code_is_logged(both_ways: Serve, line: str, status: int) -> None:
    """As wait tells it, however the program ends."""
    server = both_ways("-v", *QUICK)
    server.ask(line)
    server.wait_for_log("end ")
    assert re.search(r"^tcpserver: end \d+ status (\d+)$", server.log(), re.MULTILINE)[1] == str(status)  # type: ignore[index]


def test_an_exception_is_a_bug_and_costs_one_connection(both_ways: Serve) -> None:
    """The peer sees a close, the log says where, the exit code is temporary, and the next connection is served."""
    server = both_ways("-v", *QUICK)
    assert server.ask("raise") == b""
    server.wait_for_log(" status 28416")
    assert "alert: bug, please report: RuntimeError: as told at probe.py:" in server.log()
    assert server.report()["env"]["PROTO"] == "TCP"


def test_the_log_of_a_connection(both_ways: Serve) -> None:
    """The verbose lines are those that log analysers know, in their order (qmail.md 21.1)."""
    server = both_ways("-v", "-c7", "-H", "-R", "-l", "mx.example")
    with server.connect("exit 0") as channel:
        port = channel.getsockname()[1]
        assert channel.recv(1) == b""
    server.wait_for_log("status: 0/7", 2)
    lines = server.lines()
    pid = lines[2].split()[2]
    assert lines == [
        "tcpserver: status: 0/7",
        "tcpserver: status: 1/7",
        f"tcpserver: pid {pid} from 127.0.0.1",
        f"tcpserver: ok {pid} mx.example:127.0.0.1:{server.port} :127.0.0.1::{port}",
        f"tcpserver: end {pid} status 0",
        "tcpserver: status: 0/7",
    ]


@pytest.mark.parametrize("option", ["-q", "-Q"])
def test_without_v_nothing_usual_is_logged(both_ways: Serve, option: str) -> None:
    """Only -v tells of connections."""
    server = both_ways(option, *QUICK)
    server.ask("exit 3")
    server.report()
    assert server.log() == ""


def test_a_warm_program_serves_one_connection_after_another(serve: Serve) -> None:
    """The worker is kept, and nothing of a connection is left in it for the next."""
    server = serve("-c1", *QUICK)  # with more, the peer may be back before the worker is idle
    first = server.report()
    assert server.ask("exit 1", source="127.0.0.9") == b""
    second = server.report(source="127.0.0.2")
    assert second["pid"] == first["pid"]
    assert second["env"]["TCPREMOTEIP"] == "127.0.0.2"
    assert sorted(second["fds"]) == sorted(first["fds"])
    fds = {fd: os.readlink(f"/proc/{first['pid']}/fd/{fd}") for fd in "01"}
    assert fds == {"0": "/dev/null", "1": "/dev/null"}


def test_a_stranger_is_execd_each_time(serve: Serve) -> None:
    """One process, one connection."""
    server = serve(program=("sh", "-c", "echo $$"))
    assert server.ask("") != server.ask("")


def test_many_connections_leak_nothing(serve: Serve) -> None:
    """After 600 connections, in workers that come and go, tcpserver holds a channel for each worker and no more."""
    server = serve()
    before = len(_fds(server.pid))
    for _ in range(600):
        server.ask("exit 0")
    report = server.report()
    workers = _children(server.pid)
    assert report["pid"] in workers
    assert len(workers) < 12  # the peer sees the end a little before the worker is idle
    assert len(_fds(server.pid)) == before + len(workers)
    assert len(report["fds"]) < 12


def _children(pid: int) -> list[int]:
    """Its processes, zombies too."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("option", [("-D", 1), ("-d", 0)])
def test_nagle(both_ways: Serve, option: tuple[str, int]) -> None:
    """-D sets TCP_NODELAY, -d leaves it."""
    assert both_ways(option[0], *QUICK).report()["nodelay"] == option[1]


def test_a_banner_comes_before_all_else(serve: Serve, tmp_path: Path) -> None:
    """-B is written before any rule is asked: even who is refused has it."""
    rules = _rules(tmp_path, "127.0.0.2:deny\n")
    server = serve("-B", "hello\r\n", "-x", rules, *QUICK)
    assert server.ask("exit 0") == b"hello\r\n"
    assert server.ask("exit 0", source="127.0.0.2") == b"hello\r\n"


def test_a_program_that_cannot_be_found(serve: Serve) -> None:
    """The peer sees a close and the log says why; tcpserver goes on (and exits 100 for the connection)."""
    server = serve("-v", *QUICK, program=("no-such-program",))
    assert server.ask("") == b""
    server.wait_for_log("end ")
    assert "no-such-program: fatal: cannot run: No such file or directory" in server.log()
    assert " status 25600" in server.log()


def test_a_program_of_ours_that_cannot_start(serve: Serve, tmp_path: Path) -> None:
    """A failure while it is made ready is no bug: said at the start, or, exec'd, at the cost of each connection."""
    with pytest.raises(AssertionError, match="tcpserver: fatal: the probe is broken"):
        TcpServer(tmp_path, *QUICK, program=("probe", "broken"))
    server = serve("-v", *QUICK, program=("probe", "broken"), cold=True)
    assert server.ask("report") == b""
    server.wait_for_log(" status 28416")
    assert "fatal: the probe is broken" in server.log()
    assert "alert" not in server.log()


# whom it lets in


def test_rules_decide(both_ways: Serve, tmp_path: Path) -> None:
    """Who is denied sees a close and no program; who is allowed has the rule's variables, set also when empty."""
    rules = _rules(tmp_path, '127.0.0.1:allow,RELAYCLIENT="",TCPLOCALHOST="x y"\n127.0.0.2-3:deny\n:allow\n')
    server = both_ways("-v", "-x", rules, *QUICK)
    assert server.ask("report", source="127.0.0.2") == b""
    env = server.report()["env"]
    assert (env["RELAYCLIENT"], env["TCPLOCALHOST"]) == ("", "x y")
    assert "RELAYCLIENT" not in server.report(source="127.0.0.4")["env"]
    assert re.search(r"^tcpserver: deny \d+ 0:127.0.0.1:\d+ :127.0.0.2::\d+$", server.log(), re.MULTILINE)
    assert " status 25600" in server.log()


def test_a_denied_connection_is_said(serve: Serve, tmp_path: Path) -> None:
    """Whom the rules turn away is in the log without -v, although nothing else of a connection is; not with -q."""
    rules = _rules(tmp_path, "127.0.0.2:deny\n")
    server, quiet = serve("-x", rules, *QUICK), serve("-q", "-x", rules, *QUICK)
    for each in (server, quiet):
        assert each.ask("exit 0", source="127.0.0.2") == b""
        each.ask("exit 0")
    server.wait_for_log("tcpserver: deny ")
    assert "tcpserver: ok" not in server.log()
    assert quiet.log() == ""


def test_rules_take_effect_at_the_next_connection(serve: Serve, tmp_path: Path) -> None:
    """A new rules.cdb needs no signal, also when the worker is warm."""
    server = serve("-c1", "-x", _rules(tmp_path, ":allow\n"), *QUICK)
    pid = server.report()["pid"]
    _rules(tmp_path, ":deny\n")
    assert server.ask("report") == b""
    _rules(tmp_path, ':allow,A="b"\n')
    report = server.report()
    assert (report["env"]["A"], report["pid"]) == ("b", pid)


def _break(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(data[: len(data) - 10])
    elif how == "garbage":
        path.write_bytes(b"\xff" * 5000)
    elif how == "no empty slot":
        path.write_bytes(data[:2048] + b"\x01" * (len(data) - 2048))
    elif how == "odd data":
        path.write_bytes(data.replace(b"+A=b\0", b"?A=b\0"))
    elif how == "a directory":
        path.mkdir()


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "garbage", "no empty slot", "odd data", "a directory"])
def test_broken_rules_let_nobody_in(serve: Serve, tmp_path: Path, how: str) -> None:
    """A rules file that is not there, or not whole, or no cdb: the connection is dropped and the log says why."""
    rules = _rules(tmp_path, ':allow,A="b"\n')
    server = serve("-x", rules, *QUICK)
    server.report()
    _break(tmp_path / rules, how)
    assert server.ask("report") == b""
    assert "tcpserver: warning: dropping connection: " in server.log()
    assert "rules.cdb: " in server.log()
    _rules(tmp_path, ":allow\n") if how != "a directory" else None


def test_missing_rules_are_no_rules_with_X(serve: Serve, tmp_path: Path) -> None:
    """-X lets everyone in while the file is not there, and only then."""
    server = serve("-X", "-x", "rules.cdb", *QUICK)
    server.report()
    _rules(tmp_path, ":deny\n")
    assert server.ask("report") == b""
    (tmp_path / "rules.cdb").write_bytes(b"garbage")
    assert server.ask("report") == b""
    (tmp_path / "rules.cdb").unlink()
    server.report()


def test_rules_are_found_where_tcpserver_was_started(serve: Serve, tmp_path: Path) -> None:
    """A relative path starts from the directory of tcpserver, though a warm program works in its home."""
    (tmp_path / "elsewhere").mkdir()
    _rules(tmp_path / "elsewhere", ':allow,A="b"\n')
    report = serve("-x", "rules.cdb", *QUICK, cwd=tmp_path / "elsewhere").report()
    assert report["env"]["A"] == "b"
    assert report["cwd"] == str(tmp_path)


def test_the_limit_defers_connections(both_ways: Serve) -> None:
    """-c: at the limit a connection waits, without being refused, until another ends."""
    server = both_ways("-v", "-c2", *QUICK)
    first, second = server.hold(), server.hold()
    with server.connect("report") as third:
        third.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.recv(1)
        assert "status: 2/2" in server.log() and "3/2" not in server.log()
        first.close()
        third.settimeout(LIMIT_S)
        assert third.recv(1) == b"{"
    second.close()


def test_the_limit_per_address(serve: Serve) -> None:
    """-C: a further connection of the same address is closed at once, those of others are not."""
    server = serve("-v", "-C2", *QUICK)
    held = [server.hold(), server.hold()]
    assert server.ask("report") == b""
    assert "tcpserver: dropping connection from 127.0.0.1: it has 2" in server.log()
    server.report(source="127.0.0.2")
    held.pop().close()
    server.wait_for_log("status: 1/40", 2)
    server.report()
    held.pop().close()


def test_a_crash_is_one_connections_affair(both_ways: Serve) -> None:
    """A worker that dies with a connection closes it; the log says so, the others go on."""
    server = both_ways()
    with server.hold() as held:
        assert server.ask("kill") == b""
        server.wait_for_log("was ended by signal 9, with a connection")
        held.shutdown(socket.SHUT_WR)
        assert held.recv(1) == b""
    server.report()


def test_peers_that_leave_at_once_do_no_harm(serve: Serve) -> None:
    """Connections that are reset before, while or after they are accepted."""
    server = serve("-c5", "-b500", *QUICK)
    for _ in range(200):
        channel = server.connect()
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        channel.close()
    server.report()
    at_the_limit = "tcpserver: warning: all 5 connections (-c) are in use; more wait until one ends"
    assert set(server.log().splitlines()) <= {at_the_limit}


# names


PEER = "1.0.0.127.in-addr.arpa PTR"


@pytest.mark.parametrize(
    ("options", "script", "host"),
    [
        (("-h",), {PEER: {"answer": ["Client.Example."]}}, "client.example"),
        (("-h",), {PEER: {"answer": ["a\\032b\\010.example."]}}, "a\\040b\\012.example"),
        (("-h",), {}, None),
        (("-h",), {PEER: {"rcode": "REFUSED"}}, None),
        (("-hp",), {PEER: {"answer": ["c.test."]}, "c.test A": {"answer": ["192.0.2.1", "127.0.0.1"]}}, "c.test"),
        (("-hp",), {PEER: {"answer": ["c.test."]}, "c.test A": {"answer": ["192.0.2.1"]}}, None),
        (("-hp",), {PEER: {"answer": ["c.test."]}}, None),
        (("-H", "-p"), {PEER: {"answer": ["c.test."]}}, None),
    ],
)
def test_the_peers_name(
    serve: Serve, tmp_path: Path, options: tuple[str, ...], script: dict[str, object], host: str | None
) -> None:
    """-h asks DNS for the peer's name, -p wants it confirmed; odd bytes are escaped; without a name there is none."""
    with DnsAnswerer(tmp_path, script) as dns:
        server = serve("-v", *options, "-R", "-l0", env={"DNSCACHEIP": f"127.0.0.1:{dns.port}"})
        assert server.report()["env"].get("TCPREMOTEHOST") == host
        assert f" {host or ''}:127.0.0.1::" in server.log()


def test_our_own_name(serve: Serve, tmp_path: Path) -> None:
    """Without -l it is asked for, also with -H."""
    with DnsAnswerer(tmp_path, {PEER: {"answer": ["mx.test."]}}) as dns:
        env = serve("-HR", env={"DNSCACHEIP": f"127.0.0.1:{dns.port}"}).report(source="127.0.0.2")["env"]
    assert env["TCPLOCALHOST"] == "mx.test"
    assert "TCPREMOTEHOST" not in env


def test_rules_know_names(serve: Serve, tmp_path: Path) -> None:
    """=host rules need -h."""
    rules = _rules(tmp_path, '=.bad.test:deny\n=:allow,NAMED="yes"\n:allow\n')
    script = {"2.0.0.127.in-addr.arpa PTR": {"answer": ["x.bad.test."]}, PEER: {"answer": ["good.test."]}}
    with DnsAnswerer(tmp_path, script) as dns:
        server = serve("-R", "-l0", "-x", rules, env={"DNSCACHEIP": f"127.0.0.1:{dns.port}"})
        assert server.ask("report", source="127.0.0.2") == b""
        assert server.report()["env"]["NAMED"] == "yes"
        assert "NAMED" not in server.report(source="127.0.0.3")["env"]


@pytest.mark.needs_root
def test_ident(serve: Serve, tmp_path: Path) -> None:
    """-r asks the peer's machine (RFC 1413); what it says is in the environment, in the log, and known to rules."""
    peer = "127.113.0.1"  # port 113 is the protocol's; nobody else uses it at this address
    rules = _rules(tmp_path, f'joe@{peer}:allow,IDENT="yes"\n:allow\n')
    with socket.create_server((peer, 113)) as listener:
        listener.settimeout(LIMIT_S)
        asked: list[bytes] = []
        answers = [b"%b:USERID:UNIX: joe\r\n", b"%b:ERROR:NO-USER\r\n", b"%b:USERID:UNIX:j\x1bo%%e\r\n", b""]

        def answer() -> None:
            for text in answers:
                with listener.accept()[0] as channel:
                    asked.append(channel.recv(100))
                    channel.sendall(text % asked[-1].strip() if text else b"x" * 5000)

        thread = threading.Thread(target=answer)
        thread.start()
        server = serve("-v", "-H", "-l0", "-x", rules)
        envs = [server.report(source=peer)["env"] for _ in answers]
        thread.join()
    assert [env.get("TCPREMOTEINFO") for env in envs] == ["joe", None, "j?o%e", None]
    assert [env.get("IDENT") for env in envs] == ["yes", None, None, None]
    assert asked[0] == f"{envs[0]['TCPREMOTEPORT']} , {server.port}\r\n".encode()
    assert f":{peer}:joe:" in server.log()
    assert f":{peer}:j?o?e:" in server.log()


@pytest.mark.needs_root
def test_an_ident_server_that_says_nothing(serve: Serve) -> None:
    """-t bounds the wait."""
    peer = "127.113.0.2"
    with socket.create_server((peer, 113)):
        assert "TCPREMOTEINFO" not in serve("-t1", "-H", "-l0").report(source=peer)["env"]


# families, ports, identities


@pytest.mark.parametrize(
    ("host", "peer", "proto"),
    [("::1", "::1", "TCP6"), ("0", "::1", "TCP6"), ("0", "127.0.0.1", "TCP"), ("", "::1", "TCP6")],
)
def test_families(both_ways: Serve, host: str, peer: str, proto: str) -> None:
    """0 takes both; an IPv4 peer is one, whatever the socket; IPv6 has PROTO TCP6 and the twins."""
    server = both_ways(host=host)
    server.address = peer
    env = server.report()["env"]
    assert (env["PROTO"], env["TCPREMOTEIP"], env["TCPLOCALIP"]) == (proto, peer, peer)
    assert env.get("TCP6REMOTEIP") == (peer if proto == "TCP6" else None)


def test_the_port_is_printed(serve: Serve) -> None:
    """-1 prints the port that port 0 has become, and then tcpserver holds neither 0 nor 1."""
    server = serve("-1", *QUICK)
    assert server.process.stdout is not None
    assert server.process.stdout.read() == f"{server.port}\n".encode()
    assert [os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in "01"] == ["/dev/null"] * 2


def _run(*words: str) -> tuple[int, str]:
    done = subprocess.run([*PYTHON, LAUNCH, "tcpserver", *words], capture_output=True, timeout=LIMIT_S, check=False)
    return done.returncode, done.stderr.decode()


def test_exit_codes_of_the_start(serve: Serve) -> None:
    """100 for a wrong command line, 111 for what may be mended without changing it."""
    code, text = _run("-z", "0", "0", "prog")
    assert code == 100 and "no option -z" in text and "usage: tcpserver" in text
    assert _run("127.0.0.1", str(serve().port), "prog")[0] == 111
    assert _run("127.0.0.1", "no-such-port", "prog")[0] == 111
    assert _run("-u", "no-such-user", *QUICK, "127.0.0.1", "0", "prog")[0] == 111


def test_the_home_must_be_there_for_a_program_of_ours(tmp_path: Path) -> None:
    """It is entered at the start, so that what is wrong is said then."""
    with pytest.raises(AssertionError, match="cannot enter the home directory"):
        TcpServer(tmp_path, *QUICK, env={"QMHOME": "/nonexistent"})


@pytest.mark.needs_root
@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize(
    ("options", "env", "ids"),
    [
        (("-u60001", "-g60002"), {}, [[60001] * 3, [60002] * 3, [60002]]),
        (("-U",), {"UID": "60001", "GID": "60002"}, [[60001] * 3, [60002] * 3, [60002]]),
        (("-u", "daemon", "-g", "daemon"), {}, [[1] * 3, [1] * 3, [1]]),
        (("-g60002",), {}, [[0] * 3, [60002] * 3, [60002]]),
        (("-u60001",), {}, [[60001] * 3, [0] * 3, [0]]),
        (("-u0", "-g0"), {}, None),
    ],
)
def test_identities(
    open_folder: Path, cold: bool, options: tuple[str, ...], env: dict[str, str], ids: list[list[int]] | None
) -> None:
    """-u and -g, by number or name, or from the environment; other groups do not stay; 0 is unchanged."""
    server = TcpServer(open_folder, *options, *QUICK, env=env, cold=cold)
    expected = ids or [list(os.getresuid()), list(os.getresgid()), os.getgroups()]
    assert server.report()["ids"] == expected
    assert server.stop() == 0
    assert ("-u without -g" in server.log()) == (options == ("-u60001",))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's, and a checkout that is one."""
    if not all(path.stat().st_mode & 0o001 for path in ROOT.parents):
        pytest.skip("needs a checkout that every user can read")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)  # noqa: S103
        yield Path(name)


@pytest.mark.needs_root
def test_the_home_may_be_out_of_reach_of_the_user(serve: Serve, tmp_path: Path) -> None:
    """Home and rules lie below a directory that -u cannot search; a warm program is served all the same."""
    home = tmp_path / "private" / "home"
    home.mkdir(parents=True)
    _rules(home, ':allow,A="b"\n')
    (tmp_path / "private").chmod(0o700)
    server = serve("-u60001", "-g60002", "-x", "rules.cdb", *QUICK, env={"QMHOME": str(home)}, cwd=home)
    assert server.report()["env"]["A"] == "b"
    assert server.report()["ids"][0] == [60001] * 3
    assert server.log() == ""


def test_descriptors_that_were_closed_at_the_start(serve: Serve, tmp_path: Path) -> None:
    """With 0 and 1 closed, no socket of ours takes their place."""
    script = f'exec 0<&- 1>&-; exec {" ".join(PYTHON)} "$LAUNCH" tcpserver "$@"'
    reader, writer = os.pipe()
    env = {"PATH": "/usr/bin:/bin", "LAUNCH": LAUNCH, "QMREADY": str(writer), "QMHOME": str(tmp_path)}
    _rules(tmp_path, ":allow\n")
    command = ["sh", "-c", script, "sh", "-x", "rules.cdb", *QUICK, "127.0.0.1", "0", "probe"]
    process = subprocess.Popen(command, env=env, pass_fds=[writer], cwd=tmp_path, stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as ready:
        port = int(ready.readline())
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as channel:
        channel.sendall(b"report\n")
        assert channel.recv(1) == b"{"
    process.terminate()
    assert process.wait(LIMIT_S) == 0


# signals and shortages


def test_sigterm_lets_connections_end(both_ways: Serve) -> None:
    """No new ones are taken, the present ones end by themselves, then the exit code is 0 and nobody is left."""
    server = both_ways()
    with server.hold() as held:
        workers = _children(server.pid)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not _accepts(server.port), "the port is closed")
        held.sendall(b"still here\n")
        held.shutdown(socket.SHUT_WR)
        assert held.recv(1) == b""
    assert server.wait() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), LIMIT_S).close()
    except OSError:
        return False
    return True


def test_sigterm_ends_an_idle_server_at_once(serve: Serve) -> None:
    """Idle workers hold nothing up."""
    server = serve()
    worker = server.report()["pid"]
    assert server.stop() == 0
    assert not Path(f"/proc/{worker}").exists()


def test_sigterm_lets_idle_workers_go_while_others_work(serve: Serve) -> None:
    """Who has nothing to do leaves at once."""
    server = serve()
    with server.hold() as held:
        assert server.report()["pid"] in _children(server.pid)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: len(_children(server.pid)) == 1, "the idle worker's end")
        held.shutdown(socket.SHUT_WR)
        assert held.recv(1) == b""


def test_a_second_sigterm_ends_it_now(both_ways: Serve) -> None:
    """Connections are cut, the exit code is 0 all the same."""
    server = both_ways()
    with server.hold() as held:
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not _accepts(server.port), "the port is closed")
        assert server.stop() == 0
        assert _shut(held)


def test_sighup_makes_new_workers(serve: Serve) -> None:
    """After SIGHUP connections have workers of now; what runs is not disturbed."""
    server = serve()
    before = server.report()["pid"]
    with server.hold() as held:
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.report()["pid"] != before, "a new worker")
        held.shutdown(socket.SHUT_WR)
        assert held.recv(1) == b""


def test_too_few_descriptors(serve: Serve) -> None:
    """Without a free descriptor connections wait, the log says why but is not flooded, and later they are served."""
    server = serve("-c20", *QUICK)
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    free = next(number for number in range(soft) if str(number) not in _fds(server.pid))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free, hard))
    waiting = server.connect("report")
    server.wait_for_log("Too many open files")
    assert server.log().count("\n") < 10
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    waiting.settimeout(LIMIT_S)
    assert waiting.recv(1) == b"{"
    waiting.close()
