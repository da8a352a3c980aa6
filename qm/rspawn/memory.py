"""What rspawn remembers from one worker to the next: the ways to destinations, and addresses that time out.  Pure.

Nothing of it rests on disk: after a restart it is learned again, as qmail's tcpto is (qmail.md section 11).
"""

from typing import Final, NamedTuple

from qm.wire.dnsverdict import TTL_MAX_S
from qm.wire.record import Malformed
from qm.wire.remotejob import SKIPPED_MAX, route_until_s
from qm.wire.smtproute import Destination

ROUTES_MAX: Final = 4 << 20  # bytes of all routes; the oldest go first
_ROUTE_COST: Final = 300  # bytes that one takes beyond its text


class Routes:
    """The way to each destination, as long as DNS said that it is good."""

    def __init__(self) -> None:
        self._routes: dict[Destination, bytes] = {}
        self._bytes = 0

    def keep(self, destination: Destination, route: bytes) -> None:
        self.forget(destination)
        self._routes[destination] = route
        self._bytes += len(route) + _ROUTE_COST
        while self._bytes > ROUTES_MAX:
            self.forget(next(iter(self._routes)))

    def forget(self, destination: Destination) -> None:
        route = self._routes.pop(destination, None)
        if route is not None:
            self._bytes -= len(route) + _ROUTE_COST

    def find(self, destination: Destination, now_s: float) -> bytes:
        """The packed way, or nothing."""
        route = self._routes.get(destination, b"")
        try:
            if route and now_s < route_until_s(route) <= now_s + TTL_MAX_S:
                return route
        except Malformed:
            pass
        self.forget(destination)
        return b""


class Silence(NamedTuple):
    """How often an address has not answered, and when it last did not."""

    times: int
    last_s: float


class Silent:
    """The addresses that time out: qmail's tcpto, with its rules (qmail.md 14.3), for IPv6 too."""

    TIMES_MAX: Final = 10
    TOO_OFTEN: Final = 2  # from then on it is skipped
    SAME_S: Final = 120  # time-outs that follow sooner are the same trouble
    SKIP_S: Final = 64 * 60  # how long it is skipped, and up to half as long again

    def __init__(self) -> None:
        self._known: dict[bytes, Silence] = {}

    def timed_out(self, address: bytes, now_s: float) -> None:
        known = self._known.get(address)
        if known is None:
            self._make_room()
            self._known[address] = Silence(1, now_s)
        elif now_s - known.last_s >= self.SAME_S:
            self._known[address] = Silence(min(known.times + 1, self.TIMES_MAX), now_s)

    def _make_room(self) -> None:
        if len(self._known) >= SKIPPED_MAX:
            del self._known[min(self._known, key=lambda a: self._known[a].last_s + self._known[a].times * 1024)]

    def connected(self, address: bytes) -> None:
        self._known.pop(address, None)

    def skipped(self, now_s: float, number: int) -> frozenset[bytes]:
        """Whom delivery *number* shall not try; some come back earlier than others, so that not all knock at once."""
        if not self._known:
            return frozenset()
        skip_s = self.SKIP_S + number % 32 * 64
        return frozenset(
            address
            for address, (times, last_s) in self._known.items()
            if times >= self.TOO_OFTEN and now_s - last_s < skip_s
        )

    def known(self) -> list[tuple[bytes, Silence]]:
        """For qm-tcpto."""
        return sorted(self._known.items())

    def clear(self) -> None:
        """For qm-tcpok."""
        self._known.clear()
