"""rspawn: give each delivery to another host to a worker that talks SMTP (qmail-rspawn).

Reads:   fd 0 (records from send, with the message's descriptor), run/rspawn (questions of tcpto and tcpok),
         control/{concurrencyremote,lmtproutes,remoteidle,smtproutes}, and by its keeper control/smtpauth; its workers
         read what remote reads
Env:     QMAILREMOTE (a program in the place of qm-remote), QMREADY (a descriptor that gets one byte when it serves)
Writes:  fd 0 (reports), run/rspawn (answers), fd 2 (log)
As:      qmailr; the process itself parses send's records and nothing else; its keeper: root
Exits:   0 when send has gone, or after SIGTERM, once the deliveries have ended; 100 usage; 111 trouble
See:     qm-rspawn(8), qmail.md sections 9, 11; docs/INTERNALS.md 1.6.1, 1.6.2

SIGHUP reads the control files again, but for those of the workers, who look for themselves.  A worker keeps its session
for the next message to the same destination.  What goes wrong here is a temporary failure.
"""

import os
import socket
from typing import Final

from qm import errors
from qm.disk.control import Controls
from qm.rspawn import door, foreign, keeper
from qm.rspawn.session import CONTROLS, Spawner
from qm.unix import chain, confine, privs
from qm.unix.program import Argv, Env, Usage, program, ready

NAME: Final = b"qm-rspawn"


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-rspawn")
    os.umask(0o077)
    listener = door.listen()
    logins = None
    if b"QMAILREMOTE" in env:
        entrance = foreign.entrance(env[b"QMAILREMOTE"], env)
        privs.become(privs.role("qmailr"))
    else:
        logins = keeper.start()
        remote = chain.entrance(b"qm-remote")  # imports what workers need, while we may still read it
        privs.become(privs.role("qmailr"))
        entrance = remote()
    confine.gain_nothing()
    spawner = Spawner(socket.socket(fileno=os.dup(0)), entrance, Controls(CONTROLS), listener, logins)
    ready(env)
    spawner.run()
    return errors.OK
