"""printforward: print a database of fastforward as instructions for setforward (printforward).

Usage:   printforward < database
Reads:   fd 0 (the database)
Writes:  fd 1 (instructions), fd 2 (what is wrong)
As:      whoever may read it
Exits:   0 printed; 100 usage; 111 trouble, or no such database
See:     printforward(1), setforward(1)
"""

from typing import Final

from qm.disk import cdb
from qm.errors import OK, Temporary
from qm.unix import standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import forwarding

SIZE_MAX: Final = 1024 * 1024 * 1024  # bytes of a database


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: printforward < database")
    for key, value in cdb.records(standard.whole(SIZE_MAX)):
        try:
            commands = forwarding.decode(value)
        except ValueError as error:
            raise Temporary("the database is not one of fastforward", detail=f"{error}") from error
        standard.write(forwarding.unparse(key, commands))
    return OK
