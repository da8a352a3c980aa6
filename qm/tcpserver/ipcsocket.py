"""The Unix socket that connections come to, in a directory in which no other user can replace it.

Who holds PATH.lock may take a socket that is there already for a stale one.  Nobody can connect before the socket has
its owner and mode.  It stays when its server ends, who has no right to remove it any more.
"""

import os
import socket
import stat
from contextlib import suppress
from typing import Final

from qm.disk import lock, safety
from qm.errors import Temporary
from qm.tcpserver.options import Options
from qm.tcpserver.serving import socket_owner

_FOLDER_MODE: Final = 0o755  # who may connect is the socket's business


def _make(folder: str) -> None:
    """Below /run it is gone after each boot."""
    with suppress(FileExistsError):
        os.mkdir(folder)
        os.chmod(folder, _FOLDER_MODE)


def _remove_stale(path: bytes) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Temporary("cannot listen", detail=f"{os.fsdecode(path)} is there, and no socket; remove it")
        os.unlink(path)


def _bound(options: Options) -> socket.socket:
    """Closed to everybody but its owner until all is as the options say; raises OSError."""
    uid, gid = socket_owner(options)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(options.path)
        os.chown(options.path, uid, gid, follow_symlinks=False)
        os.chmod(options.path, options.mode)
        listener.listen(options.backlog)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener


def listen(options: Options) -> tuple[int, socket.socket]:
    """The lock, which must stay open, and the listener; raises Temporary."""
    path = os.fsdecode(options.path)
    folder = os.path.dirname(path) or "."
    try:
        _make(folder)
        safety.refuse_folder(folder)
        held = lock.take(f"{path}.lock")
        _remove_stale(options.path)
        return held, _bound(options)
    except OSError as error:
        raise Temporary("cannot listen", detail=f"{path}: {error.strerror}") from error
