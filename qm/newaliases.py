"""newaliases: what rebuilds sendmail's alias database; there is none here (newaliases), as sendmail -bi.

Usage:   newaliases
Env:     QMHOME
Writes:  fd 2 (that there is none)
As:      whoever calls it
Exits:   100
See:     sendmail(8), dot-qmail(5), qmail.md 16.2
"""

from qm.unix import chain
from qm.unix.program import Argv, Env, program


@program()
def main(argv: Argv, env: Env) -> int:
    return chain.prepare([b"sendmail", b"-bi"], env)(env)
