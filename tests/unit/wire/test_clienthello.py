"""What a client offers by ALPN is read, however that is cut, and nothing that it sends is an exception."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.clienthello import HELLO_MAX, RECORDS_MAX, Hello, read


def _hello(*protocols: str) -> bytes:
    """The first bytes of OpenSSL as a client."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols([*protocols])
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="mail.example.org").do_handshake()
    return outgoing.read()


def _records(data: bytes, size: int) -> bytes:
    """The message of one record spread over records of *size* bytes."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("protocols", [(), ("smtp",), ("http/1.1", "h2"), ("pop3", "smtp")])
def test_protocols(protocols: tuple[str, ...]) -> None:
    """They come in the client's order; a client that offers none has none."""
    assert read(_hello(*protocols)) == Hello(tuple(name.encode() for name in protocols))


def test_cut_anywhere() -> None:
    """Until the whole message is there, more must come."""
    data = _hello("smtp")
    assert [read(data[:size]) for size in range(len(data))] == [None] * len(data)
    assert read(data + b"more") == Hello((b"smtp",))


def test_spread_over_records() -> None:
    """A message in several records is the same message; in very many it is for the library to refuse."""
    data = _hello("smtp")
    assert read(_records(data, len(data) // RECORDS_MAX + 1)) == Hello((b"smtp",))
    assert read(_records(data, 1)) == Hello()


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.0\r\n", b"EHLO x\r\n", b"\x80\x2e\x01", b"\x16\x03\x01\x00\x00", b"\x15"]
)
def test_something_else(data: bytes) -> None:
    """What is no ClientHello offers nothing, and is not waited for."""
    assert read(data) == Hello()


def test_an_endless_one_is_not_waited_for() -> None:
    """At most HELLO_MAX bytes are gathered."""
    endless = (b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + b"x" * HELLO_MAX)[:HELLO_MAX]
    assert read(endless[:-1]) is None or read(endless[:-1]) == Hello()
    assert read(endless) == Hello()


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes(garbage: bytes, tail: bytes) -> None:
    """No bytes, alone or after a good beginning, are an exception."""
    read(garbage)
    read(b"\x16\x03\x01" + len(garbage).to_bytes(2, "big") + garbage + tail)
    read(_GOOD[:60] + garbage)


@given(st.integers(0, 600), st.integers(0, 255))
def test_one_byte_changed(at: int, value: int) -> None:
    """A good hello with one byte changed is no exception either."""
    changed = bytearray(_GOOD)
    changed[at % len(changed)] = value
    read(bytes(changed))


_GOOD = _hello("smtp", "pop3")
