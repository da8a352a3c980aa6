"""fixcrio, fixcrlf: run a program, with a carriage return before each newline that it reads or writes.

Usage:   fixcrio program [arg ...]
Reads:   fd 0 (in a child, which passes it on)
Env:     QMCOLD
Writes:  fd 1 (likewise)
As:      whoever runs it; for root the child is qmaild, or nobody
Exits:   what program exits with; 100 usage; 111 no process for the child
See:     fixcrio(1), qmail.md 21.6
"""

from qm.unix import relay
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.lineends import FixCr


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 2:
        raise Usage("usage: fixcrio program [arg ...]")
    return relay.beside(argv, env, lambda _: (FixCr(), FixCr()))
