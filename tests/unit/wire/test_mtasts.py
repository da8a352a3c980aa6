"""MTA-STS records and policies (RFC 8461)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import mtasts
from qm.wire.mtasts import AGE_MAX_S, Mode, Policy, allows, parse_policy

GOOD = b"version: STSv1\nmode: enforce\nmx: MX.example.org\nmx: *.example.net.\nmax_age: 604800\n"


def test_policy() -> None:
    """Lines end with or without CR; what is unknown is skipped; of a key that may stand once the first counts."""
    wanted = Policy(Mode.ENFORCE, 604800, (b"mx.example.org", b"*.example.net"))
    assert parse_policy(GOOD) == wanted
    assert parse_policy(GOOD.replace(b"\n", b"\r\n") + b"color: red\r\nmode: none\r\n") == wanted


@pytest.mark.parametrize(
    "text",
    [
        b"",
        GOOD.replace(b"STSv1", b"STSv2"),
        GOOD.replace(b"enforce", b"maybe"),
        GOOD.replace(b"604800", b"-1"),
        GOOD.replace(b"604800", b"99999999999"),
        GOOD.replace(b"*.example.net", b"*.*.net"),
        GOOD.replace(b"*.example.net", b"a b"),
        b"version: STSv1\nmode: enforce\nmax_age: 1\n",
    ],
)
def test_no_policy(text: bytes) -> None:
    """What is not whole is no policy."""
    assert parse_policy(text) is None


def test_bounds() -> None:
    """A policy holds a year at most."""
    found = parse_policy(GOOD.replace(b"604800", b"9999999999"))
    assert found and found.max_age_s == AGE_MAX_S


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"mx.example.org", True),
        (b"MX.Example.Org.", True),
        (b"a.example.net", True),
        (b"example.net", False),
        (b"a.b.example.net", False),
        (b"b.example.org", False),
        (b"[192.0.2.1]", False),
        (b"", False),
    ],
)
def test_allows(host: bytes, allowed: bool) -> None:
    """A star is one whole label."""
    found = parse_policy(GOOD)
    assert found and allows(found, host) == allowed


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ([b"v=STSv1; id=abc;"], b"abc"),
        ([b"v=STSv1;id=abc", b"v=spf1 -all"], b"abc"),
        ([b"v=STSv1; x=1; id=abc"], b"abc"),
        ([b"v=STSv1; id=abc", b"v=STSv1; id=abc"], b""),
        ([b"v=STSv10; id=abc"], b""),
        ([b"v=STSv1; id="], b""),
        ([b"v=STSv1; id=" + b"a" * 33], b""),
        ([], b""),
    ],
)
def test_record(texts: list[bytes], name: bytes) -> None:
    """Exactly one record, with an id of letters and digits."""
    assert mtasts.record_id(texts) == name


@given(st.binary(max_size=200))
def test_any_bytes(text: bytes) -> None:
    """Any bytes are a policy or none."""
    parse_policy(text)
    assert mtasts.record_id([text, text]) == b""
