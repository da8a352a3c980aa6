"""Find the way to a destination: DNS asked, policy's words followed (RFC 5321 5.1)."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from qm.errors import Permanent, Temporary
from qm.remote import policy
from qm.remote.resolver import ADDRESS_TYPES, MX, TLSA, Question, Resolver
from qm.remote.sts import Sts
from qm.wire.dnsverdict import TTL_MAX_S, Finding, Mx
from qm.wire.mtasts import Policy
from qm.wire.remotejob import Host, Route, Trust
from qm.wire.smtproute import Destination

HERE: Final = b"localhost"  # who answers at a socket of this machine: its path is nobody's business
Findings = dict[tuple[str, int], Finding]  # by name and address family


class Router:
    """Knows the resolver, our own addresses, and which address families to use."""

    def __init__(
        self,
        resolver: Resolver,
        ourselves: policy.Ourselves,
        ipfamily: Mapping[bytes, bytes],
        *,
        have_ipv6: bool,
        sts: Sts | None = None,
    ) -> None:
        self._resolver = resolver
        self._ourselves = ourselves
        self._ipfamily = ipfamily
        self._have_ipv6 = have_ipv6
        self._sts = sts

    def find(self, destination: Destination) -> Route:
        """The way there, without us in it; raises Temporary and Permanent, as they are to be reported."""
        try:
            return self._find(destination)
        except Permanent as error:
            if destination.relay:  # the mail is not to blame for our smtproutes
                file = "lmtproutes" if destination.lmtp else "smtproutes"
                raise Temporary(f"{error.public} control/{file} names it.", status="4.4") from error
            raise

    def _find(self, destination: Destination) -> Route:
        if destination.is_path:
            return Route(0, (Host(0, HERE, (HERE,)),))
        address = policy.literal(destination.host)
        if address is not None:
            hosts, unsure, ttl_s = [Host(0, b"[%b]" % address, (address,))], None, TTL_MAX_S
        else:
            hosts, unsure, ttl_s = self._by_name(destination)
        better = hosts if destination.relay else policy.before_us(hosts, self._ourselves)
        if not better:
            raise unsure or policy.nobody(policy.shown(destination.host), ourselves=bool(hosts))
        keep = ttl_s and unsure is None  # else the next delivery may learn more
        return Route(time.monotonic() + ttl_s if keep else 0, tuple(better), self._policy(destination, better))

    def _policy(self, destination: Destination, hosts: Sequence[Host]) -> Policy | None:
        """The MTA-STS policy, if it can matter: not for a relay, an address, or where DANE decides (RFC 8461 2)."""
        if self._sts is None or destination.relay or all(host.trust is Trust.TLSA for host in hosts):
            return None
        if policy.literal(destination.host) is not None:
            return None
        return self._sts.policy(policy.ascii_name(destination.host).lower().encode())

    def _by_name(self, destination: Destination) -> tuple[list[Host], Temporary | None, int]:
        """Hosts with addresses, what we could not find out about the others, and for how many seconds that holds."""
        name = policy.ascii_name(destination.host)
        families = policy.families(self._ipfamily, destination.host, have_ipv6=self._have_ipv6)
        if destination.relay:
            exchangers, ttl_s, secure = [Mx(0, name)], TTL_MAX_S, True
        else:
            question = Question(name, MX)
            finding = self._resolver.ask([question])[question]
            exchangers = policy.mail_exchangers(name, finding)
            ttl_s, secure = finding.ttl_s if finding.mx else TTL_MAX_S, finding.secure
        findings = self._addresses([mx.name for mx in exchangers], families)
        hosts = policy.with_addresses(exchangers, findings, families.wanted)
        ttl_s = min([ttl_s, *[found.ttl_s for found in findings.values() if found.addresses]])
        if secure:
            hosts, most_s = self._vouched(hosts, findings, destination.port)
            ttl_s = min(ttl_s, most_s)
        return hosts, policy.unsure(name, exchangers, hosts, findings), ttl_s

    def _vouched(self, hosts: Sequence[Host], findings: Findings, port: int) -> tuple[list[Host], int]:
        """*hosts*, named by DNSSEC or by us, with their TLSA records, and for how many seconds that holds."""
        asked: dict[bytes, list[str]] = {}
        for host in hosts:
            name = host.name.decode()
            base = policy.secure_base(found for (of, _), found in findings.items() if of == name)
            if base:  # RFC 7672 2.2.2: else there is no use in asking
                asked[host.name] = list(dict.fromkeys((base, name)))
        names = [base for bases in asked.values() for base in bases]
        questions = {base: Question(f"_{port}._tcp.{base}", TLSA) for base in names}  # RFC 7672 2.2.3
        answers = self._resolver.ask(questions.values()) if questions else {}
        found = []
        for host in hosts:
            bases = asked.get(host.name, [])
            named = host._replace(trust=Trust.NAME)
            found.append(policy.with_tlsa(named, bases, [answers[questions[base]] for base in bases]))
        if any(host.trust is Trust.LATER for host in found):
            return found, 0
        return found, min([TTL_MAX_S, *[answer.ttl_s for answer in answers.values() if answer.tlsa]])

    def _addresses(self, names: Sequence[str], families: policy.Families) -> Findings:
        findings = self._ask(names, families.asked)
        later = [family for family in families.wanted if family not in families.asked]
        if later and not any(found.addresses for found in findings.values()):
            findings |= self._ask(names, later)
        return findings

    def _ask(self, names: Sequence[str], families: Sequence[int]) -> Findings:
        """IPv4 is waited for; IPv6 too only where IPv4 gives nothing, so that it never delays mail."""
        asked = {(name, family): Question(name, ADDRESS_TYPES[family]) for name in names for family in families}
        optional = {question for (_, family), question in asked.items() if family == 6 and 4 in families}
        findings = self._resolver.ask(asked.values(), optional)
        return {key: findings[question] for key, question in asked.items()}
