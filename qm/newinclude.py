"""newinclude: compile an :include: file of sendmail's to the list that fastforward reads (newinclude).

Usage:   newinclude list
Reads:   the list, control/envnoathost
Env:     QMHOME
Writes:  list.bin; fd 2 (what is wrong, with its line)
As:      the list's owner
Exits:   0 compiled; 100 usage, or a line that is no address, which is named; 111 trouble; the old list.bin stays
See:     newinclude(1), newaliases(1), fastforward(1)
"""

import os
from typing import Final

from qm.disk import atomic
from qm.disk.control import Controls
from qm.errors import OK, Permanent, Temporary
from qm.unix.program import Argv, Env, Usage, home_from_here, program
from qm.wire import aliases, forwarding, maillist
from qm.wire.forwarding import BadForward

SIZE_MAX: Final = 16 * 1024 * 1024  # bytes, as fastforward reads them
_READABLE: Final = 0o644  # the alias user reads it


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            text = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise Temporary("cannot read the list", detail=f"{path}: {error.strerror}") from error
    if len(text) > SIZE_MAX:
        raise Temporary("cannot read the list", detail=f"{path}: larger than {SIZE_MAX} bytes")
    return text


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 2:
        raise Usage("usage: newinclude list")
    path = os.fsdecode(argv[1])
    host = Controls(("envnoathost",), os.fsdecode(home_from_here(env) + b"/control")).line("envnoathost")
    try:
        compiled = forwarding.encode(aliases.included(_read(path), host))
    except BadForward as error:
        raise Permanent("unable to parse the list", detail=f"{path}:{error}") from error
    target = path + os.fsdecode(maillist.COMPILED)
    atomic.replace(target, lambda file: file.write(compiled), mode=_READABLE)
    return OK
