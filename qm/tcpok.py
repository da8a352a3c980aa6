"""tcpok: have rspawn forget which addresses did not answer lately, so that they are tried again (qmail-tcpok).

Usage:   qm-tcpok
Env:     QMHOME
Asks:    rspawn, by run/rspawn
As:      root, or the owner of a private system
Exits:   0; 100 usage; 111 rspawn cannot be asked
See:     qm-tcpok(8), qmail.md sections 14.3, 19
"""

from qm import errors
from qm.unix import silentclient
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.record import Malformed
from qm.wire.silent import CLEAR, unpack_cleared


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-tcpok")
    try:
        unpack_cleared(silentclient.ask(CLEAR))
    except Malformed as error:
        raise silentclient.trouble(str(error)) from error
    return errors.OK
