"""tcpto: list the addresses of other hosts that did not answer lately (qmail-tcpto).

Usage:   qm-tcpto
Env:     QMHOME
Writes:  fd 1
Asks:    rspawn, by run/rspawn
As:      root, or the owner of a private system
Exits:   0; 100 usage; 111 rspawn cannot be asked
See:     qm-tcpto(8), qmail.md sections 14.3, 19
"""

import sys

from qm import errors
from qm.unix import silentclient
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.record import Malformed
from qm.wire.silent import KNOWN, unpack_known


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-tcpto")
    try:
        known = unpack_known(silentclient.ask(KNOWN))
    except Malformed as error:
        raise silentclient.trouble(str(error)) from error
    for address, times, ago_s in known:
        sys.stdout.write(f"{address.decode()} timed out {ago_s} seconds ago; # recent timeouts: {times}\n")
    return errors.OK
