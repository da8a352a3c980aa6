"""tcprules: compile rules for tcpserver.

Usage:   tcprules rules.cdb rules.tmp < rules
Reads:   fd 0 (rules)
Writes:  rules.tmp, which replaces rules.cdb; fd 2 (errors)
As:      whoever may write there
Exits:   0 compiled; 100 usage, or a line that is no rule, which is named; 111 trouble, rules.cdb is as before
See:     tcprules(1), qmail.md 21.3
"""

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from qm import errors
from qm.disk import cdb
from qm.unix import log
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import tcprules

NAME: Final = b"tcprules"
_READABLE: Final = 0o644  # before umask; tcpserver reads it as another user


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    count = 0
    try:
        while line := file.readline(tcprules.LINE_MAX + 1):
            count += 1
            if len(line) > tcprules.LINE_MAX:
                raise errors.Permanent(f"line {count} is longer than {tcprules.LINE_MAX} bytes")
            yield count, line
    except OSError as error:
        raise errors.Temporary("cannot read the rules", detail=str(error.strerror)) from error


def _parse(count: int, line: bytes) -> tcprules.Rule | None:
    try:
        rule = tcprules.parse(line)
    except tcprules.BadRule as error:
        text = os.fsdecode(line.rstrip(b"\n"))
        raise errors.Permanent("unable to parse the rules", detail=f"line {count}, '{text}': {error}") from error
    if rule is not None and tcprules.pointless(rule.addresses[0]):
        address = os.fsdecode(rule.addresses[0])
        log.warning(NAME, f"line {count}: {address} matches nothing; a prefix ends in a dot or colon")
    return rule


def compile_rules(file: BinaryIO) -> dict[bytes, bytes]:
    """The cdb's items; the first rule for an address is kept.  Raises Permanent for a bad line."""
    items: dict[bytes, bytes] = {}
    for count, line in _lines(file):
        rule = _parse(count, line)
        if rule is not None:
            data = tcprules.encode(rule.decision)
            for address in rule.addresses:
                items.setdefault(address, data)
    return items


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 3:
        raise Usage("usage: tcprules rules.cdb rules.tmp")
    items = compile_rules(sys.stdin.buffer)
    umask = os.umask(0o077)
    os.umask(umask)
    cdb.write(os.fsdecode(argv[1]), items.items(), temporary=os.fsdecode(argv[2]), mode=_READABLE & ~umask)
    return errors.OK
