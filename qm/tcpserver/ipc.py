"""ipcserver: accept connections at a Unix socket and run a program for each, on its descriptors 0 and 1.

Usage:   ipcserver [-pqQvU] [-c limit] [-C limit] [-B banner] [-g gid] [-u uid] [-o owner] [-r group] [-m mode]
         [-b backlog] path program [arg ...]
Reads:   nothing from a peer
Env:     UID, GID (with -U), QMCOLD, QMREADY; sets PROTO, IPCLOCALPATH, IPCREMOTEEUID and so on
Writes:  fd 2 (log); the socket, and its lock beside it
As:      root to give the socket away, then -u and -g; a program of ours that needs no root must get them
Exits:   0 after SIGTERM; 100 usage; 111 it cannot listen, or a bug of ours
See:     ipcserver(1)

tcpserver but for the socket; a program of ours runs warm here, too.
"""

from qm import errors
from qm.tcpserver import ipcsocket
from qm.tcpserver.ipcsession import Session, meet
from qm.tcpserver.options import parse_ipc
from qm.tcpserver.server import Server
from qm.tcpserver.serving import drop_privileges, let_go_of_standard
from qm.unix import chain, fds
from qm.unix.program import Argv, Env, enter_home, program, ready
from qm.unix.spawner import Work
from qm.wire import ucspi


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    options = parse_ipc(argv[1:])
    fds.fill_standard()
    warm = chain.is_warm(options.program, env)
    lock, door = ipcsocket.listen(options)
    if warm:
        enter_home(env)
    drop_privileges(options, env)
    base = ucspi.base(env, chain.search_path(env))
    run = chain.prepare(options.program, base)

    def enter(_: None) -> Work:
        return Session(options, base, run)

    server = Server(door, options, meet, enter, warm=warm)
    let_go_of_standard()
    ready(env)
    server.run()
    fds.close_all([lock])
    return errors.OK
