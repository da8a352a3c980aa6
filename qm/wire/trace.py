"""Our Received field, but for what the queue puts into it: its ID and the date (RFC 5321 4.4).

::

    Received: from HELO (INFO@HOST [IP])
      by ME with PROTOCOL{ id ID}
      for <RECIPIENT>{; DATE}
"""

import re
from typing import Final

from qm.wire import address

_UNSAFE: Final = re.compile(rb"[^0-9A-Za-z.@%+/=:\-\[\]]")  # qmail.md 15.5
_NO_CIPHER: Final = re.compile(rb"[^0-9A-Za-z._-]")
_UNPRINTABLE: Final = re.compile(rb"[^!-~\x80-\xff]")


def safe(word: bytes) -> bytes:
    """A stranger's *word* as it may stand in a header: no blank, comment, quote or control byte."""
    return _UNSAFE.sub(b"?", word)


def literal(ip: bytes) -> bytes:
    """*ip* as an address literal (RFC 5321 4.1.3)."""
    return b"[IPv6:%b]" % ip if b":" in ip else b"[%b]" % ip


def client(host: bytes, ip: bytes, info: bytes) -> bytes:
    """Who is at the other end, in the words of tcpserver: ``host [ip]``, or ``info@host [ip]``; *info* may be empty."""
    who = b"%b@%b" % (safe(info), safe(host)) if info else safe(host)
    return b"%b %b" % (who, literal(safe(ip)))


def received(helo: bytes, peer: bytes, me: bytes, protocol: bytes, recipient: bytes) -> tuple[bytes, bytes]:
    """The field before and after the queue's `` id ID``.

    *peer* is what `client` gave; *recipient* is the only one, or empty.
    """
    head = b"Received: from %b (%b)\n  by %b with %b" % (safe(helo) or b"unknown", peer, safe(me), protocol)
    if not recipient:
        return head, b""
    return head, b"\n  for <%b>" % _UNPRINTABLE.sub(b"?", address.quote(recipient))


def protocol(
    *, extended: bool, smtputf8: bool = False, tls: bool = False, authenticated: bool = False, lmtp: bool = False
) -> bytes:
    """The ``with`` keyword of RFC 3848 and RFC 6531 4.3."""
    if lmtp:
        keyword = b"UTF8LMTP" if smtputf8 else b"LMTP"
    elif not (extended or tls or authenticated):
        return b"SMTP"
    else:
        keyword = b"UTF8SMTP" if smtputf8 else b"ESMTP"
    return keyword + (b"S" if tls else b"") + (b"A" if authenticated else b"")


def under_tls(keyword: bytes, version: bytes, cipher: bytes) -> bytes:
    """*keyword* with what TLS agreed on as a comment: ``ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384)``."""
    return b"%b (%b %b)" % (keyword, _NO_CIPHER.sub(b"?", version), _NO_CIPHER.sub(b"?", cipher))
