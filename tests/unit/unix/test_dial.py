"""Which of several addresses is taken."""

import socket

import pytest

from qm.errors import Temporary
from qm.unix import dial


def test_the_first_that_answers() -> None:
    """An address that refuses is passed over; our side is what was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_server(("127.0.0.1", 0)) as closed:
        dead, alive = closed.getsockname(), door.getsockname()
        closed.close()
        found = [(socket.AF_INET, dead), (socket.AF_INET, alive)]
        with dial.connect(found, dial.Patience(), dial.Here("127.0.0.3")) as channel:
            assert channel.getpeername() == alive
            assert channel.getsockname()[0] == "127.0.0.3"
            assert channel.gettimeout() is None
        with pytest.raises(ConnectionRefusedError):
            dial.connect(found[:1] * 2, dial.Patience(), dial.Here())


@pytest.mark.parametrize("host", [b"", b"0"])
def test_this_machine(host: bytes) -> None:
    """Host 0 is this machine, by IPv4 unless IPv6 is wanted."""
    assert dial.addresses(host, b"25") == [(socket.AF_INET, ("127.0.0.1", 25))]
    assert dial.addresses(host, b"25", socket.AF_INET6)[0][1][0] == "::1"


@pytest.mark.parametrize("host", [b"a..b", b"\xff\xfe", b"x" * 300, b"a\0b"])
def test_hosts_that_cannot_be(host: bytes) -> None:
    """What is no name of a host is a temporary failure, whatever it is."""
    with pytest.raises(Temporary):
        dial.addresses(host, b"25")


def test_of_a_name_with_many_addresses_16_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others do not hold up the caller; the order is the resolver's."""
    many = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 25)) for number in range(20)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: many)
    assert [address[0] for _, address in dial.addresses(b"many.test", b"25")] == [f"192.0.2.{n}" for n in range(16)]
