"""Have the suite of the current directory run, on the ports that were asked for."""

import re
import socket
import subprocess
from collections.abc import Mapping
from typing import Final

from qm.disk.regular import open_regular
from qm.quickstart import home
from qm.quickstart.demo import HOST
from qm.quickstart.home import Ports
from qm.supervise import LOCK, status
from qm.unix import owner

SERVICES: Final = "services"
DEFAULT: Final = Ports(2525, 2110, 2587, 2465, 2995)
_PORT: Final = r"(?m)^({}: (?:[A-Z]+=\S* )*tcpserver .*? 127\.0\.0\.1 )(\d+)( qm-)"


class Failed(Exception):
    """Why quickstart ends, in one line."""


def _free_port(wanted: int, name: str) -> int:
    """*wanted*, or another one if it is 0 or busy."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except PermissionError as error:
            raise Failed(f"port {wanted} needs root; choose one above 1023 with --{name}") from error
        except OSError:
            probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    if port != wanted and wanted:
        print(f"port {wanted} is taken; {name} uses {port}")
    return port


def _configure(wanted: Mapping[str, int | None], domain: str) -> None:
    """Write the services file; of one that is there, only the ports change."""
    try:
        with open(SERVICES, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        text = home.services(DEFAULT, domain)
    for name, given in wanted.items():
        pattern = _PORT.format(name)
        configured = re.search(pattern, text)
        if configured is not None:  # else an administrator has written a line of his own
            port = _free_port(int(configured[2]) if given is None else given, name)
            text = re.sub(pattern, rf"\g<1>{port}\g<3>", text)
    home.write(SERVICES, text)


def _rc(command: str) -> tuple[int, str]:
    done = subprocess.run(
        ["./rc", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _ports() -> Ports:
    found = {row.name: row.text for row in status.read()}
    try:
        needed = {name: int(found[name]) for name in ("smtp", "pop3")}
    except (KeyError, ValueError) as error:
        raise Failed("the suite that runs has no services smtp and pop3; rc status tells what it has") from error
    return Ports(
        **{name: int(text) for name, text in found.items() if name in Ports._fields and text.isdigit()} | needed
    )


def _why() -> str:
    """What the log says first, since the last start, about why a program ended."""
    try:
        with open(open_regular("log/current"), encoding="latin-1") as file:
            text = file.read().rpartition("qm-supervise: starting ")[2]
    except OSError:
        text = ""
    lines = [line.partition(" ")[2] for line in text.splitlines() if re.search("(: fatal: |: alert: bug)", line)]
    return f" ({lines[0]})" if lines else ""


def start(wanted: Mapping[str, int | None], domain: str) -> tuple[Ports, bool]:
    """The ports of the suite, and whether it ran already; *wanted* has what was asked for, for each.  Raises Failed."""
    if owner.find(LOCK) is not None:
        ports = _ports()
        if all(wanted[name] in (None, 0, port) for name, port in ports._asdict().items()):
            return ports, True
        _rc("stop")
    _configure(wanted, domain)
    code, said = _rc("start")
    if code:
        _rc("stop")
        reasons = [line.partition(";")[0] for line in said.splitlines() if not re.search(": ready(, port|$)", line)]
        raise Failed("; ".join(reasons) + _why())
    return _ports(), False
