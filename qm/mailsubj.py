"""mailsubj: send what comes on descriptor 0, under a subject (mailsubj).

Usage:   mailsubj subject recipient ...
Reads:   fd 0 (the body)
Env:     as qm-inject
Asks:    inject
As:      the caller
Exits:   100 usage; else what inject exits with
See:     mailsubj(1), qmail.md 16.3
"""

from itertools import chain

from qm.unix import child, standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.rfc822 import one_line


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 3:
        raise Usage("usage: mailsubj subject recipient ...")
    subject, *recipients = map(one_line, argv[1:])
    header = b"Subject: %b\nTo: %b\n\n" % (subject, b", ".join(recipients))
    return child.feed([b"qm-inject"], env, chain([header], standard.chunks()))
