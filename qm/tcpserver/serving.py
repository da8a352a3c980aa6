"""What tcpserver and ipcserver do alike: becoming who they shall be, and running the program on a connection.

Between two connections a worker holds /dev/null as 0 and 1, and nothing of the last one.
"""

import os
import socket
from collections.abc import Sequence
from typing import Final

from qm import errors
from qm.tcpserver.options import Options
from qm.unix import fds, log, privs
from qm.unix.chain import Runner
from qm.unix.program import Env

_UNCHANGED: Final = (b"", b"0")


def drop_privileges(options: Options, env: Env) -> None:
    """Be -u and -g, numbers or names, or with -U what UID and GID in the environment say; 0 is unchanged."""
    user, group = options.user, options.group
    if options.ids_from_environment:
        user, group = env.get(b"UID", b""), env.get(b"GID", b"")
    uid = 0 if user in _UNCHANGED else privs.user_id(os.fsdecode(user))
    gid = 0 if group in _UNCHANGED else privs.group_id(os.fsdecode(group))
    if gid and not (uid and privs.is_root()):
        privs.join(gid)
    if uid:
        if not (gid or os.getgid()):
            log.warning(options.name, "-u without -g: the program has the group of root")
        privs.become(privs.Ids(uid, gid or os.getgid()))


def socket_owner(options: Options) -> tuple[int, int]:
    """The ids of -o and -r; -1 is unchanged.  Raises Temporary."""
    uid = privs.user_id(os.fsdecode(options.owner)) if options.owner else -1
    gid = privs.group_id(os.fsdecode(options.socket_group)) if options.socket_group else -1
    return uid, gid


def let_go_of_standard() -> None:
    """Close descriptors 0 and 1, as tcpserver does, without leaving their numbers to others."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    fds.place({0: null, 1: null})
    os.close(null)


def greet(channel: socket.socket, banner: bytes) -> None:
    """Write the banner; raises OSError if the peer, who has had nothing yet, does not take it at once."""
    if banner and channel.send(banner, socket.MSG_DONTWAIT) < len(banner):
        raise BlockingIOError(0, "it does not take the banner")


class Host:
    """A worker's way to run *program*."""

    def __init__(self, program: Sequence[bytes], run: Runner) -> None:
        self._program = program
        self._run = run
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def serve(self, channel: socket.socket, env: Env) -> int:
        """Run the program on the connection; if it is a stranger's, this process becomes it."""
        os.dup2(channel.fileno(), 0)
        os.dup2(channel.fileno(), 1)
        channel.close()  # the program alone says when the connection ends
        try:
            return self._run(env)
        except errors.QmError as error:
            log.fatal(os.path.basename(self._program[0]), str(error))
            return error.exit_code
        finally:
            os.dup2(self._null, 0)
            os.dup2(self._null, 1)
