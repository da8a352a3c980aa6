"""newaliases: compile sendmail's alias file to a database for fastforward (newaliases of fastforward); sendmail -bi.

Usage:   newaliases
Reads:   control/{aliasfile,envnoathost}, the file that aliasfile names
Env:     QMHOME
Writes:  that name and .cdb; fd 1 (how many there are), fd 2 (what is wrong, with file and line)
As:      the owner of that file
Exits:   0 compiled; 100 usage; 111 trouble or a bad line: the old database stays
See:     newaliases(1), fastforward(1), sendmail(8)
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from qm.disk import cdb
from qm.disk.control import Controls
from qm.errors import OK, Temporary
from qm.unix import log, standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import aliases, forwarding
from qm.wire.aliases import Aliases
from qm.wire.forwarding import OWNER, BadForward

NAME: Final = b"newaliases"
SIZE_MAX: Final = 256 * 1024 * 1024  # bytes of the text; some million aliases


@contextmanager
def _text(path: str) -> Iterator[bytes]:
    """What the file says, with a lock on it until its database is written."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise Temporary("the aliases are not safe", detail=f"{path}: everybody may write it; chmod o-w")
            text = file.read(SIZE_MAX + 1)
            if len(text) > SIZE_MAX:
                raise Temporary("cannot read the aliases", detail=f"{path}: larger than {SIZE_MAX} bytes")
            yield text
    except BlockingIOError as error:
        raise Temporary("another newaliases is at work; try again") from error
    except OSError as error:
        raise Temporary("cannot read the aliases", detail=f"{path}: {error.strerror}") from error


def _summary(path: str, found: Aliases) -> str:
    sizes = [len(forwarding.encode(entry.commands)) for entry in found.entries if not entry.key.startswith(OWNER)]
    return f"{path}: {len(sizes)} aliases, longest {max(sizes, default=0)} bytes, {sum(sizes)} bytes total\n"


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: newaliases")
    controls = Controls(("aliasfile", "envnoathost"))
    path = os.fsdecode(controls.line("aliasfile"))
    with _text(path) as text:
        try:
            found = aliases.parse(text, controls.line("envnoathost"))
        except BadForward as error:
            raise Temporary("the aliases are broken", detail=f"{path}:{error}") from error
        for warning in found.warnings:
            log.warning(NAME, f"{path}:{warning}")
        cdb.write(f"{path}.cdb", ((entry.key, forwarding.encode(entry.commands)) for entry in found.entries))
    standard.write(os.fsencode(_summary(path, found)))
    return OK
