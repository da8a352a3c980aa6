"""The questions to lists, by dnspython: imported only where there are lists to ask.

The record types are named here because dnspython would import them at the first answer, after privileges were dropped.
"""

import ipaddress
import time
from collections.abc import Iterator
from typing import Final

import dns.exception
import dns.rdata
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.SOA
import dns.resolver
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A

from qm.rblsmtpd.policy import TEXT_MAX, Addresses, Dns, Unknown
from qm.wire import ucspi

TRY_S: Final = 3.0  # for one server
LIFETIME_S: Final = 10.0  # for one question, all servers and repetitions
ALL_S: Final = 60.0  # for all questions about one peer; those that are left then have no answer
_CACHED: Final = 500  # answers, by a worker
_RECORDS_MAX: Final = 100  # looked at in one answer


class Lists:
    """Asks the servers of *cacheip*, else those of /etc/resolv.conf; raises many kinds if they cannot be used."""

    def __init__(self, cacheip: bytes) -> None:
        servers = ucspi.nameservers(cacheip)
        self._resolver = dns.resolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [ip for ip, _ in servers]
            self._resolver.nameserver_ports = dict(servers)
        self._resolver.timeout = TRY_S
        self._resolver.cache = dns.resolver.LRUCache(_CACHED)
        self._deadline_s = 0.0

    def questions(self) -> Dns:
        """Those about one peer; its time begins now."""
        self._deadline_s = time.monotonic() + ALL_S
        return Dns(self._addresses, self._text)

    def _records(self, name: bytes, rdtype: str) -> Iterator[dns.rdata.Rdata]:
        """Raises Unknown."""
        left_s = min(LIFETIME_S, self._deadline_s - time.monotonic())
        if left_s <= 0:
            raise Unknown
        try:
            answer = self._resolver.resolve(name.decode("ascii"), rdtype, search=False, lifetime=left_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return
        except dns.exception.DNSException as error:
            raise Unknown from error
        yield from list(answer)[:_RECORDS_MAX]

    def _addresses(self, name: bytes) -> Addresses:
        found = self._records(name, "A")
        return [ipaddress.IPv4Address(record.address) for record in found if isinstance(record, A)]

    def _text(self, name: bytes) -> bytes:
        found = self._records(name, "TXT")
        return b"".join(b"".join(record.strings) for record in found if isinstance(record, TXT))[: TEXT_MAX + 1]
