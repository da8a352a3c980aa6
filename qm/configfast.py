"""config-fast: make the control files that follow from this host's full name, without asking DNS (config-fast).

Usage:   config-fast host
Env:     QMHOME
Writes:  control/{me,defaultdomain,plusdomain}; a line of control/{locals,rcpthosts}, behind those that are there;
         fd 1 (what is done)
As:      the owner of control/
Exits:   0 done; 100 usage, or no full host name; 111 trouble
See:     config-fast(8), qm(8), qm-control(5), qmail.md section 19
"""

import os

from qm.disk import hostfiles
from qm.errors import OK, Permanent
from qm.unix import standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import hostcontrols


def _say(text: str) -> None:
    standard.write(f"{text}\n".encode())


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 2:
        raise Usage("usage: config-fast host")
    host = hostcontrols.full_name(os.fsdecode(argv[1]))
    if host is None:
        raise Permanent("that is not a full host name, as mail.example.org")
    _say(f"Your fully qualified host name is {host}.")
    hostfiles.put_single_lines(host, _say)
    for name in hostcontrols.LISTS:
        _say(f"Putting {host} into control/{name}...")
        hostfiles.put_domains(name, [host], keep=True)
    _say(f"Now SMTP messages are refused except to what control/rcpthosts has, {host} among it.")
    _say("Change rcpthosts if you add hosts to locals or virtualdomains!")
    return OK
