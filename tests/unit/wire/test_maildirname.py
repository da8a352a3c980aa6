"""What names in a Maildir tell."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import maildirname

OURS = b"1700000000.Q0123456789abcdefghR0L0.mx.example.org,S=4096,W=4200"


@pytest.mark.parametrize(
    ("path", "size"),
    [
        (b"new/" + OURS, 4200),
        (b"cur/" + OURS + b":2,S", 4200),
        (b"cur/1.M2P3.host,W=7,S=5:2,", 7),
        (b"cur/1.2.host:2,W=9", None),
        (b"new/1.2.host,W=", None),
        (b"new/1.2.host,W=12x", None),
        (b"new/1.2.host,W=-1", None),
        (b"new/1.2.host,W=9999999999999999", None),
    ],
)
def test_wire_size(path: bytes, size: int | None) -> None:
    """,W= is believed where it stands as a field of the unique name, and nowhere else."""
    assert maildirname.wire_size(path) == size


@pytest.mark.parametrize(
    ("path", "time"),
    [(b"new/1700000000.1.h", 1700000000), (b"new/x.1.h", None), (b"new/.h", None), (b"new/" + b"9" * 25, None)],
)
def test_age(path: bytes, time: int | None) -> None:
    """A name that begins with a time tells the age."""
    assert maildirname.born_at_s(path) == time


def test_uidl_of_ours() -> None:
    """The unique-id of a message that we delivered is its name before the sizes."""
    assert maildirname.uidl(OURS) == b"1700000000.Q0123456789abcdefghR0L0.mx.example.org"


def test_uidl_of_others() -> None:
    """Whoever comes from qmail-pop3d finds the unique-ids that it gave: the whole name before the colon."""
    assert maildirname.uidl(b"1700000000.12345.host,S=100") == b"1700000000.12345.host,S=100"


def test_uidls_that_shall_never_change() -> None:
    """A name that RFC 1939 forbids as a unique-id has a hash, today and for ever."""
    assert maildirname.uidl(b"1700000000.1.h\xc3\xb6st") == b"153017a9b7974eb0df2855428647396899a7eb24"
    assert maildirname.uidl(b"1." + b"h" * 80) == b"77c04760d927ee135d9edd0657594d928f8ffb45"


@given(st.binary(min_size=1, max_size=255))
def test_any_name_has_a_uidl(name: bytes) -> None:
    """RFC 1939 7: 1 to 70 characters from 0x21 to 0x7E."""
    assert re.fullmatch(rb"[!-~]{1,70}", maildirname.uidl(name))
