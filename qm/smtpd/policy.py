"""What smtpd takes, from whom, and why: pure decisions over a snapshot of the control files (qmail.md 15.2 to 15.4).

Each verdict knows its reply and its reason; the reason names the control file, or the key in it, for the log.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final, NamedTuple

from qm.smtpd.rules import Peer, Rules, size_limit
from qm.wire import address
from qm.wire.envelope import ADDRESS_MAX
from qm.wire.rcpthosts import Lookup, who_says_ours
from qm.wire.smtpevent import Mail
from qm.wire.smtpreply import RECIPIENT_OK, SENDER_OK, TOO_BIG, TROUBLE, Reply
from qm.wire.smtpstate import BEFORE_AUTH, BEFORE_TLS, Bar

_BAD_SENDER: Final = Reply(553, b"5.7.1", b"that sender is not welcome here")
_NOT_OURS: Final = Reply(553, b"5.7.1", b"no relaying; that domain is not one of mine")
_NO_DOMAIN: Final = Reply(553, b"5.1.3", b"a recipient needs a domain")
_TOO_LONG: Final = Reply(553, b"5.1.3", b"address too long")
_NO_MAILBOX: Final = Reply(550, b"5.1.1", b"no such mailbox here")
_TOO_MANY: Final = Reply(452, b"4.5.3", b"too many recipients; send the message again for the rest")
_FAR_TOO_MANY: Final = Reply(552, b"5.5.3", b"too many recipients")
_UNKNOWN_PARAMETER: Final = Reply(555, b"5.5.4", b"unknown parameter")
_LOOP: Final = Reply(554, b"5.4.6", b"too many hops, this message is looping")


class Verdict(NamedTuple):
    reply: Reply
    why: bytes  # for the log
    address: bytes = b""  # the sender or recipient that goes into the envelope


def extensions(rules: Rules, peer: Peer, offers: Sequence[bytes] = ()) -> Reply:
    """The answer to EHLO; *offers* are the extensions that this client has and others may not."""
    size = size_limit(rules, peer)
    words = b"PIPELINING\nSIZE %d\n8BITMIME\nSMTPUTF8\nCHUNKING\nDSN\nENHANCEDSTATUSCODES" % size
    return Reply(250, b"", b"\n".join((rules.greeting, *offers, words)))


def bar(peer: Peer) -> Bar | None:
    """What *peer* must do first."""
    if peer.forcetls and peer.secured is None:
        return BEFORE_TLS
    return BEFORE_AUTH if peer.submission and peer.login is None else None


def judge_mail(rules: Rules, peer: Peer, mail: Mail) -> Verdict:
    """Who is in badmailfrom is told so at RCPT, like in qmail (qmail.md 15.3)."""
    if mail.requiretls:  # RFC 8689 2: it is not offered
        return Verdict(_UNKNOWN_PARAMETER, b"REQUIRETLS")
    if mail.auth and not peer.auth:  # RFC 4954 5; it would not be trusted either
        return Verdict(_UNKNOWN_PARAMETER, b"AUTH")
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
        why = b"RELAYCLIENT" if peer.login is None else b"login:" + peer.login.name
        return _take(why, recipient + peer.relay)
    if not domain:
        return Verdict(_NO_DOMAIN, b"no-domain")
    why = who_says_ours(rules.rcpthosts, more, domain)
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
