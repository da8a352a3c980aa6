"""A message as Postfix's postdrop(1) leaves it in maildrop/: pickup(8) and cleanup(8) have not touched it.

What they would have done to its header for mail of this machine, as far as it matters: fields that are the envelope's
are taken out (message_drop_headers; a Bcc is nobody's business), and those that it must have are put in.
"""

import re
from collections.abc import Iterator
from typing import Final

from qm.wire import address, date
from qm.wire.record import Malformed

_HEADER_MAX: Final = 1024 * 1024  # bytes; Postfix's header_size_limit is a tenth of it
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:.*\n(?:[ \t].*\n)*")
_DROPPED: Final = frozenset((b"bcc", b"content-length", b"resent-bcc", b"return-path"))


def qualified(mailbox: bytes, origin: bytes) -> bytes:
    """append_at_myorigin."""
    return mailbox if not mailbox or b"@" in mailbox or not origin else mailbox + b"@" + origin


def _begin(pieces: Iterator[bytes]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Names in lower case and texts of the fields, and what follows them in the pieces that were taken."""
    text = b""
    for piece in pieces:
        text += piece
        fields, end = [], 0
        while match := _FIELD.match(text, end):
            fields.append((match[1].lower(), match[0]))
            end = match.end()
        if b"\n" in text[end:]:  # a line that is no field
            return fields, text[end:]
        if len(text) > _HEADER_MAX:
            raise Malformed("its header is too long")
    return (fields, text[end:]) if text else ([], b"")


def completed(pieces: Iterator[bytes], sender: bytes, name: bytes, origin: bytes, born_s: int) -> Iterator[bytes]:
    """The message in *pieces*, which *name* had there; raises Malformed."""
    fields, rest = _begin(pieces)
    names = {field for field, _ in fields}
    if b"date" not in names:
        yield b"Date: " + date.rfc5322(born_s) + b"\n"
    if b"message-id" not in names:
        yield b"Message-ID: <%b.%b@%b>\n" % (date.compact(born_s), name, origin or b"localhost")
    if b"from" not in names:
        yield b"From: %b\n" % (address.quote(sender) if sender else b"MAILER-DAEMON")
    yield b"".join(text for field, text in fields if field not in _DROPPED)
    if rest and not rest.startswith(b"\n"):
        yield b"\n"  # a body that nothing divides from the header
    yield rest
    yield from pieces
