"""setmaillist: compile a mailing list for fastforward (setmaillist).

Usage:   setmaillist list temporary < addresses
Reads:   fd 0 (a line for each address)
Writes:  the temporary file, which replaces the list; fd 2 (what is wrong, with its line)
As:      whoever may write there
Exits:   0 compiled; 100 usage, or a line that is no address, which is named; 111 trouble; the old list stays
See:     setmaillist(1), fastforward(1)
"""

import os
from typing import Final

from qm.disk import atomic
from qm.errors import OK, Permanent
from qm.unix import standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import forwarding, maillist
from qm.wire.forwarding import BadForward

SIZE_MAX: Final = 16 * 1024 * 1024  # bytes, as fastforward reads them
_READABLE: Final = 0o644  # the alias user reads it


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 3:
        raise Usage("usage: setmaillist list temporary < addresses")
    path, temporary = map(os.fsdecode, argv[1:])
    try:
        compiled = forwarding.encode(maillist.parse(standard.whole(SIZE_MAX)))
    except BadForward as error:
        raise Permanent("unable to parse the list", detail=f"line {error}") from error
    atomic.replace(path, lambda file: file.write(compiled), mode=_READABLE, temporary=temporary)
    return OK
