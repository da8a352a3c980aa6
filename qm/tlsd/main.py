"""tlsd: shake hands for the programs that serve the network, and pass bytes between a peer and them.

Usage:   qm-tlsd
Reads:   tls/socket (jobs), the networks that come with them, control/{concurrencytls,roles}, certificates and keys
Env:     QMHOME, QMREADY (a descriptor that gets one byte when the socket listens)
Writes:  tls/socket (answers), the networks, tls/lock, fd 2 (log)
As:      root, or the owner of a private system, to read the keys; peers are read by workers that are qmailt
Exits:   0 after SIGTERM; 100 usage; 111 trouble, or another tlsd serves this home
See:     qm-tlsd(8), docs/INTERNALS.md 1.12, RFC 8446, RFC 9325

Only root, the owner, qmaild and qmailp may ask.  SIGHUP looks at the certificates at once.
"""

import os
from typing import Final

from qm import errors
from qm.disk import lock
from qm.disk.control import Controls
from qm.tlsd.server import CONTROLS, Server
from qm.unix import confine, door, privs
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env, Usage, program

SOCKET: Final = "tls/socket"
LOCK: Final = "tls/lock"


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-tlsd")
    os.umask(0o077)
    controls = Controls(CONTROLS)
    confine.gain_nothing()  # its workers inherit it
    may_ask = frozenset((0, os.geteuid(), privs.role("qmaild").uid, privs.role("qmailp").uid))
    privs.role("qmailt")  # there is one, or we say so now
    lock.take(LOCK)  # until we end
    loop = Loop()
    listener = door.listen(SOCKET)
    server = Server(loop, listener, controls, may_ask)
    door.serve(loop, SOCKET, listener, server, env, server.look_anew)
    return errors.OK
