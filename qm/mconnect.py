"""mconnect, who@, date@, finger@, http@: talk to a TCP server from the command line.

Usage:   mconnect [host [port]]; who@ [host]; date@ [host]; finger@ [host [user]]; http@ [host [page [port]]]
Reads:   fd 0 (mconnect: what to send)
Writes:  fd 1 (what the server says)
As:      whoever runs it
Exits:   0 the server has closed; 100 usage; 111 nobody answers
See:     mconnect(1), qmail.md 21.6
"""

import os
import socket
from typing import Final, NamedTuple

from qm import errors
from qm.unix import dial, relay
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.lineends import Change, DelCr, add_cr

_SHOWN: Final = [
    bytes([byte]) if byte in b"\t\n" or 32 <= byte < 127 else b"^?" if byte == 127 else b"^%c" % (byte + 64)
    for byte in range(128)
]
_SHOWN_HIGH: Final = [b"^%c" % (byte + 64) if byte in b"\t\n" else shown for byte, shown in enumerate(_SHOWN)]
_USAGE: Final = {
    b"mconnect": "[host [port]]", b"who@": "[host]", b"date@": "[host]", b"finger@": "[host [user]]",
    b"http@": "[host [page [port]]]",
}  # fmt: skip


class _Plan(NamedTuple):
    """Where to connect; what to say there, None for what comes on descriptor 0; how to show the answer."""

    host: bytes
    port: bytes
    request: bytes | None
    show: Change


def visible(text: bytes) -> bytes:
    """As cat -v: no byte that a terminal would obey."""
    return b"".join(_SHOWN[byte] if byte < 128 else b"M-" + _SHOWN_HIGH[byte - 128] for byte in text)


class _Text:
    """Lines without carriage returns, visible."""

    def __init__(self) -> None:
        self._del_cr = DelCr()

    def __call__(self, piece: bytes) -> bytes:
        return visible(self._del_cr(piece))


class Body:
    """What follows the first empty line, without carriage returns."""

    def __init__(self) -> None:
        self._del_cr = DelCr()
        self._last = b"\n"  # of the header, while it lasts; else empty

    def __call__(self, piece: bytes) -> bytes:
        text = self._del_cr(piece)
        if not self._last:
            return text
        text = self._last + text
        _, found, body = text.partition(b"\n\n")
        self._last = b"" if found else text[-1:]
        return body


def _plan(name: bytes, words: Argv) -> _Plan:
    """Raises Usage."""
    if name not in _USAGE or len(words) > _USAGE[name].count("["):
        raise Usage(f"usage: {os.fsdecode(name)} {_USAGE.get(name, '')}")
    host, first, second = [*words, b"", b"", b""][:3]
    if name == b"mconnect":
        return _Plan(host, first or b"25", None, bytes)
    if name == b"http@":
        port = second or b"80"
        return _Plan(host, port, b"GET /%b HTTP/1.0\r\nHost: %b:%b\r\n\r\n" % (first, host or b"0", port), Body())
    if name == b"finger@":
        return _Plan(host, b"79", first + b"\r\n", _Text())
    return _Plan(host, {b"who@": b"11", b"date@": b"13"}[name], b"", _Text())


def _connect(plan: _Plan) -> socket.socket:
    """Raises Temporary."""
    try:
        channel = dial.connect(dial.addresses(plan.host, plan.port), dial.Patience(), dial.Here())
        channel.sendall(plan.request or b"")
    except OSError as error:
        raise errors.Temporary("unable to connect", detail=error.strerror or str(error)) from error
    return channel


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    plan = _plan(os.path.basename(argv[0]), argv[1:])
    with _connect(plan) as channel:
        outward = relay.Flow(os.dup(channel.fileno()), os.dup(1), plan.show)
        inward = relay.Flow(os.dup(0), os.dup(channel.fileno()), add_cr)
        inward.open = plan.request is None
        relay.until_end(inward, outward)
    return errors.OK
