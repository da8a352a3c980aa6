"""One connection, in a worker: greet it, find out who it is, ask the rules, run the program on descriptors 0 and 1.

Between two connections a worker holds /dev/null as 0 and 1, and nothing of the last one.
"""

import os
import socket
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk.cdb import BadCdb
from qm.disk.tcprules import Rules
from qm.tcpserver.listener import Place, address_of
from qm.tcpserver.options import ERRORS, VERBOSE, Options
from qm.tcpserver.server import Caller
from qm.tcpserver.serving import Host, greet
from qm.unix import log
from qm.unix.chain import Runner
from qm.unix.lookups import Lookups
from qm.unix.program import Env
from qm.wire import ucspi
from qm.wire.record import number, pack, unpack
from qm.wire.tcprules import Decision
from qm.wire.ucspi import Address, Names

NAME: Final = b"tcpserver"
_PORT_MAX: Final = 65535


def meet(channel: socket.socket, address: tuple[str, int]) -> Caller:
    ip, port = ucspi.plain(address[0]), address[1]
    return Caller(pack(ip, b"%d" % port), _network(ip), ip)


def _network(ip: bytes) -> bytes:
    """Whom -C counts together: an IPv4 address; the 64 bits of IPv6 that one customer has at least (RFC 6177)."""
    return socket.inet_pton(socket.AF_INET6, ip.decode())[:8] if b":" in ip else ip


def _unpack_peer(record: bytes) -> Address:
    ip, port = unpack(record, 2)
    return Address(ip, number(port, _PORT_MAX))


def tune(channel: socket.socket, options: Options) -> None:
    if not options.keep_ip_options:
        with suppress(OSError):  # as ucspi-tcp: not every socket has them
            channel.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
    if options.nodelay:
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Session:
    """Serves the connections of *place*."""

    def __init__(
        self, options: Options, place: Place, base: Env, run: Runner, rules: Rules | None, lookups: Lookups
    ) -> None:
        self._options = options
        self._place = place
        self._base = base
        self._host = Host(options.program, run)
        self._rules = rules
        self._lookups = lookups
        self._pid = os.getpid()

    def __call__(self, record: bytes, descriptors: list[int]) -> bytes:
        """Serve the connection that is the one descriptor; gives the program's exit code in digits."""
        remote = _unpack_peer(record)
        channel = socket.socket(self._place.family, socket.SOCK_STREAM, 0, descriptors.pop())
        with channel:
            code = self._meet(channel, remote)
        return b"%d" % code

    def _meet(self, channel: socket.socket, remote: Address) -> int:
        said: list[bytes] = []
        if self._options.verbosity >= VERBOSE:
            said.append(ucspi.met_line(self._pid, remote))
        if self._lookups.needed:  # that takes a while
            log.write_lines(said)
            said.clear()
        try:
            tune(channel, self._options)
            greet(channel, self._options.banner)
            local = self._place.local or address_of(channel)
            names = self._lookups(local, remote)
            decision = self._judge(remote, names)
        except (OSError, BadCdb) as error:
            self._drop(said, error)
            return errors.TEMPORARY
        if self._options.verbosity >= (VERBOSE if decision.allow else ERRORS):
            said.append(ucspi.verdict_line(decision.allow, self._pid, local, remote, names))
        log.write_lines(said)
        if not decision.allow:
            return errors.PERMANENT
        env = ucspi.environment(self._base, local, remote, names)
        env.update(decision.variables)
        return self._host.serve(channel, env)

    def _judge(self, remote: Address, names: Names) -> Decision:
        if self._rules is None:
            return Decision()
        return self._rules.judge(remote.ip, names.remote_host, names.remote_info).decision

    def _drop(self, said: list[bytes], error: OSError | BadCdb) -> None:
        log.write_lines(said)
        if self._options.verbosity >= ERRORS:
            why = error.strerror if isinstance(error, OSError) else str(error)
            log.warning(NAME, f"dropping connection: {why}")
