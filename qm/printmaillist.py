"""printmaillist: print a compiled mailing list as lines for setmaillist (printmaillist).

Usage:   printmaillist < list
Reads:   fd 0 (the list)
Writes:  fd 1 (a line for each address), fd 2 (what is wrong)
As:      whoever may read it
Exits:   0 printed; 100 usage; 111 trouble, or no such list
See:     printmaillist(1), setmaillist(1)
"""

from typing import Final

from qm.errors import OK, Temporary
from qm.unix import standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import maillist

SIZE_MAX: Final = 16 * 1024 * 1024  # bytes, as fastforward reads them


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: printmaillist < list")
    try:
        commands = maillist.decode(standard.whole(SIZE_MAX))
    except ValueError as error:
        raise Temporary("this is no compiled list", detail=f"{error}") from error
    standard.write(maillist.unparse(commands))
    return OK
