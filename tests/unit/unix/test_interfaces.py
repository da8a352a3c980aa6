"""The addresses of this machine."""

import socket

from qm.unix.interfaces import own_addresses


def test_we_have_loopback() -> None:
    """The kernel's own list has loopback, and each entry is an address of its family."""
    found = own_addresses()
    assert b"127.0.0.1" in found
    for address in found:
        socket.inet_pton(socket.AF_INET6 if b":" in address else socket.AF_INET, address.decode())


def test_what_we_can_bind_is_ours() -> None:
    """The address that a connection of ours comes from is in the list."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))
        assert probe.getsockname()[0].encode() in own_addresses()
