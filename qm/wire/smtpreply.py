"""SMTP replies: what a server says, and the ones that more than one module says."""

from typing import Final, NamedTuple


class Reply(NamedTuple):
    """One reply; *text* is ours, never a stranger's bytes, of one line or of several joined by LF."""

    code: int
    status: bytes  # RFC 3463; empty where RFC 2034 has none: greeting, HELO, EHLO, 354
    text: bytes

    def encode(self) -> bytes:
        code, status, text = self
        if not status:
            status_text = text
        elif b"\n" in text:
            status_text = status + b" " + text.replace(b"\n", b"\n%b " % status)  # RFC 2034 4
        else:
            return b"%d %b %b\r\n" % self
        if b"\n" not in text:
            return b"%d %b\r\n" % (code, text)
        *lines, last = status_text.split(b"\n")
        return b"".join([b"%d-%b\r\n" % (code, line) for line in lines]) + b"%d %b\r\n" % (code, last)


OK: Final = Reply(250, b"2.0.0", b"ok")
SENDER_OK: Final = Reply(250, b"2.1.0", b"sender ok")
RECIPIENT_OK: Final = Reply(250, b"2.1.5", b"recipient ok")
GO: Final = Reply(354, b"", b"go ahead, end with CRLF.CRLF")
TROUBLE: Final = Reply(451, b"4.3.0", b"trouble here, please try again later")  # whatever it is, it is ours
TOO_BIG: Final = Reply(552, b"5.3.4", b"message too big")
SEQUENCE: Final = Reply(503, b"5.5.1", b"bad sequence of commands")
