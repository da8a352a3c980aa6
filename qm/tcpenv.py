"""tcp-env: tell a program who its peer is, where a super-server has put a connection on descriptor 0 (tcp-env).

Usage:   tcp-env [-rR] [-t timeout] program [arg ...]
Reads:   nothing from the peer, but ident and DNS answers, and those not as root
Env:     PROTO, DNSCACHEIP, QMCOLD, QMHOME; sets PROTO, TCPLOCALIP, TCPREMOTEIP and so on
Writes:  fd 2 (log), unless that is the connection
As:      whoever runs it
Exits:   what program exits with; 111 usage, no TCP connection on it, or a bug of ours
See:     tcp-env(1), qmail.md section 19
"""

import os
import socket
from typing import Final

from qm.errors import TEMPORARY, Temporary
from qm.unix import chain, fds, options
from qm.unix.lookups import Lookups, Wishes
from qm.unix.program import Argv, Env, Usage, enter_home, program
from qm.wire import ucspi
from qm.wire.ucspi import Address

NAME: Final = b"tcp-env"
_USAGE: Final = "usage: tcp-env [-rR] [-t timeout] program [arg ...]"
_TOLD: Final = (b"TCP", b"TCP6")  # PROTO, where somebody has set the environment already
_IDENT_S: Final = b"30"
_IDENT_MAX_S: Final = 100_000
_SOFT: Final = b"softdnserror"  # LITERAL: as qmail names whom DNS does not tell now


def _parse(args: Argv) -> tuple[Wishes, list[bytes]]:
    """What is to be found out, and the program; raises Usage."""
    found, words = options.parse(args, _USAGE, flags=b"rR", valued=b"t")
    seconds = dict(found).get(b"t", _IDENT_S)
    if not words or not (seconds.isdigit() and len(seconds) < 8 and int(seconds) <= _IDENT_MAX_S):
        raise Usage(_USAGE)
    ask = next((letter for letter, _ in reversed(found) if letter in b"rR"), b"r") == b"r"
    return Wishes(ask_ident=ask, ident_s=int(seconds), unanswered=_SOFT), words


def _ends() -> tuple[Address, Address]:
    """Here and there, of the connection on descriptor 0; raises Temporary."""
    try:
        with socket.socket(fileno=os.dup(0)) as channel:
            if channel.family not in (socket.AF_INET, socket.AF_INET6) or channel.type != socket.SOCK_STREAM:
                raise Temporary("descriptor 0 is no TCP connection")
            names = channel.getsockname(), channel.getpeername()
    except OSError as error:
        raise Temporary("descriptor 0 is no TCP connection", detail=error.strerror or str(error)) from error
    local, remote = (Address(ucspi.plain(ip), port) for ip, port, *_ in names)
    return local, remote


def _keep_the_log_from_the_peer() -> None:
    """inetd makes the connection descriptor 2 as well; what a program of ours logs is not for a stranger."""
    if os.path.sameopenfile(0, 2):
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        fds.place({2: null})
        os.close(null)


@program(at_home=False, permanent=TEMPORARY)
def main(argv: Argv, env: Env) -> int:
    fds.fill_standard()
    _keep_the_log_from_the_peer()
    wishes, following = _parse(argv[1:])
    told = env
    if env.get(b"PROTO") not in _TOLD:
        local, remote = _ends()
        names = Lookups(NAME, wishes, env)(local, remote)
        told = ucspi.environment(ucspi.base(env, chain.search_path(env)), local, remote, names)
    if chain.is_warm(following, env):
        enter_home(env)  # as each program of ours does that starts by itself
    return chain.prepare(following, told)(told)
