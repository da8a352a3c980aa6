"""tcpserver: accept TCP connections and run a program for each, on its descriptors 0 and 1.

Usage:   tcpserver [-146UXpPhHrRoOdDqQv] [-c limit] [-C limit] [-x rules.cdb] [-B banner] [-g gid] [-u uid]
         [-b backlog] [-l localname] [-t timeout] host port program [arg ...]
Reads:   the rules; nothing from a peer, but ident and DNS answers, and those not as root
Env:     UID, GID (with -U), DNSCACHEIP, QMCOLD, QMREADY; sets PROTO, TCPLOCALIP, TCPREMOTEIP and so on
Writes:  fd 1 (with -1, the port), fd 2 (log)
As:      root to bind a low port, then -u and -g; a program of ours that needs no root must get them
Exits:   0 after SIGTERM; 100 usage; 111 it cannot listen, or a bug of ours
See:     tcpserver(1), qmail.md 21.1

A program of ours runs warm, in workers that serve one connection after another; a stranger's is exec'd for each.
"""

import os

from qm import errors
from qm.disk.tcprules import Rules
from qm.tcpserver import listener
from qm.tcpserver.options import parse
from qm.tcpserver.server import Server
from qm.tcpserver.serving import drop_privileges, let_go_of_standard
from qm.tcpserver.session import NAME, Session, meet
from qm.unix import chain, fds
from qm.unix.lookups import Lookups, Wishes
from qm.unix.program import Argv, Env, enter_home, program, ready
from qm.unix.spawner import Work
from qm.wire import ucspi


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    options = parse(argv[1:])
    fds.fill_standard()
    here = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # where the rules' path starts
    warm = chain.is_warm(options.program, env)
    wishes = Wishes(options.look_up_host, options.paranoid, options.local_name, options.ask_ident, options.ident_s)
    lookups = Lookups(NAME, wishes, env)
    door = listener.listen(options)
    place, port = listener.place(door), b"%d" % door.getsockname()[1]
    if warm:
        enter_home(env)  # as each program of ours does that starts by itself; later we may not be able to
    drop_privileges(options, env)
    base = ucspi.base(env, chain.search_path(env))
    run = chain.prepare(options.program, base)  # once: whatever is broken later, fresh workers know what was good now

    def enter(_: None) -> Work:
        rules = None
        if options.rules:
            rules = Rules(os.fsdecode(options.rules), optional=options.rules_optional, dir_fd=here)
        return Session(options, place, base, run, rules, lookups)

    server = Server(door, options, meet, enter, warm=warm, keep=(here,) if options.rules else ())
    if options.print_port:
        os.write(1, port + b"\n")
    let_go_of_standard()
    ready(env, port)
    server.run()
    return errors.OK
