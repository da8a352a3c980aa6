"""Where tcpserver listens."""

import socket

import pytest

from qm.errors import Temporary
from qm.tcpserver.listener import listen, place
from qm.tcpserver.options import parse


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        return True
    except OSError:
        return False


def _listen(*words: bytes) -> socket.socket:
    return listen(parse([*words, b"prog"]))


@pytest.mark.parametrize(
    ("words", "reached", "local"),
    [
        ((b"127.0.0.1", b"0"), {"127.0.0.1"}, b"127.0.0.1"),
        ((b"::1", b"0"), {"::1"}, b"::1"),
        ((b"localhost", b"0"), {"127.0.0.1"}, b"127.0.0.1"),
        ((b"0", b"0"), {"127.0.0.1", "::1"}, None),
        ((b"", b"0"), {"127.0.0.1", "::1"}, None),
        ((b"-4", b"0", b"0"), {"127.0.0.1"}, None),
        ((b"-6", b"0", b"0"), {"::1"}, None),
        ((b"::", b"0"), {"127.0.0.1", "::1"}, None),
    ],
)
def test_who_reaches_it(words: tuple[bytes, ...], reached: set[str], local: bytes | None) -> None:
    """0 is every address of both families; a name's IPv4 address is preferred; our end is known if it is one."""
    if "::1" in reached and not _has_ipv6():
        pytest.skip("needs IPv6")
    with _listen(*words) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            if address in reached:
                socket.create_connection((address, port), 5).close()
            else:
                with pytest.raises(OSError):
                    socket.create_connection((address, port), 5)
        known = place(listener).local
        assert (known and known.ip) == local


def test_a_port_that_is_taken() -> None:
    """The error says which."""
    with _listen(b"127.0.0.1", b"0") as listener:
        port = str(listener.getsockname()[1]).encode()
        with pytest.raises(Temporary, match=f"127.0.0.1 port {port.decode()}: Address already in use"):
            _listen(b"127.0.0.1", port)


@pytest.mark.parametrize("port", [b"no-such-port", b"65536", b"99999", b"-1", b"\xff"])
def test_ports_that_do_not_exist(port: bytes) -> None:
    """A port is a number or the name of a service."""
    with pytest.raises(Temporary, match="no such port"):
        _listen(b"127.0.0.1", port)


def test_a_family_that_the_address_is_not_of() -> None:
    """-6 with an IPv4 address is an error, not a surprise."""
    with pytest.raises(Temporary, match="no such host"):
        _listen(b"-6", b"127.0.0.1", b"0")
