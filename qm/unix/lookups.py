"""Who is at the other end: names by DNS, the user by ident.

What strangers answer is not read by root: a worker that is root asks in a child that is not.  Every question ends in
time.
"""

import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn, Protocol

from qm import errors
from qm.unix import confine, fds, privs, title
from qm.unix.program import Env, roles, unforeseen
from qm.wire import ident, ucspi
from qm.wire.record import Malformed, pack, unpack
from qm.wire.ucspi import Address, Names

DNS_S: Final = 40.0  # all DNS questions of a connection: two for the local name and, with -p, two for the peer's
_RECORD_MAX: Final = 8192  # bytes: two host names of at most 1020, and the user


class Wishes(NamedTuple):
    """What is to be found out."""

    look_up_host: bool = True
    paranoid: bool = False  # only a name that has the address
    local_name: bytes | None = None  # None: look it up
    ask_ident: bool = True
    ident_s: float = 26
    unanswered: bytes | None = None  # the name of who may have one, but DNS does not tell it now


class Resolver(Protocol):
    def name_of(self, ip: bytes) -> bytes | None: ...

    def confirmed_name_of(self, ip: bytes) -> bytes | None: ...


def _resolver(wishes: Wishes, env: Env) -> Resolver | None:
    if not wishes.look_up_host and wishes.local_name is not None:
        return None
    from qm.unix import hostnames  # see there

    try:
        return hostnames.Resolver(ucspi.nameservers(env.get(b"DNSCACHEIP", b"")), wishes.unanswered)
    except Exception as error:  # dnspython and its reader of /etc/resolv.conf raise many kinds
        raise errors.Temporary("cannot use the name servers", detail=f"DNSCACHEIP or resolv.conf: {error}") from error


class Lookups:
    """Finds out what *wishes* say, for program *name*.

    Raises Temporary if name servers are needed and cannot be used.
    """

    def __init__(self, name: bytes, wishes: Wishes, env: Env) -> None:
        self._name = name
        self._wishes = wishes
        self._roles = roles(env)
        self._resolver = _resolver(wishes, env)
        self.needed = self._resolver is not None or wishes.ask_ident

    def __call__(self, local: Address, remote: Address) -> Names:
        """What can be found out about a connection."""
        names = Names()
        if self.needed and privs.is_root():
            names = self._ask_apart(local, remote)
        elif self.needed:
            names = self._ask(local, remote)
        told = self._wishes.local_name
        return names if told is None else names._replace(local_host=told)

    def _ask(self, local: Address, remote: Address) -> Names:
        wishes, resolver = self._wishes, self._resolver
        local_host = remote_host = info = None
        if resolver is not None and wishes.local_name is None:
            local_host = resolver.name_of(local.ip)
        if resolver is not None and wishes.look_up_host:
            find = resolver.confirmed_name_of if wishes.paranoid else resolver.name_of
            remote_host = find(remote.ip)
        if wishes.ask_ident:
            info = _ident(local, remote, wishes.ident_s)
        return Names(local_host, remote_host, info)

    def _ask_apart(self, local: Address, remote: Address) -> Names:
        """In a child that is not root, and that is killed if it takes too long."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._answer(writer, local, remote)
        os.close(writer)
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        limit_s = DNS_S + (self._wishes.ident_s if self._wishes.ask_ident else 0)
        record = os.read(reader, _RECORD_MAX) if poll.poll(limit_s * 1000) else b""
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        try:
            return Names(*(text or None for text in unpack(record, 3)))
        except Malformed:
            return Names()

    def _answer(self, writer: int, local: Address, remote: Address) -> NoReturn:
        """In the child."""
        try:
            fds.close_from(3, {writer})
            privs.become(privs.least(self._roles))
            confine.gain_nothing()
            title.job(self._name, b"asks for names")
            os.write(writer, pack(*(text or b"" for text in self._ask(local, remote))))
        except BaseException as error:  # a forked child must never run on in its parent's frames
            unforeseen(self._name, error)
        finally:
            os._exit(0)


def _ident(local: Address, remote: Address, limit_s: float) -> bytes | None:
    """Ask the peer's machine within *limit_s*; None if it does not say."""
    deadline_s = time.monotonic() + limit_s
    family = socket.AF_INET6 if b":" in remote.ip else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as channel:
        channel.settimeout(max(limit_s, 0.001))
        channel.bind((local.ip.decode(), 0))
        channel.connect((remote.ip.decode(), ident.PORT))
        channel.sendall(ident.query(remote.port, local.port))
        return ident.parse(_line(channel, deadline_s))
    return None


def _line(channel: socket.socket, deadline_s: float) -> bytes:
    """What comes up to a LF, the end, or ident.ANSWER_MAX bytes; raises OSError, TimeoutError."""
    answer = b""
    while b"\n" not in answer and len(answer) < ident.ANSWER_MAX:
        channel.settimeout(max(deadline_s - time.monotonic(), 0.001))
        piece = channel.recv(ident.ANSWER_MAX)
        if not piece:
            break
        answer += piece
    return answer
