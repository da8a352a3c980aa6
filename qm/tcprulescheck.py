"""tcprulescheck: what tcpserver would do about a connection.

Usage:   tcprulescheck rules.cdb
Reads:   rules.cdb
Env:     TCPREMOTEIP (default 0.0.0.0), TCPREMOTEHOST, TCPREMOTEINFO
Writes:  fd 1 (the rule, its variables, the verdict)
As:      whoever may read it
Exits:   0 told; 100 usage; 111 rules.cdb cannot be read
See:     tcprulescheck(1), qmail.md 21.3
"""

import os
import sys

from qm import errors
from qm.disk.tcprules import Rules, Verdict
from qm.unix.program import Argv, Env, Usage, program


def _text(verdict: Verdict) -> bytes:
    decision, address = verdict
    lines = [b"default:" if address is None else b"rule %b:" % address]
    if decision.allow:
        lines += [b"set environment variable %b=%b" % variable for variable in decision.variables]
    lines.append(b"allow connection" if decision.allow else b"deny connection")
    return b"".join(line + b"\n" for line in lines)


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 2:
        raise Usage("usage: tcprulescheck rules.cdb")
    rules = Rules(os.fsdecode(argv[1]))
    peer = env.get(b"TCPREMOTEIP", b"0.0.0.0"), env.get(b"TCPREMOTEHOST"), env.get(b"TCPREMOTEINFO")
    sys.stdout.buffer.write(_text(rules.judge(*peer)))
    sys.stdout.buffer.flush()
    return errors.OK
