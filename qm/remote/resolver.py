"""Ask DNS servers several questions at once; what the answers mean is qm.wire.dnsverdict's.

Each attempt has a socket of its own, connected (a random port, RFC 5452 9.2), and random IDs.  A server that fails a
question is not asked it again; one that is silent is, until the time is over.
"""

import socket
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import dns.flags
import dns.message
import dns.rdatatype

from qm.wire.dnsverdict import SETTLED, Finding, Verdict, judge

MX: Final = int(dns.rdatatype.MX)
TXT: Final = int(dns.rdatatype.TXT)
TLSA: Final = int(dns.rdatatype.TLSA)
ADDRESS_TYPES: Final = {4: int(dns.rdatatype.A), 6: int(dns.rdatatype.AAAA)}
TRY_S: Final = 3.0  # one server's time to answer
GRACE_S: Final = 0.05  # how much later than what is needed the rest may come (RFC 8305 3)
UDP_MAX: Final = 1232  # bytes of an answer by UDP; larger ones come by TCP
_DATAGRAM_MAX: Final = 65535


class Question(NamedTuple):
    name: str  # in A-labels, without its last dot
    rdtype: int


class Server(NamedTuple):
    family: int
    address: str
    port: int
    trusted: bool = False  # what it says of DNSSEC is believed (RFC 7672 2.2)


def server(address: str, port: int = 53) -> Server:
    """Raises ValueError for what is not an IP address."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][0]
    except OSError as error:
        raise ValueError(f"{address} is not an IP address") from error
    return Server(family, address, port)


class _Asked:
    """A question, and what has come of it."""

    __slots__ = ("edns", "failed", "finding", "message", "needed", "question")

    def __init__(self, question: Question, needed: bool) -> None:
        self.question = question
        self.needed = needed
        self.finding = Finding(Verdict.TIMEOUT)
        self.failed: set[Server] = set()
        self.edns = True
        self.message = self._message()

    def _message(self) -> dns.message.Message:
        rdtype = dns.rdatatype.RdataType(self.question.rdtype)
        edns = 0 if self.edns else -1
        query = dns.message.make_query(self.question.name + ".", rdtype, use_edns=edns, payload=UDP_MAX)
        query.flags |= dns.flags.AD  # RFC 6840 5.7: whether the answer is secure, without the signatures
        return query

    @property
    def settled(self) -> bool:
        return self.finding.verdict in SETTLED

    def wire(self) -> bytes:
        """The question with a new ID."""
        self.message = self._message()
        return self.message.to_wire()

    def take(self, finding: Finding, server: Server) -> None:
        self.finding = finding if server.trusted else finding._replace(secure=False)
        if finding.verdict is Verdict.FORMERR and self.edns:
            self.edns = False  # RFC 6891 7: it may be too old for EDNS
        elif not self.settled:
            self.failed.add(server)


def _enough(asked: Collection[_Asked]) -> bool:
    """Whether nothing more is worth waiting for: all is settled, or what is needed is and some of it was found."""
    needed = [a for a in asked if a.needed]
    if not all(a.settled for a in needed):
        return False
    return any(a.finding.verdict is Verdict.FOUND for a in needed) or all(a.settled for a in asked)


def _by_tcp(server: Server, query: dns.message.Message, limit_s: float) -> Finding:
    """What *server* says to *query* by TCP."""
    wire = query.to_wire()
    deadline_s = time.monotonic() + limit_s
    try:
        with socket.create_connection((server.address, server.port), limit_s) as tcp:
            tcp.sendall(len(wire).to_bytes(2, "big") + wire)
            size = int.from_bytes(_read(tcp, 2, deadline_s), "big")  # RFC 7766 8
            return judge(query, _read(tcp, size, deadline_s)) or Finding(Verdict.BOGUS)
    except OSError:
        return Finding(Verdict.TRUNCATED)


def _read(tcp: socket.socket, size: int, deadline_s: float) -> bytes:
    """Exactly *size* bytes; raises OSError if they do not come in time."""
    data = b""
    while len(data) < size:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        tcp.settimeout(left_s)
        piece = tcp.recv(size - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


def _collect(
    udp: socket.socket, server: Server, asked: Collection[_Asked], batch: Iterable[_Asked], limit_s: float
) -> None:
    """Take the answers to *batch* until all are there, or enough of *asked* is, or *limit_s* is over."""
    deadline_s = time.monotonic() + limit_s
    waiting = {a.message.id: a for a in batch}
    while waiting:
        if _enough(asked):
            deadline_s = min(deadline_s, time.monotonic() + GRACE_S)
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return
        udp.settimeout(left_s)
        wire = udp.recv(_DATAGRAM_MAX)
        a = waiting.get(int.from_bytes(wire[:2], "big"))
        finding = judge(a.message, wire) if a is not None else None
        if a is None or finding is None:
            continue  # somebody else's, or late, or forged
        del waiting[a.message.id]
        a.take(_by_tcp(server, a.message, left_s) if finding.verdict is Verdict.TRUNCATED else finding, server)


class Resolver:
    """A stub resolver over recursive *servers*; *limit_s* is for all that is asked at once."""

    def __init__(self, servers: Sequence[Server], limit_s: float) -> None:
        self._servers = list(servers)
        self._limit_s = limit_s

    def ask(self, questions: Iterable[Question], optional: Collection[Question] = ()) -> dict[Question, Finding]:
        """A finding for each question.

        *optional* ones are not waited for once the others are settled and one of those is found.
        """
        asked = [_Asked(question, question not in optional) for question in dict.fromkeys(questions)]
        deadline_s = time.monotonic() + self._limit_s
        while not _enough(asked):
            left_s = deadline_s - time.monotonic()
            server = next((s for s in self._servers if any(s not in a.failed for a in asked if not a.settled)), None)
            if left_s <= 0 or server is None:
                break
            batch = [a for a in asked if not a.settled and server not in a.failed]
            if not self._attempt(server, asked, batch, min(TRY_S, left_s)):
                self._servers.append(self._servers.pop(self._servers.index(server)))  # its turn comes again
        return {a.question: a.finding for a in asked}

    def _attempt(self, server: Server, asked: Collection[_Asked], batch: Collection[_Asked], limit_s: float) -> bool:
        """Ask *server*; whether it was of use."""
        try:
            with socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as udp:
                udp.connect((server.address, server.port))
                for a in batch:
                    udp.send(a.wire())
                _collect(udp, server, asked, batch, limit_s)
        except TimeoutError:
            return False
        except OSError:  # nobody there
            for a in batch:
                if not a.settled:
                    a.failed.add(server)
            return False
        return all(a.settled for a in batch if a.needed)
