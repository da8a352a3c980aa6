"""Command lines in qmail's dialect (qmail.md 2.9); lean, for programs that users wait for.

Options stop at the first word that is none.  ``--`` ends them and is taken, ``-`` ends them and is not.  Flags may be
clustered; an option's argument is the rest of its word, or the next one.
"""

from collections.abc import Sequence

from qm.unix.program import Usage


def parse(
    args: Sequence[bytes], usage: str, *, flags: bytes = b"", valued: bytes = b"", attached: bytes = b""
) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """Options of *args*, each a letter and its argument, and the other words; raises Usage.

    *flags* are the letters without argument, *valued* those that need one, *attached* those that have one only if it
    stands in the same word.
    """
    options = []
    rest = list(args)
    while rest and rest[0].startswith(b"-") and rest[0] != b"-":
        word = rest.pop(0)[1:]
        if word == b"-":
            break
        while word:
            letter, word = word[:1], word[1:]
            if letter in valued and not word and rest:
                options.append((letter, rest.pop(0)))
            elif letter in attached or (letter in valued and word):
                options.append((letter, word))
                word = b""
            elif letter in flags:
                options.append((letter, b""))
            else:
                raise Usage(usage)
    return options, rest
