"""addcr: put a carriage return before each newline, also where there is one.

Usage:   addcr
Reads:   fd 0
Writes:  fd 1
As:      whoever runs it
Exits:   0 at the end of the input; 111 it cannot read or write
See:     addcr(1), qmail.md 21.6
"""

from qm.errors import OK
from qm.unix import standard
from qm.unix.program import Argv, Env, program
from qm.wire.lineends import add_cr


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    change = add_cr
    for chunk in standard.chunks():
        standard.write(change(chunk))
    standard.write(change(b""))
    return OK
