"""config: make the control files that follow from this host's name and addresses, as DNS has them (config).

Usage:   config
Reads:   control/dnsservers, else /etc/resolv.conf
Env:     QMHOME
Writes:  control/{me,defaultdomain,plusdomain,locals,rcpthosts}; fd 1 (what is done)
Asks:    DNS
As:      the owner of control/
Exits:   0 done; 100 usage, or DNS has no full name for this host; 111 DNS does not answer, or other trouble
See:     config(8), config-fast(8), qm-control(5), qmail.md section 19
"""

import os
from collections.abc import Iterator
from typing import Final

import dns.exception
import dns.name
import dns.resolver
import dns.reversename

from qm.disk import hostfiles
from qm.disk.control import Controls
from qm.errors import OK, Permanent, Temporary
from qm.unix import standard
from qm.unix.interfaces import own_addresses
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import hostcontrols, serveraddress

LIFETIME_S: Final = 20.0  # of one question
_NONE: Final = (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)


def _say(text: str) -> None:
    standard.write(f"{text}\n".encode())


def _resolver() -> dns.resolver.Resolver:
    try:
        servers = [serveraddress.parse(line, 53) for line in Controls(("dnsservers",)).lines("dnsservers")]
        resolver = dns.resolver.Resolver(configure=not servers)
    except (ValueError, dns.exception.DNSException) as error:
        raise Temporary("cannot ask DNS", detail=f"control/dnsservers or /etc/resolv.conf: {error}") from error
    if servers:
        resolver.nameservers = [address for address, _ in servers]
        resolver.nameserver_ports = dict(servers)
    resolver.lifetime = LIFETIME_S
    return resolver


class _Names:
    """What DNS says; raises Temporary where it does not answer."""

    def __init__(self, resolver: dns.resolver.Resolver) -> None:
        self._resolver = resolver

    def _ask(self, question: dns.name.Name | str, rdtype: str) -> list[str]:
        try:
            return [record.to_text() for record in self._resolver.resolve(question, rdtype, search=True)]
        except _NONE:
            return []
        except dns.exception.DNSException as error:
            raise Temporary("DNS does not answer", detail=f"{question} {rdtype}: {error}") from error

    def of_address(self, address: str) -> str | None:
        """Its first name that is a full one."""
        names = self._ask(dns.reversename.from_address(address), "PTR")
        return next((name for name in map(hostcontrols.full_name, names) if name), None)

    def of_host(self, host: str) -> str | None:
        """What the first of its addresses that has a name is called (dnsfq)."""
        addresses = [address for rdtype in ("A", "AAAA") for address in self._ask(host, rdtype)]
        return next((name for name in map(self.of_address, addresses) if name), None)


def _locals(names: _Names) -> Iterator[str]:
    """The names of our addresses."""
    _say("Checking local IP addresses:")
    for address in sorted({address.decode("ascii").partition("%")[0] for address in own_addresses()}):
        try:
            name = names.of_address(address)
        except Temporary as error:
            _say(f"{address}: {error.public}. Its name is left out; run me again.")
            continue
        if name is None:
            _say(f"{address}: PTR lookup failed. I assume this address has no DNS name.")
        else:
            _say(f"{address}: Adding {name} to control/locals...")
            yield name


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: config")
    host, names = os.uname().nodename, _Names(_resolver())
    _say(f"Your hostname is {host}.")
    full_name = names.of_host(host)
    if full_name is None:
        raise Permanent("DNS has no full name for this host", detail="run config-fast with the name that it shall have")
    _say(f"Your host's fully qualified name in DNS is {full_name}.")
    found = sorted({full_name, *_locals(names)})
    hostfiles.put_single_lines(full_name, _say)
    _say("If there are any other domain names that point to you, add them to control/locals.")
    hostfiles.put_domains("locals", found, keep=False)
    _say("Copying control/locals to control/rcpthosts...")
    hostfiles.put_domains("rcpthosts", found, keep=False)
    _say("Now SMTP messages are refused except to those hosts.")
    _say("Change rcpthosts if you add hosts to locals or virtualdomains!")
    return OK
