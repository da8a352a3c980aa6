"""except: turn a program's yes into no; for a line of a .qmail file (except).

Usage:   except program [arg ...]
Reads:   fd 0 (the message: the program's)
As:      the recipient
Exits:   100 the program exits 0, or usage; 111 the program does, or was killed; 0 in every other case
See:     except(1), dot-qmail(5), qmail.md section 17
"""

from qm.errors import OK, PERMANENT, TEMPORARY
from qm.unix import child
from qm.unix.program import Argv, Env, Usage, program


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 2:
        raise Usage("usage: except program [arg ...]")
    return {OK: PERMANENT, TEMPORARY: TEMPORARY}.get(child.run(argv[1:], env), OK)
