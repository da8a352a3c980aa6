"""What smtpd takes, from whom, and why: pure decisions over a snapshot of the control files (qmail.md 15.2 to 15.4).

Each verdict knows its reply and its reason; the reason names the control file, or the key in it, for the log.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from qm.wire import address, smtp
from qm.wire.envelope import ADDRESS_MAX
from qm.wire.smtpevent import Mail
from qm.wire.smtpreply import RECIPIENT_OK, SENDER_OK, TOO_BIG, TROUBLE, Reply

# What `rules` reads
CONTROLS: Final = (
    "badmailfrom",
    "databytes",
    "localiphost",
    "maxcommands",
    "maxerrors",
    "maxhops",
    "maxline",
    "maxrecipients",
    "rcpthosts",
    "smtpgreeting",
    "timeoutdata",
    "timeoutsmtpd",
)
LINE_MIN: Final = 512  # bytes; RFC 5321 4.5.3.1.4: a shorter command line must not be refused
ENV_MAX: Final = 255  # bytes of a variable that goes into Received and the log

Lookup = Callable[[bytes], bool]  # whether morercpthosts.cdb has a key; may raise Temporary

_BAD_SENDER: Final = Reply(553, b"5.7.1", b"that sender is not welcome here")
_NOT_OURS: Final = Reply(553, b"5.7.1", b"no relaying; that domain is not one of mine")
_NO_DOMAIN: Final = Reply(553, b"5.1.3", b"a recipient needs a domain")
_TOO_LONG: Final = Reply(553, b"5.1.3", b"address too long")
_NO_MAILBOX: Final = Reply(550, b"5.1.1", b"no such mailbox here")
_TOO_MANY: Final = Reply(452, b"4.5.3", b"too many recipients; send the message again for the rest")
_FAR_TOO_MANY: Final = Reply(552, b"5.5.3", b"too many recipients")
_LOOP: Final = Reply(554, b"5.4.6", b"too many hops, this message is looping")


class Source(Protocol):
    """The control files, as qm.disk.control.Controls has them."""

    def me(self) -> bytes: ...

    def line(self, name: str) -> bytes: ...

    def lines(self, name: str) -> tuple[bytes, ...]: ...

    def number(self, name: str) -> int: ...


class Rules(NamedTuple):
    me: bytes
    greeting: bytes
    localiphost: bytes
    rcpthosts: frozenset[bytes]  # in lower case
    badmailfrom: frozenset[bytes]  # in lower case
    databytes: int
    maxhops: int
    maxrecipients: int
    limits: smtp.Limits
    command_s: int
    data_s: int


class Peer(NamedTuple):
    """Who has connected, as tcpserver's environment tells (qmail.md 15.1)."""

    ip: bytes
    host: bytes
    info: bytes  # empty: not known
    local_ip: bytes
    relay: bytes | None  # RELAYCLIENT: may send anywhere, with this appended to each recipient
    databytes: int | None  # DATABYTES: instead of the control file
    asks_userd: bool = True  # NOUSERCHECK: a local user's own session, who could bypass us anyway


class Verdict(NamedTuple):
    reply: Reply
    why: bytes  # for the log
    address: bytes = b""  # the sender or recipient that goes into the envelope


def rules(controls: Source) -> Rules:
    """The rules that CONTROLS make; raises BadControl without a name for this host."""
    return Rules(
        me=controls.me(),
        greeting=controls.line("smtpgreeting"),
        localiphost=controls.line("localiphost"),
        rcpthosts=frozenset(host.lower() for host in controls.lines("rcpthosts")),
        badmailfrom=frozenset(sender.lower() for sender in controls.lines("badmailfrom")),
        databytes=controls.number("databytes"),
        maxhops=controls.number("maxhops"),
        maxrecipients=controls.number("maxrecipients"),
        limits=smtp.Limits(
            max(LINE_MIN, controls.number("maxline")),
            controls.number("maxerrors"),
            controls.number("maxcommands"),
        ),
        command_s=max(1, controls.number("timeoutsmtpd")),  # qmail.md 15.2
        data_s=max(1, controls.number("timeoutdata")),
    )


def peer(env: Mapping[bytes, bytes]) -> Peer:
    databytes = env.get(b"DATABYTES", b"")
    return Peer(
        env.get(b"TCPREMOTEIP", b"unknown")[:ENV_MAX],
        env.get(b"TCPREMOTEHOST", b"unknown")[:ENV_MAX],
        env.get(b"TCPREMOTEINFO", b"")[:ENV_MAX],
        env.get(b"TCPLOCALIP", b""),
        env.get(b"RELAYCLIENT"),
        int(databytes) if databytes.isdigit() and len(databytes) <= 18 else None,
        b"NOUSERCHECK" not in env,
    )


def size_limit(rules: Rules, peer: Peer) -> int:
    """The largest message in bytes; 0: no limit."""
    return rules.databytes if peer.databytes is None else peer.databytes


def extensions(rules: Rules, peer: Peer) -> Reply:
    """The answer to EHLO."""
    size = size_limit(rules, peer)
    words = b"PIPELINING\nSIZE %d\n8BITMIME\nSMTPUTF8\nCHUNKING\nDSN\nENHANCEDSTATUSCODES" % size
    return Reply(250, b"", rules.greeting + b"\n" + words)


def judge_mail(rules: Rules, peer: Peer, mail: Mail) -> Verdict:
    """Who is in badmailfrom is told so at RCPT, like in qmail (qmail.md 15.3)."""
    if 0 < size_limit(rules, peer) < mail.size:  # RFC 1870 6.1
        return Verdict(TOO_BIG, b"databytes")
    return Verdict(SENDER_OK, b"ok", _here(rules, peer, mail.sender))


def _here(rules: Rules, peer: Peer, recipient: bytes) -> bytes:
    """*recipient* with localiphost for our own address in brackets (qmail.md 15.4), the one that was called."""
    local, domain = address.split(recipient)
    if not (domain.startswith(b"[") and peer.local_ip):
        return recipient
    text = domain[1:-1]
    if text[:5].upper() == b"IPV6:":  # RFC 5321 4.1.3
        text = text[5:]
    try:
        same = ipaddress.ip_address(text.decode("ascii")) == ipaddress.ip_address(peer.local_ip.decode("ascii"))
    except ValueError:
        return recipient
    return local + b"@" + rules.localiphost if same else recipient


def _walk(domain: bytes) -> Iterator[bytes]:
    """*domain*, then each of its ends that begins with a dot (qmail.md 2.5)."""
    yield domain
    at = domain.find(b".")
    while at >= 0:
        yield domain[at:]
        at = domain.find(b".", at + 1)


def _who_says_ours(rules: Rules, more: Lookup, domain: bytes) -> bytes:
    """The control file and key by which *domain* is ours, or nothing."""
    domain = domain.lower()
    for key in _walk(domain):
        if key in rules.rcpthosts:
            return b"rcpthosts:" + key
    for key in _walk(domain):
        if more(key):
            return b"morercpthosts:" + key
    return b""


def _is_bad(rules: Rules, sender: bytes) -> bool:
    if not (rules.badmailfrom and sender):
        return False
    sender = sender.lower()
    return sender in rules.badmailfrom or b"@" + address.split(sender)[1] in rules.badmailfrom


def _take(why: bytes, recipient: bytes) -> Verdict:
    return Verdict(RECIPIENT_OK if len(recipient) <= ADDRESS_MAX else _TOO_LONG, why, recipient)


def judge_rcpt(rules: Rules, peer: Peer, more: Lookup, sender: bytes, recipient: bytes) -> Verdict:
    """Whether *recipient* may be one, whoever else is; *sender* is as `judge_mail` gave it.

    Raises what *more* raises.
    """
    recipient = _here(rules, peer, recipient)
    if _is_bad(rules, sender):
        return Verdict(_BAD_SENDER, b"badmailfrom")
    local, domain = address.split(recipient)
    if not domain and local.lower() == b"postmaster":  # RFC 5321 4.5.1
        return _take(b"postmaster", recipient + b"@" + rules.me)
    if peer.relay is not None:
        return _take(b"RELAYCLIENT", recipient + peer.relay)
    if not domain:
        return Verdict(_NO_DOMAIN, b"no-domain")
    why = _who_says_ours(rules, more, domain)
    if not why:
        return Verdict(_NOT_OURS, b"rcpthosts")
    return _take(why, recipient)


def judge_count(rules: Rules, accepted: int, refused: int) -> Verdict | None:
    """Whether there is room for one recipient more, when *refused* have been told that there is none.

    The first answer is temporary, so that a sender of many comes again with the rest (RFC 5321 4.5.3.1.10); one that
    does not listen gets errors, which are counted.
    """
    if not 0 < rules.maxrecipients <= accepted:
        return None
    return Verdict(_TOO_MANY if refused < rules.maxrecipients else _FAR_TOO_MANY, b"maxrecipients")


def judge_mailbox(verdict: Verdict, answer: bytes, text: bytes) -> Verdict:
    """What userd's *answer* about the address of a good *verdict* makes of it."""
    if answer == b"yes":
        return verdict
    if answer == b"no":
        return Verdict(_NO_MAILBOX, b"userd:" + text)
    return Verdict(TROUBLE, b"userd:" + text)


def judge_hops(rules: Rules, hops: int) -> Verdict | None:
    """Whether a message has come too often (RFC 5321 6.3)."""
    return Verdict(_LOOP, b"maxhops") if hops >= rules.maxhops else None
