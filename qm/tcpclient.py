"""tcpclient: connect to a TCP server and run a program that talks to it on descriptors 6 and 7.

Usage:   tcpclient [-46hHrRdDqQv] [-i localip] [-p localport] [-T x+y] [-l localname] [-t timeout] host port program
         [arg ...]
Reads:   DNS and ident answers; those of ident and of names for the environment not as root
Env:     DNSCACHEIP, QMCOLD; sets PROTO, TCPLOCALIP, TCPREMOTEIP and so on
Writes:  fd 2 (log)
As:      whoever runs it
Exits:   what program exits with; 100 usage; 111 nobody answers, or a bug of ours
See:     tcpclient(1), qmail.md 21.4
"""

import os
import re
import socket
from collections.abc import Sequence
from typing import Final

from qm import errors
from qm.unix import chain, dial, fds, log, options
from qm.unix.lookups import Lookups, Wishes
from qm.unix.program import Argv, Env, Usage, enter_home, program
from qm.wire import ucspi
from qm.wire.ucspi import Address

NAME: Final = b"tcpclient"
_USAGE: Final = (
    "usage: tcpclient [-46hHrRdDqQv] [-i localip] [-p localport] [-T x+y] [-l localname] [-t timeout]"
    " host port program [arg ...]"
)
_PATIENCE: Final = re.compile(rb"(\d{1,6})(?:\+(\d{1,6}))?")
_READ, _WRITE = 6, 7  # the program's descriptors


def _number(letter: bytes, text: bytes, most: int) -> int:
    if not (text.isdigit() and len(text) < 8 and int(text) <= most):
        raise Usage(f"-{letter.decode()} wants a number up to {most}; {_USAGE}")
    return int(text)


def _last(found: Sequence[tuple[bytes, bytes]], letters: bytes) -> bytes:
    """Of opposite options the one that counts."""
    return next((letter for letter, _ in reversed(found) if letter in letters), b"")


class _Options:
    """What the command line says; here are the defaults."""

    def __init__(self, args: Argv) -> None:
        """Raises Usage."""
        found, rest = options.parse(args, _USAGE, flags=b"46hHrRdDqQv", valued=b"ipTlt")
        if len(rest) < 3:
            raise Usage(_USAGE)
        self.host, self.port, *self.program = rest
        values = dict(found)
        self.wishes = Wishes(
            look_up_host=_last(found, b"hH") != b"H",
            local_name=values.get(b"l"),
            ask_ident=_last(found, b"rR") != b"R",
            ident_s=_number(b"t", values.get(b"t", b"26"), 100_000),
        )
        self.nodelay = _last(found, b"dD") == b"D"
        loudness = _last(found, b"qQv")
        self.quiet, self.verbose = loudness == b"q", loudness == b"v"
        self.family = {b"4": socket.AF_INET, b"6": socket.AF_INET6}.get(_last(found, b"46"), 0)
        local_ip = values.get(b"i")
        self.here = dial.Here(os.fsdecode(local_ip) if local_ip else None, _number(b"p", values.get(b"p", b"0"), 65535))
        waits = _PATIENCE.fullmatch(values.get(b"T", b"2+58"))
        if waits is None:
            raise Usage(f"-T wants seconds, as 2+58; {_USAGE}")
        self.patience = dial.Patience(int(waits[1]), int(waits[2] or 0))


def _connect(wanted: _Options) -> socket.socket:
    """Raises Temporary."""
    found = dial.addresses(wanted.host, wanted.port, wanted.family)
    try:
        channel = dial.connect(found, wanted.patience, wanted.here)
        if wanted.nodelay:
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        where = f"{os.fsdecode(wanted.host)} port {os.fsdecode(wanted.port)}"
        raise errors.Temporary(f"unable to connect to {where}", detail=error.strerror or str(error)) from error
    return channel


def _address(name: tuple[str, int]) -> Address:
    return Address(ucspi.plain(name[0]), name[1])


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    wanted = _Options(argv[1:])
    fds.fill_standard()
    try:
        lookups = Lookups(NAME, wanted.wishes, env)
        channel = _connect(wanted)
    except errors.Temporary:
        if wanted.quiet:
            return errors.TEMPORARY
        raise
    local, remote = _address(channel.getsockname()), _address(channel.getpeername())
    if wanted.verbose:
        log.info(NAME, f"connected to {remote.ip.decode()} port {remote.port}")
    names = lookups(local, remote)
    base = ucspi.base(env, chain.search_path(env))
    fds.place({_READ: channel.fileno(), _WRITE: channel.fileno()})
    if channel.fileno() in (_READ, _WRITE):
        channel.detach()  # place has put the connection there
    else:
        channel.close()
    if chain.is_warm(wanted.program, env):
        enter_home(env)  # as each program of ours does that starts by itself
    return chain.prepare(wanted.program, env)(ucspi.environment(base, local, remote, names))
