"""predate: run a program with the message on descriptor 0 and a Date field before it, in local time (predate).

Usage:   predate program [arg ...]
Reads:   fd 0 (the message)
Env:     TZ, and what the program reads
As:      the caller
Exits:   100 usage; 111 trouble, or the program was killed; else what the program exits with
See:     predate(1), qmail.md 16.3
"""

import time
from itertools import chain

from qm.unix import child, standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import date


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 2:
        raise Usage("usage: predate program [arg ...]")
    now_s = int(time.time())
    field = b"Date: " + date.rfc5322_local(now_s, time.localtime(now_s).tm_gmtoff) + b"\n"
    return child.feed(argv[1:], env, chain([field], standard.chunks()))
