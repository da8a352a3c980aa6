"""userd: tell whether an address has a mailbox here, and whether a name and password may log in.

Usage:   qm-userd
Reads:   users/socket (questions), users/cdb, users/passwd.cdb, users/salt, .qmail files by name, the accounts and their
         passwords, control/{me,authcachetime,authfailaccount,authfailaddress,authfaildelay,authfailtime,
         authmechanisms,authsenders,concurrencylogin,concurrencyuserd,envnoathost,limitdomains,limitmessages,
         limitrecipients,locals,logins,percenthack,roles,timeoutlogin,virtualdomains}
Env:     QMHOME, QMREADY (a descriptor that gets one byte when the socket listens)
Writes:  users/socket (answers), users/userd.lock, users/salt (once), fd 2 (log)
As:      root, or the owner of a private system; passwords are checked by workers that are qmailp, or root where
         control/logins names PAM or a program
Exits:   0 after SIGTERM; 100 usage; 111 trouble, or another userd serves this home
See:     qm-userd(8), docs/INTERNALS.md 1.7

Only root, the owner, qmaild and qmailp may ask.  SIGHUP forgets everything that was remembered, failed logins too.
"""

import os
import signal
import socket
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk import lock
from qm.disk.control import Controls
from qm.errors import Temporary
from qm.unix import privs
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env, Usage, program, ready
from qm.userd.answers import CONTROLS
from qm.userd.session import Server

SOCKET: Final = "users/socket"
LOCK: Final = "users/userd.lock"
BACKLOG: Final = 128  # connections that wait to be taken


def _listen() -> socket.socket:
    """The socket that everybody may connect to; SO_PEERCRED says whom we answer.

    Who holds the lock may take a socket that is there already for a stale one.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o111)
    try:
        with suppress(FileNotFoundError):
            os.unlink(SOCKET)
        listener.bind(SOCKET)
        listener.listen(BACKLOG)
    except OSError as error:
        raise Temporary("cannot listen", detail=f"{SOCKET}: {error.strerror}") from error
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-userd")
    os.umask(0o077)
    controls = Controls(CONTROLS)
    may_ask = frozenset((0, os.geteuid(), privs.role("qmaild").uid, privs.role("qmailp").uid))
    lock.take(LOCK)  # until we end
    loop = Loop()
    listener = _listen()
    server = Server(loop, listener, controls, may_ask)
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(signum, loop.stop)
    loop.on_signal(signal.SIGHUP, server.forget)
    ready(env)
    loop.run()
    with suppress(FileNotFoundError):
        os.unlink(SOCKET)
    listener.close()
    server.close()
    return errors.OK
