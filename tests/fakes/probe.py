"""A program for tcpserver to run: it does what the first line from its peer says.

report      send a JSON object: env, descriptors, argv, pid, identity, directory, TCP_NODELAY
exit N      leave with code N                       leave N     the same, by os._exit
hold        send ``held`` and wait for the peer's end, then leave with code 0
close PATH  close 0 and 1, then wait for an end of the FIFO PATH
raise, temporary, permanent, kill                   fail in these ways

It is one of "our" programs for a qm that was told so by the lines at the end, which also start qm's own programs:
``probe.py tcpserver ... probe``; and as ``probe.py probe`` it is a program like any other.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable

from qm.errors import Permanent, Temporary
from qm.programs import PROGRAMS
from qm.unix.program import Argv, Env, program


def _fds() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass  # the directory that was being listed
    return found


def _report(argv: Argv, env: Env) -> bytes:
    with socket.socket(fileno=os.dup(0)) as peer:
        is_tcp = peer.family != socket.AF_UNIX
        nodelay = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) if is_tcp else 0
    told = {
        "env": {name.decode("latin-1"): value.decode("latin-1") for name, value in env.items()},
        "fds": _fds(),
        "inherited": [fd for fd in _fds() if os.get_inheritable(int(fd))],
        "argv": [os.fsdecode(arg) for arg in argv],
        "pid": os.getpid(),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "cwd": os.getcwd() if os.access(".", os.R_OK) else "",
        "nodelay": nodelay,
    }
    return json.dumps(told).encode() + b"\n"


def _line() -> bytes:
    line = b""
    try:
        while not line.endswith(b"\n") and (byte := os.read(0, 1)):
            line += byte
    except ConnectionResetError:
        pass
    return line.strip()


def _serve(argv: Argv, env: Env) -> int:
    word, _, argument = _line().partition(b" ")
    if word == b"report":
        os.write(1, _report(argv, env))
    elif word == b"exit":
        return int(argument)
    elif word == b"leave":
        os._exit(int(argument))
    elif word == b"hold":
        os.write(1, b"held\n")
        while os.read(0, 100):
            pass
    elif word == b"close":
        os.close(0), os.close(1)
        with open(argument, "rb") as fifo:
            fifo.read()
    elif word == b"raise":
        raise RuntimeError("as told")
    elif word == b"temporary":
        raise Temporary("as told")
    elif word == b"permanent":
        raise Permanent("as told")
    elif word == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def warm(argv: Argv, env: Env) -> Callable[[Env], int]:
    if b"broken" in argv:
        raise Temporary("the probe is broken")
    return lambda conn_env: _serve(argv, conn_env)


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    return warm(argv, env)(env)


if __name__ == "__main__":
    PROGRAMS["probe"] = "tests.fakes.probe"
    from qm.unix.chain import ours

    module = ours(os.fsencode(sys.argv[1]))
    assert module is not None
    os._exit(module.main([os.fsencode(arg) for arg in sys.argv[1:]], dict(os.environb)))
