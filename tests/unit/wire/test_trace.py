"""Our Received field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire import trace


def test_one_recipient() -> None:
    """The form of RFC 5321 4.4; the queue's ID goes between the two parts, the date to the end."""
    client = trace.client(b"rdns.example", b"192.0.2.1", b"")
    head, tail = trace.received(b"helo.example", client, b"mx.example", b"ESMTP", b"joe user@b.example")
    assert head == b"Received: from helo.example (rdns.example [192.0.2.1])\n  by mx.example with ESMTP"
    assert tail == b'\n  for <"joe?user"@b.example>'


def test_many_recipients() -> None:
    """Without an only recipient no recipient is named: the others would learn of it."""
    assert trace.received(b"h", b"c", b"me", b"SMTP", b"")[1] == b""


def test_client() -> None:
    """TCPREMOTEINFO stands before the host's name; IPv6 addresses are literals of RFC 5321 4.1.3."""
    assert trace.client(b"h", b"::1", b"joe") == b"joe@h [IPv6:::1]"
    assert trace.client(b"h(x)", b"1\n2", b"") == b"h?x? [1?2]"


def test_nameless() -> None:
    """A client that has not named itself is unknown."""
    assert trace.received(b"", b"c", b"me", b"SMTP", b"")[0].startswith(b"Received: from unknown (c)\n")


@pytest.mark.parametrize(
    ("extended", "smtputf8", "tls", "authenticated", "want"),
    [
        (False, False, False, False, b"SMTP"),
        (True, False, False, False, b"ESMTP"),
        (True, False, True, False, b"ESMTPS"),
        (True, False, False, True, b"ESMTPA"),
        (True, False, True, True, b"ESMTPSA"),
        (True, True, False, False, b"UTF8SMTP"),
        (True, True, True, True, b"UTF8SMTPSA"),
    ],
)
def test_protocol(extended: bool, smtputf8: bool, tls: bool, authenticated: bool, want: bytes) -> None:
    """The keywords of RFC 3848 and RFC 6531 4.3."""
    assert trace.protocol(extended=extended, smtputf8=smtputf8, tls=tls, authenticated=authenticated) == want


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50))
def test_no_stranger_breaks_the_header(helo: bytes, host: bytes, info: bytes, recipient: bytes) -> None:
    """Whatever a peer calls itself, the field stays one field of the lines that we made."""
    head, tail = trace.received(helo, trace.client(host, b"192.0.2.1", info), b"me", b"ESMTP", recipient)
    assert head.count(b"\n") == 1
    assert tail.count(b"\n") == bool(recipient)
    assert not any(byte < 32 and byte != 10 for byte in head + tail)
    assert head.count(b"(") == head.count(b")") == 1
