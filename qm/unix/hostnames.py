"""Names of addresses by DNS.  Imported only where names are wanted: dnspython takes 100 ms and some megabytes.

The record types are named here because dnspython would import them at the first answer, after privileges were dropped.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

import dns.exception
import dns.name
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver
import dns.reversename

from qm.wire import ucspi

TRY_S: Final = 3.0  # for one server
LIFETIME_S: Final = 10.0  # for one question, all servers and repetitions
_CACHED: Final = 500  # answers, by a worker
_ADDRESSES_MAX: Final = 100  # looked at for one name


class Resolver:
    """Asks *servers*, or those of /etc/resolv.conf; *unanswered* is the name of who may have one, when nobody tells."""

    def __init__(self, servers: Sequence[tuple[str, int]], unanswered: bytes | None = None) -> None:
        self._unanswered = unanswered
        self._resolver = dns.resolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [ip for ip, _ in servers]
            self._resolver.nameserver_ports = dict(servers)
        self._resolver.timeout = TRY_S
        self._resolver.lifetime = LIFETIME_S
        self._resolver.cache = dns.resolver.LRUCache(_CACHED)

    def name_of(self, ip: bytes) -> bytes | None:
        """The first name of *ip*, or None: it has none."""
        try:
            name = self._target(ip)
        except dns.exception.DNSException:
            return self._unanswered
        return None if name is None else ucspi.host_text(name.labels)

    def confirmed_name_of(self, ip: bytes) -> bytes | None:
        """As name_of, but only if the name has the address *ip*."""
        try:
            name = self._target(ip)
        except dns.exception.DNSException:
            return self._unanswered
        if name is None or not self._has_address(name, ip):
            return None
        return ucspi.host_text(name.labels)

    def _target(self, ip: bytes) -> dns.name.Name | None:
        """None: there is no name; raises DNSException when nobody tells in time."""
        question = dns.reversename.from_address(ip.decode("ascii"))
        try:
            answer = self._resolver.resolve(question, "PTR", search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        target: dns.name.Name = answer[0].target
        return target

    def _has_address(self, name: dns.name.Name, ip: bytes) -> bool:
        wanted = ipaddress.ip_address(ip.decode("ascii"))
        try:
            answer = self._resolver.resolve(name, "AAAA" if wanted.version == 6 else "A", search=False)
        except dns.exception.DNSException:
            return False
        return any(ipaddress.ip_address(record.address) == wanted for record in list(answer)[:_ADDRESSES_MAX])
