"""What MTA-STS policy a domain has now: the cache, DNS, and HTTPS (RFC 8461 3, 5).

The record in DNS says which policy is current.  A policy that was had before holds until its time is over, whatever
DNS and HTTPS say meanwhile: to take them away is what an attacker would do.
"""

import time
from collections.abc import Callable
from typing import Final

from qm.remote import stscache
from qm.remote.resolver import ADDRESS_TYPES, TXT, Question, Resolver
from qm.remote.stscache import Entry
from qm.wire import mtasts
from qm.wire.dnsverdict import Verdict
from qm.wire.mtasts import DOMAIN, POLICY_MAX, Policy

PATH: Final = "/.well-known/mta-sts.txt"
FETCH_S: Final = 20.0  # RFC 8461 3.3 has a minute; mail waits for it
RETRY_S: Final = 300  # RFC 8461 3.3: after a fetch that failed
REFRESH_S: Final = 86400  # a policy that is older is fetched again


class Sts:
    def __init__(self, resolver: Resolver, port: int, roots: str, warn: Callable[[str], None]) -> None:
        self._resolver = resolver
        self._port = port
        self._roots = roots
        self._warn = warn

    def policy(self, domain: bytes) -> Policy | None:
        """That of *domain*, in lower case A-labels; None if it has none."""
        if not DOMAIN.fullmatch(domain):
            return None
        now_s = int(time.time())
        known = stscache.read(domain)
        question = Question(f"_mta-sts.{domain.decode()}", TXT)
        current = mtasts.record_id(self._resolver.ask([question])[question].texts)
        held = known.policy(now_s)
        stale = held is None or known.id != current or now_s - known.fetched_s >= REFRESH_S
        retry = not now_s - RETRY_S < known.tried_s <= now_s
        if not (current and stale and retry):
            return held
        entry = self._fetched(domain, current, now_s)
        if entry is None:  # what was had before holds; the id of it stays, but for one that none was had for
            entry = known._replace(tried_s=now_s, id=known.id if held else current)
        try:
            stscache.write(domain, entry)
        except OSError as error:
            self._warn(f"cannot keep an MTA-STS policy in {stscache.DIRECTORY}/: {error.strerror}")
        return entry.policy(now_s)

    def _fetched(self, domain: bytes, current: bytes, now_s: int) -> Entry | None:
        """The policy that is there now; None, with a warning, if it cannot be had or is none."""
        from qm.unix import https, tlscontext

        host = f"mta-sts.{domain.decode()}"
        try:
            server = https.Server(self._address(host), self._port, host, tlscontext.named(self._roots))
            kind, body = https.get(server, PATH, "text/plain", FETCH_S)
            if kind != "text/plain":  # RFC 8461 3.2
                raise https.NotFetched("it is not text/plain")
            if len(body) > POLICY_MAX or mtasts.parse_policy(body) is None:
                raise https.NotFetched("it is no policy")
        except (https.NotFetched, OSError) as error:
            self._warn(f"no MTA-STS policy from {host}: {error}")
            return None
        return Entry(now_s, now_s, current, body)

    def _address(self, host: str) -> str:
        """Raises OSError."""
        questions = [Question(host, kind) for kind in ADDRESS_TYPES.values()]
        for finding in self._resolver.ask(questions, questions[1:]).values():
            if finding.verdict is Verdict.FOUND and finding.addresses:
                return finding.addresses[0].decode()
        raise OSError("it has no address")
