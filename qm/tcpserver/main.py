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
from typing import Final

from qm import errors
from qm.disk.tcprules import Rules
from qm.tcpserver import listener
from qm.tcpserver.options import Options, parse
from qm.tcpserver.server import Server
from qm.tcpserver.session import NAME, Session
from qm.unix import chain, fds, log, privs
from qm.unix.lookups import Lookups, Wishes
from qm.unix.program import Argv, Env, enter_home, program, ready
from qm.unix.spawner import Work
from qm.wire import ucspi

_UNCHANGED: Final = (b"", b"0")


def _drop_privileges(options: Options, env: Env) -> None:
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
            log.warning(NAME, "-u without -g: the program has the group of root")
        privs.become(privs.Ids(uid, gid or os.getgid()))


def _let_go_of_standard() -> None:
    """Close descriptors 0 and 1, as tcpserver does, without leaving their numbers to others."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    fds.place({0: null, 1: null})
    os.close(null)


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
    _drop_privileges(options, env)
    base = ucspi.base(env, chain.search_path(env))
    run = chain.prepare(options.program, base)  # once: whatever is broken later, fresh workers know what was good now

    def enter(_: None) -> Work:
        rules = None
        if options.rules:
            rules = Rules(os.fsdecode(options.rules), optional=options.rules_optional, dir_fd=here)
        return Session(options, place, base, run, rules, lookups)

    server = Server(door, options, enter, warm=warm, keep=(here,) if options.rules else ())
    if options.print_port:
        os.write(1, port + b"\n")
    _let_go_of_standard()
    ready(env, port)
    server.run()
    return errors.OK
