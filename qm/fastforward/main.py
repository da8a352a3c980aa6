"""fastforward: forward a message as a database of aliases says; for a line of alias/.qmail-default (fastforward).

Usage:   fastforward [-nNpPdD] database
Reads:   fd 0 (the message, seekable), the database, lists that it names; control/envnoathost
Env:     RECIPIENT, or with -d DEFAULT and HOST; NEWSENDER, DTLINE; UFLINE, RPLINE for programs and mailboxes
         (qmail.md 13.5); QMTLS; QMHOME
Writes:  mailboxes that the database names; fd 1 (-n: what would be done), fd 2 (the new messages' IDs)
Asks:    queue; runs programs that the database names
As:      the alias user
Exits:   0 done, or with -p not in the database; 99 with -p: done; 100 usage, not in the database, a program says so, or
         the queue refuses; 111 not now
See:     fastforward(1), setforward(1), newaliases(1)
"""

import os
from typing import Final

from qm.disk.cdb import Cdb
from qm.disk.control import Controls
from qm.errors import OK, PERMANENT, Temporary
from qm.fastforward.policy import Expansion
from qm.fastforward.session import Delivery, read_list
from qm.unix import dotqmailenv, standard
from qm.unix.options import parse
from qm.unix.program import Argv, Env, Usage, home_from_here, program

USAGE: Final = "usage: fastforward [-nNpPdD] database"
STOP: Final = 99
_UNKNOWN: Final = b"Sorry, no mailbox here by that name. (#5.1.1)\n"  # into the bounce, as if there were no .qmail file


def _database(path: bytes) -> Cdb:
    database = Cdb(os.fsdecode(path))
    database.refresh()
    if not database.present:
        raise Temporary("there is no forwarding database", detail=f"{os.fsdecode(path)}: make it, as by newaliases")
    return database


def _host(env: Env) -> bytes:
    """What an address in an :include: file lacks; such a file is rare, so it is asked for late."""
    return Controls(("envnoathost",), os.fsdecode(home_from_here(env) + b"/control")).line("envnoathost")


def _report(address: bytes, expansion: Expansion) -> bytes:
    lines = [b"recipient %b\n" % address]
    lines += [b"%b %b\n" % (kind.name.lower().encode(), argument) for kind, argument in expansion.local]
    for sender, recipients in expansion.mails.items():
        lines += [b"sender <%b>\n" % sender, *(b"forward %b\n" % recipient for recipient in recipients)]
    return b"".join(lines)


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    given, words = parse(argv[1:], USAGE, flags=b"nNpPdD")
    if len(words) != 1:
        raise Usage(USAGE)
    last = {letter.lower(): letter.islower() for letter, _ in given}
    if last.get(b"d"):
        address = dotqmailenv.variable(env, b"DEFAULT") + b"@" + dotqmailenv.variable(env, b"HOST")
    else:
        address = dotqmailenv.variable(env, b"RECIPIENT")
    database = _database(words[0])
    sender = dotqmailenv.variable(env, b"NEWSENDER")
    expansion = Expansion(database.lookup, lambda path: read_list(path, _host(env)), sender)
    if not expansion.run(address):
        if last.get(b"p"):
            return OK
        standard.write(_UNKNOWN, 2)
        return PERMANENT
    if last.get(b"n"):
        standard.write(_report(address, expansion))
        return OK
    Delivery(env).run(expansion)
    return STOP if last.get(b"p") else OK
