"""preline: run a program with From_, Return-Path and Delivered-To lines before the message; for a .qmail file.

Usage:   preline [-frdFRD] program [arg ...]
Reads:   fd 0 (the message)
Env:     UFLINE, RPLINE, DTLINE (qmail.md 13.5)
As:      the recipient
Exits:   100 usage, or one of the variables is not set; 111 trouble, or the program was killed; else what the program
         exits with
See:     preline(1), dot-qmail(5), qmail.md section 17
"""

from itertools import chain
from typing import Final

from qm.unix import child, dotqmailenv, standard
from qm.unix.options import parse
from qm.unix.program import Argv, Env, Usage, program

_USAGE: Final = "usage: preline [-frdFRD] program [arg ...]"
_LINES: Final = {b"f": b"UFLINE", b"r": b"RPLINE", b"d": b"DTLINE"}


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    options, words = parse(argv[1:], _USAGE, flags=b"frdFRD")
    if not words:
        raise Usage(_USAGE)
    wanted = dict.fromkeys(_LINES, True)
    for letter, _ in options:
        wanted[letter.lower()] = letter.isupper()
    lines = {letter: dotqmailenv.line(env, name) for letter, name in _LINES.items()}  # all three must be set
    head = b"".join(lines[letter] for letter, want in wanted.items() if want)
    return child.feed(words, env, chain([head], standard.chunks()))
