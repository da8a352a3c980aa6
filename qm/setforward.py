"""setforward: compile forwarding instructions to a database for fastforward (setforward).

Usage:   setforward database temporary < instructions
Reads:   fd 0 (instructions)
Writes:  the temporary file, which replaces the database; fd 2 (what is wrong, with its line)
As:      whoever may write there
Exits:   0 compiled; 100 usage, or an instruction that is none, which is named; 111 trouble; the old database stays
See:     setforward(1), fastforward(1)
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from qm.disk import cdb
from qm.errors import OK, Permanent
from qm.unix import standard
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import forwarding
from qm.wire.forwarding import BadForward, Entry

SIZE_MAX: Final = 256 * 1024 * 1024  # bytes of instructions; some million aliases


def _items(entries: Iterable[Entry]) -> Iterator[tuple[bytes, bytes]]:
    known: dict[bytes, int] = {}
    for entry in entries:
        first = known.setdefault(entry.key, entry.line)
        if first != entry.line:
            raise BadForward(f"{entry.line}: the same target as in line {first}")
        yield entry.key, forwarding.encode(entry.commands)


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 3:
        raise Usage("usage: setforward database temporary < instructions")
    database, temporary = map(os.fsdecode, argv[1:])
    try:
        cdb.write(database, _items(forwarding.parse(standard.whole(SIZE_MAX))), temporary=temporary)
    except BadForward as error:
        raise Permanent("unable to parse the instructions", detail=f"line {error}") from error
    return OK
