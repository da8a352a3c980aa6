"""STARTTLS in a session, without TLS: what is forgotten, and what is refused."""

import pytest

from qm.errors import Temporary
from qm.smtpd.client import Means
from qm.unix.channel import Gone
from tests.unit.smtpd.double import ENV, RULES, Peer, Queue, Store, Tls, codes, submission, talk

BEGIN = b"EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@b.example>\r\n"
DATA = b"DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"
FORCED = {**ENV, b"FORCETLS": b""}


def test_a_message_under_tls() -> None:
    """A message under TLS is said to be so in Received; STARTTLS is not offered there."""
    queue, under = Queue(), Peer([BEGIN, DATA, b"STARTTLS\r\nQUIT\r\n"])
    clear = Peer([b"EHLO c\r\n", b"STARTTLS\r\n"])
    talk(clear, queue, means=Means(Tls(under)))
    assert b"250-STARTTLS\r\n" in clear.heard
    assert b"STARTTLS" not in under.heard
    assert codes(under.heard) == [250, 250, 250, 354, 250, 503, 221]
    [(trace, envelope, _)] = queue.queued
    assert trace.head == (
        b"Received: from c.example (client.example [192.0.2.1])\n"
        b"  by mx.example with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384)"
    )
    assert envelope.protocol == b"ESMTPS"


def test_what_was_said_in_clear_is_forgotten() -> None:
    """Sender, recipients and name of before are gone: nothing in clear has a part in what comes under TLS."""
    queue, under = (
        Queue(),
        Peer([b"DATA\r\nRCPT TO:<u@b.example>\r\nMAIL FROM:<x@y>\r\nRCPT TO:<u@b.example>\r\n" + DATA]),
    )
    talk(Peer([BEGIN, b"STARTTLS\r\n"]), queue, means=Means(Tls(under)))
    assert codes(under.heard) == [503, 503, 250, 250, 354, 250]
    [(trace, envelope, _)] = queue.queued
    assert envelope.sender == b"x@y"
    assert trace.head.startswith(b"Received: from unknown ")


@pytest.mark.parametrize(
    "behind", [b"M", b"EHLO c\r\n", BEGIN + DATA, b"\r\n", b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"\x16\x03\x01"]
)
def test_injection(behind: bytes) -> None:
    """Anything that came together with STARTTLS ends the session, and no handshake is begun (CVE-2011-0411)."""
    tls, peer, store = Tls(Peer([])), Peer([b"EHLO c\r\nSTARTTLS\r\n" + behind]), Store()
    talk(peer, means=Means(tls, store))
    assert codes(peer.heard) == [220, 250, 554]
    assert not tls.asked
    assert not store.asked


def test_no_certificate() -> None:
    """Without a certificate STARTTLS is not offered; who asks all the same hears 454, and may go on in clear."""
    peer = Peer([b"EHLO c\r\n", b"STARTTLS\r\n", b"MAIL FROM:<>\r\n"])
    talk(peer, means=Means(Tls(ready=False, trouble=Temporary("no certificate", detail="secret"))))
    assert codes(peer.heard) == [220, 250, 454, 250]
    assert b"STARTTLS" not in peer.heard
    assert b"secret" not in peer.heard


def test_a_handshake_that_fails() -> None:
    """After a handshake that failed nothing is said: the peer cannot read it."""
    peer = Peer([b"STARTTLS\r\n", b"NOOP\r\n"])
    assert talk(peer, means=Means(Tls(trouble=Gone("handshake")))) == 111
    assert codes(peer.heard) == [220]


def test_forced() -> None:
    """With FORCETLS nothing is taken in clear, not even a password (RFC 3207 4)."""
    store, under = Store(), Peer([BEGIN])
    peer = Peer(
        [
            b"EHLO c\r\nNOOP\r\nMAIL FROM:<>\r\nRCPT TO:<u@b.example>\r\nDATA\r\nRSET\r\nVRFY u\r\n",
            b"AUTH PLAIN x\r\n",
            b"STARTTLS\r\n",
        ]
    )
    talk(peer, env=FORCED, means=Means(Tls(under), store))
    assert codes(peer.heard) == [220, 250, 250, 530, 530, 530, 530, 530, 530]
    assert not store.asked
    assert codes(under.heard) == [250, 250, 250]


def test_submission_under_tls() -> None:
    """After STARTTLS a submitter must still log in."""
    store, under = (
        Store(),
        Peer([b"EHLO c\r\nMAIL FROM:<ann@b.example>\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"QUIT\r\n"]),
    )
    means = submission(store)._replace(tls=Tls(under))
    talk(Peer([b"STARTTLS\r\n"]), env={**FORCED, b"SUBMISSION": b""}, means=means)
    assert codes(under.heard) == [250, 530, 235, 221]


def test_a_login_in_clear_stays_below() -> None:
    """Who has logged in in clear must log in again under TLS: RFC 3207 4.2 forgets that too."""
    under = Peer([b"MAIL FROM:<a@b>\r\nRCPT TO:<u@elsewhere.example>\r\nRSET\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n"])
    rules = RULES._replace(authclear=True)
    talk(Peer([b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"STARTTLS\r\n"]), rules=rules, means=Means(Tls(under), Store()))
    assert codes(under.heard) == [250, 553, 250, 235]
