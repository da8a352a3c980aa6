"""bouncesaying: return the message with a text, always or if a program says so; for a line of a .qmail file.

Usage:   bouncesaying text [program [arg ...]]
Reads:   fd 0 (the message: the program's)
Asks:    the program, which exits 0 for yes
Writes:  fd 2 (the text)
As:      the recipient
Exits:   0 no: go on with the next line; 100 yes, or usage; 111 not now
See:     bouncesaying(1), dot-qmail(5), qmail.md section 17
"""

from qm.errors import OK, PERMANENT, TEMPORARY
from qm.unix import child, standard
from qm.unix.program import Argv, Env, Usage, program


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 2:
        raise Usage("usage: bouncesaying text [program [arg ...]]")
    code = child.run(argv[2:], env) if len(argv) > 2 else OK
    if code != OK:
        return TEMPORARY if code == TEMPORARY else OK
    standard.write(argv[1] + b"\n", 2)
    return PERMANENT
