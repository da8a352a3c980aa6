"""Addresses: how they are split, quoted and checked, once for all programs.

Inside qm an address is what an envelope holds: the local part **without** quotes, ``@``, the domain; so
``"joe user"@x`` is ``joe user@x``.  It is split at the last ``@`` (qmail.md 2.8).  The empty address is the null
sender.
"""

import re
from typing import Final

DOMAIN_MAX: Final = 255  # bytes; RFC 5321 4.5.3.1.2.  Local parts may be longer than its 64: VERP and SRS make such

_ATOM: Final = rb"[!#-'*+\-/-9=?A-Z^-~\x80-\xff]"  # RFC 5321 4.1.2 atext, RFC 6531 3.3
_LABEL: Final = rb"[0-9A-Za-z_\x80-\xff-]+"
_DOMAIN: Final = rb"(?:%b(?:\.%b)*|\[[!-Z^-~]*\])" % (_LABEL, _LABEL)  # a literal may be empty: #@[] (qmail.md 7.11)

# Atomic groups: a stranger's line must not make the matcher try again.  (Before Python 3.11.5 possessive quantifiers
# over groups match what they should not: cpython issue 106052.)
_QUOTED: Final = rb'"(?>(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*)"'
_MAILBOX: Final = re.compile(rb"((?>(?:[.]|%b+|%b)+))(?:@(%b))?" % (_ATOM, _QUOTED, _DOMAIN))
_QUOTING: Final = re.compile(rb'\\(.)|"')

_BARE_LOCAL: Final = re.compile(rb"%b+(?:\.%b+)*" % (_ATOM, _ATOM))
_ESCAPED: Final = re.compile(rb'([\r\n"\\])')


def split(address: bytes) -> tuple[bytes, bytes]:
    """``(local part, domain)``; without ``@`` the domain is empty."""
    local, at, domain = address.rpartition(b"@")
    return (local, domain) if at else (address, b"")


def is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def quote(address: bytes) -> bytes:
    """*address* as it stands in Return-Path and between ``<`` and ``>``; the null sender stays empty (qmail.md 2.8).

    UTF-8 is not quoted (RFC 6531 3.3), bytes of anything else are.  The domain is copied verbatim.
    """
    if not address:
        return b""
    local, at, domain = address.rpartition(b"@")
    if not at:
        local, domain = address, b""
    if _BARE_LOCAL.fullmatch(local) and is_utf8(local):
        return address
    return b'"' + _ESCAPED.sub(rb"\\\1", local) + b'"' + at + domain


def parse(mailbox: bytes) -> bytes | None:
    """The address that *mailbox* (RFC 5321 4.1.2, RFC 6531 3.3, without angle brackets and route) means, or None.

    Beyond the RFCs: dots anywhere in the local part and quoted pieces joined, as real mailboxes have them; ``_`` in a
    domain; no domain at all, which the caller judges.
    """
    match = _MAILBOX.fullmatch(mailbox)
    if match is None or not is_utf8(mailbox):
        return None
    local, domain = match.groups()
    if domain is not None and len(domain) > DOMAIN_MAX:
        return None
    if b'"' not in mailbox:
        return mailbox
    local = _QUOTING.sub(lambda quoting: quoting[1] or b"", local)
    if domain is None:
        return local if b"@" not in local else None  # else what was quoted would be a domain
    return local + b"@" + domain
