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
from typing import Final

from qm import errors
from qm.disk import lock
from qm.disk.control import Controls
from qm.unix import confine, door, privs
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env, Usage, program
from qm.userd.answers import CONTROLS
from qm.userd.session import Server

SOCKET: Final = "users/socket"
LOCK: Final = "users/userd.lock"


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-userd")
    os.umask(0o077)
    controls = Controls(CONTROLS)
    confine.gain_nothing()  # its workers inherit it
    may_ask = frozenset((0, os.geteuid(), privs.role("qmaild").uid, privs.role("qmailp").uid))
    lock.take(LOCK)  # until we end
    loop = Loop()
    listener = door.listen(SOCKET)
    server = Server(loop, listener, controls, may_ask)
    door.serve(loop, SOCKET, listener, server, env, server.forget)
    return errors.OK
