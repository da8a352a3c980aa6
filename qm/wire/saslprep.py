"""SASLprep (RFC 4013): one form for the names and passwords that look the same, with the standard library's tables.

What it would change only if it is no ASCII; text that is no UTF-8 is no stringprep matter at all.
"""

import stringprep
import unicodedata
from typing import Final

_TO_NOTHING: Final = stringprep.in_table_b1
_PROHIBITED: Final = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2: what is stored has none (RFC 4013 2.5)
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Prohibited(ValueError):
    """Text that SASLprep does not let through."""


def prepare(text: bytes) -> bytes:
    """*text*, which is UTF-8, prepared; raises Prohibited."""
    try:
        given = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Prohibited("not UTF-8") from error
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in given if not _TO_NOTHING(c))  # RFC 4013 2.1
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)  # RFC 4013 2.2
    for character in prepared:
        if any(prohibited(character) for prohibited in _PROHIBITED):  # RFC 4013 2.3
            raise Prohibited(f"U+{ord(character):04X} is not allowed")
    if any(map(stringprep.in_table_d1, prepared)):  # RFC 3454 6, as RFC 4013 2.4 asks
        if any(map(stringprep.in_table_d2, prepared)):
            raise Prohibited("left-to-right and right-to-left letters")
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            raise Prohibited("right-to-left letters do not begin and end it")
    return prepared.encode("utf-8")


def password(secret: bytes) -> bytes:
    """*secret* as it is stored and checked: prepared if it can be, else as it was typed.

    RFC 4616 section 2 would refuse what cannot be prepared; but POP3 passwords may be any bytes.
    """
    try:
        return prepare(secret)
    except Prohibited:
        return secret
