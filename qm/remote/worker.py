"""The work of one process: deliveries, over a session that it keeps as long as they go to one destination.

What can be tried again is tried here: another address while nobody has served us, a new session for one that went
stale, another transaction for recipients that were too many.  Else what a transaction says is final (qmail.md 14.4).
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from random import SystemRandom
from typing import Final, NamedTuple

from qm.errors import Permanent, QmError, Temporary
from qm.remote import policy, protection
from qm.remote.attempt import TROUBLE, Aim, miss, reach
from qm.remote.connection import Unreachable
from qm.remote.login import NotLoggedIn
from qm.remote.message import Message
from qm.remote.protection import Unfit
from qm.remote.resolver import Resolver
from qm.remote.routing import Router
from qm.remote.session import Session, Stale
from qm.remote.settings import Config, Settings
from qm.remote.sts import Sts
from qm.remote.tls import TlsFailed
from qm.remote.unserved import Miss, unserved
from qm.remote.words import Peer, failure
from qm.unix import following, log
from qm.unix.interfaces import own_addresses
from qm.wire import smtpauth, tlspolicy
from qm.wire.delivery import Delivery, Health, Outcome, Result, pack_outcome, unpack_delivery
from qm.wire.mtasts import Policy
from qm.wire.record import Malformed
from qm.wire.remotejob import Host, Report, Route, pack_report, pack_route, unpack_job, unpack_route
from qm.wire.smtpauth import TEXT_MAX, Login
from qm.wire.smtproute import Destination
from qm.wire.tlspolicy import CLEAR, Demand, Level

NAME: Final = b"qm-remote"
_RANDOM: Final = SystemRandom()  # workers are forked: a generator of Python's own would say the same in all of them


class Known(NamedTuple):
    """What earlier deliveries have learned."""

    route: bytes  # packed, or empty
    skipped: frozenset[bytes]  # addresses that time out: not to be tried
    login: Login | None = None  # who we are there


NOTHING: Final = Known(b"", frozenset())


def _word(text: bytes) -> str:
    return log.word(text).decode("ascii")


def _login(fd: int) -> Login:
    """What rspawn's keeper has put into *fd*."""
    try:
        return smtpauth.unpack_login(os.pread(fd, 3 * TEXT_MAX, 0))
    except (OSError, Malformed) as error:
        raise Temporary("Unable to read a login.", detail=str(error)) from error


class _Made(NamedTuple):
    """What the kept session was made for, and by."""

    demand: Demand
    host: Host
    route: bytes  # the packed way that was looked at last
    settings: Settings | None
    sts: Policy | None = None
    login: Login | None = None


NO_HOST: Final = Host(0, b"", ())


class _NotServed(Exception):
    """Nobody took us in; *result* is for every recipient that has none."""

    def __init__(self, result: Result, health: Health) -> None:
        super().__init__(result)
        self.result = result
        self.health = health


class Worker:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._destination = Destination(b"")  # where the session leads
        self._interfaces: frozenset[bytes] | None = None
        self._session: Session | None = None
        self._made = _Made(CLEAR, NO_HOST, b"", None)
        # what the spawner shall remember of the delivery in hand
        self._route = b""
        self._timed_out: list[bytes] = []
        self._connected: list[bytes] = []
        self._tell: following.Tell = following.nobody  # the dialogue of the delivery in hand

    def __call__(self, record: bytes, descriptors: Sequence[int]) -> bytes:
        """One job of the spawner's: a packed Job and the message; gives a packed Report."""
        job = unpack_job(record)
        delivery = unpack_delivery(job.delivery)
        known = Known(job.route, job.skipped, _login(descriptors[1]) if len(descriptors) == 2 else None)
        outcome = self.deliver(job.destination, delivery, descriptors[:1], known)
        return pack_report(Report(self._route, tuple(self._timed_out), tuple(self._connected), pack_outcome(outcome)))

    def deliver(
        self, destination: Destination, delivery: Delivery, descriptors: Sequence[int], known: Known = NOTHING
    ) -> Outcome:
        """Deliver, and say what became of each recipient."""
        self._route, self._timed_out, self._connected = b"", [], []
        if destination != self._destination:
            self.close()
            self._destination = destination
        results: dict[int, Result] = {}
        teller = following.teller(delivery.follower)
        self._tell = teller or following.nobody
        try:
            if len(descriptors) != 1:
                raise Temporary("Unable to read the message.", detail=f"{len(descriptors)} descriptors")
            health = self._deliver(delivery, Message(descriptors[0]), known, results)
        except _NotServed as error:
            health, rest = error.health, error.result
        except QmError as error:
            health = Health.BUSY if isinstance(error, policy.NoRoute) else Health.UNKNOWN
            letter = b"D" if isinstance(error, Permanent) else b"Z"
            rest = failure(letter, error.public.encode("ascii", "backslashreplace"), error.status.encode())
            if error.detail:
                log.warning(NAME, str(error))
        else:
            rest = failure(b"Z", b"Nothing became of this delivery.", b"4.3.0")
        finally:
            if teller is not None:
                teller.close()
        every = tuple(results.get(place, rest) for place in range(len(delivery.recipients)))
        return Outcome(delivery.number, health, every)

    def _deliver(self, delivery: Delivery, message: Message, known: Known, results: dict[int, Result]) -> Health:
        """Fill *results*; raises _NotServed and QmError, which are for those that are then missing."""
        which = list(range(len(delivery.recipients)))
        health = Health.UNKNOWN
        while which:
            session = self._session_to(known)
            session.watched_by(self._tell)
            try:
                transaction = session.transact(delivery, which, message)
            except Stale:
                continue
            results |= transaction.results
            health = Health.UP if session.alive else Health.BUSY
            if not session.alive:
                self.close()
            which = [place for place in transaction.again if place not in results]
        return health

    # Sessions

    def _session_to(self, known: Known) -> Session:
        """The session that was kept if it is still good, else a new one."""
        settings = self._config.current()
        kept = self._session
        if kept and kept.used < settings.messages_max and self._fits(known, settings) and kept.still_there():
            return kept
        self.close()
        self._session = self._open(known, settings)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _open(self, known: Known, settings: Settings) -> Session:
        """A session with the first that serves us; raises _NotServed, and QmError if there is no way."""
        way = self._way(known, settings)
        aim = Aim(self._destination, known.login, self._tell)
        hosts = way.hosts
        misses: list[Miss] = []
        for host, address in policy.candidates(hosts, known.skipped, settings.addresses_max, _RANDOM):
            peer = Peer(host.name, address)
            demand = self._demand(host, way.sts, settings, known.login)
            if isinstance(demand, Unfit):
                self._note(peer, demand.source, demand.trouble.value)
                misses.append(miss(peer, demand))
                continue
            failed = partial(self._failed, peer, demand)
            try:
                session = reach(peer, aim, settings, demand, failed)
            except TROUBLE as error:
                misses.append(miss(peer, error))
                if isinstance(error, Unreachable) and error.silent:
                    self._timed_out.append(address)
                elif not isinstance(error, Unreachable):
                    self._connected.append(address)
                if isinstance(error, NotLoggedIn) and self._gives_up(peer, known.login, error):
                    result, _ = unserved(misses[-1:], len(misses), relay=True)
                    raise _NotServed(result, Health.SHUT) from error
            else:
                self._connected.append(address)
                self._made = _Made(demand, host, known.route or self._route, settings, way.sts, known.login)
                if demand.level not in (Level.NONE, Level.MAY):
                    self._note(session.peer, demand.source, "success")
                return session
        addresses = sum(len(host.addresses) for host in hosts)
        protocol = b"LMTP" if self._destination.lmtp else b"SMTP"
        raise _NotServed(*unserved(misses, addresses, relay=self._destination.relay, protocol=protocol))

    def _gives_up(self, peer: Peer, login: Login | None, error: NotLoggedIn) -> bool:
        """Whether the relay has refused our login, and not only now: its other addresses are not to be asked."""
        server = f"{_word(self._destination.host)}:{self._destination.port}"
        name = _word(login.name if login else b"")
        said = _word(error.reply.one_line()) if error.reply else "-"
        ip, why = _word(peer.address), _word(str(error).encode())
        log.warning(NAME, f"login server={server} ip={ip} name={name} why={why} said={said}")
        return error.refused

    # Protection

    def _failed(self, peer: Peer, demand: Demand, error: TlsFailed) -> None:
        self._note(peer, demand.source, error.trouble.value)

    def _note(self, peer: Peer, source: bytes, result: str) -> None:
        """One line of what a report about TLS is made of (RFC 8460 4); the log bounds how many are kept."""
        domain, policy, mx = map(_word, (self._destination.host, source, peer.name))
        session = _word(peer.tls.partition(b",")[0] or b"-")
        ip = _word(peer.address)
        log.info(NAME, f"tls domain={domain} policy={policy} mx={mx} ip={ip} session={session} result={result}")

    def _demand(self, host: Host, sts: Policy | None, settings: Settings, login: Login | None) -> Demand | Unfit:
        """What a session with *host* must be for the delivery in hand."""
        if self._destination.is_path:
            return CLEAR
        rule = tlspolicy.find(settings.tlspolicy, self._destination.host)
        demand = protection.demand(rule, self._destination, host, sts)
        if login is None or isinstance(demand, Unfit):
            return demand
        return smtpauth.demand(demand, login.guard, self._destination, host.name)

    def _fits(self, known: Known, settings: Settings) -> bool:
        """Whether the kept session is what one made now would have to be."""
        made = self._made
        if known.login != made.login:
            return False
        if settings is made.settings and known.route in (b"", made.route):
            return True
        host, sts = made.host, made.sts
        if known.route not in (b"", made.route):
            try:
                way = unpack_route(known.route)
                host, sts = next(h for h in way.hosts if h.name == host.name), way.sts
            except (Malformed, StopIteration):
                return False
        demand = self._demand(host, sts, settings, known.login)
        if isinstance(demand, Unfit) or (demand.level not in (Level.NONE, Level.MAY) and demand != made.demand):
            return False
        self._made = made._replace(route=known.route or made.route, settings=settings, host=host, sts=sts)
        return True

    # The way

    def _way(self, known: Known, settings: Settings) -> Route:
        """The way that is known, unless it is too old, else what DNS says now; raises QmError."""
        if known.route:
            with suppress(Malformed):  # what another worker left there
                route = unpack_route(known.route)
                if route.until_s > time.monotonic():
                    return route
        found = self._router(settings).find(self._destination)
        self._route = pack_route(found)
        return found

    def _router(self, settings: Settings) -> Router:
        if self._interfaces is None:
            self._interfaces = own_addresses()
        ourselves = policy.Ourselves(self._interfaces, settings.moreipme, settings.notipme)
        resolver = Resolver(settings.servers, settings.timeoutdns)
        have_ipv6 = policy.have_ipv6(self._interfaces)
        sts = None
        if settings.stsport:
            sts = Sts(resolver, settings.stsport, settings.tlsroots, lambda text: log.warning(NAME, text))
        return Router(resolver, ourselves, settings.ipfamily, have_ipv6=have_ipv6, sts=sts)
