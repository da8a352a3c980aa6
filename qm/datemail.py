"""datemail: sendmail, with a Date field in local time (datemail).

Usage:   datemail [sendmail's options] [recipient ...]
Reads:   fd 0 (the message)
Env:     as predate and sendmail
Asks:    predate, which runs sendmail
As:      the caller
Exits:   as predate
See:     datemail(1), qmail.md 16.3
"""

from qm.unix import chain
from qm.unix.program import Argv, Env, program


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    return chain.prepare([b"predate", b"sendmail", *argv[1:]], env)(env)
