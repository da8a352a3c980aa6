"""mailq: list what is in the queue (mailq), as sendmail -bp does.

Usage:   mailq
Env:     QMHOME
Writes:  fd 1 (the list)
Asks:    qread
As:      whoever may read the queue
Exits:   as qread
See:     sendmail(8), qm-qread(8), qmail.md 16.2
"""

from qm.unix import chain
from qm.unix.program import Argv, Env, program


@program()
def main(argv: Argv, env: Env) -> int:
    return chain.prepare([b"sendmail", b"-bp"], env)(env)
