"""The server's half of SMTP and LMTP, without a socket: bytes in, events out, replies back in (RFC 5321, 2920, 3030).

A command ends at LF, with or without CR (qmail.md 2.10); a message only as qm.wire.smtpdata says.  What is legal when
stands in one table, LEGAL, and what a success leads to in another, AFTER.  An event of ANSWERED must be answered by
`reply` before the next is asked for; the others have been answered here, or need no answer.  All state is in the
object, so that STARTTLS (RFC 3207 4.2) is a new object, made when the old one has nothing left `unread`.

By LMTP a message is answered once for each recipient that was accepted (RFC 2033 4.2, 4.3); the driver replies once.

Every limit ends the session with a reply that says so, and nothing that came after it is looked at.
"""

from collections.abc import Callable
from typing import Final

from qm.wire import smtpsyntax
from qm.wire.smtpdata import BareLineEnd, ChunkDecoder, DotDecoder
from qm.wire.smtpevent import (
    ANSWERED,
    END,
    NEED_DATA,
    Auth,
    Bdat,
    Command,
    End,
    Event,
    Mail,
    Piece,
    Quit,
    Rcpt,
    Rejected,
    Response,
    Start,
    Text,
)
from qm.wire.smtplimits import AUTH_MAX, DISCARD_MAX, RESPONSE_MAX, SKIP_MAX, Limits
from qm.wire.smtpreply import GO, SEQUENCE, Reply
from qm.wire.smtpstate import AFTER, EVER, LEGAL, Bar, State

_LONG_LINE: Final = Reply(500, b"5.5.2", b"line too long")
_LONG_RESPONSE: Final = Reply(500, b"5.5.6", b"authentication exchange line is too long")  # RFC 4954 6
_BARE: Final = Reply(554, b"5.6.0", b"bare CR or LF in the message")
_ERRORS: Final = Reply(421, b"4.7.0", b"too many errors")
_COMMANDS: Final = Reply(421, b"4.7.0", b"too many commands without a message")


class Server:
    """One session, but for its greeting, which is the driver's to say."""

    def __init__(self, limits: Limits, bar: Bar | None = None, *, lmtp: bool = False) -> None:
        self._limits = limits
        self._verbs = smtpsyntax.LMTP if lmtp else smtpsyntax.SMTP
        self._accepted = 0  # recipients
        self.bar = bar  # until the driver takes it away
        self._out: list[bytes] = []
        self._buffer = b""
        self._at = 0  # where in the buffer the next command or text begins
        self._eof = False
        self._step: Callable[[], Event] = self._command
        self._unanswered: Event | None = None
        self._state = State.IDLE
        self._smtputf8 = False  # of the transaction
        self._errors = 0
        self._commands = 0
        self._waste = 0  # bytes thrown away, of a long line or of a refused message
        self._refusal: Reply | None = None  # of the message that is being thrown away
        self._dots = DotDecoder()
        self._chunks = ChunkDecoder()
        self._decoder: DotDecoder | ChunkDecoder = self._dots

    # The driver's side

    def receive(self, data: bytes) -> None:
        """Take what the peer has sent; b"" is the end of it."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        self._eof = not data

    @property
    def unread(self) -> bool:
        """Whether the peer has sent something behind the last event."""
        return self._at < len(self._buffer)

    def outgoing(self) -> bytes:
        """What to send, at the latest before waiting for the peer (RFC 2920 3.2)."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def next_event(self) -> Event:
        assert self._unanswered is None, "the last event is not answered"
        event = self._step()
        if type(event) in ANSWERED:
            self._unanswered = event
        return END if event is NEED_DATA and self._eof else event

    def reply(self, reply: Reply) -> None:
        """Answer the last event; the code decides what follows.  After 421 nothing does (RFC 5321 3.8)."""
        event = self._unanswered
        assert event is not None, "nothing to answer"
        self._unanswered = None
        if reply.code == 421:
            self.close(reply)
        elif type(event) is Start:
            self._begin(event, reply)
        elif type(event) is End:
            self._say_end(reply)
            self._advance(event, reply.code)
        else:
            self._say(reply)
            self._advance(event, reply.code)

    def refuse(self, reply: Reply) -> None:
        """Throw away the message that is coming; *reply* is the answer when it is over, or too much of it has come."""
        assert self._step in (self._content, self._content_over), "no message is coming"
        self._refusal = reply
        self._waste = 0
        self._state = State.IDLE

    def close(self, reply: Reply | None = None) -> None:
        """Say *reply*, and be deaf from now on."""
        if reply is not None:
            self._out.append(reply.encode())
        self._unanswered = None
        self._buffer, self._at = b"", 0
        self._step = self._closed

    def _closed(self) -> Event:
        return END

    # Answers

    def _say(self, reply: Reply) -> None:
        if reply.code >= 500:
            self._errors += 1
        self._out.append(reply.encode())

    def _say_end(self, reply: Reply) -> None:
        """The answer to a whole message."""
        self._say(reply)
        if self._verbs is smtpsyntax.LMTP:
            self._out.extend([reply.encode()] * (self._accepted - 1))

    def _reject(self, line: bytes, reply: Reply) -> Event:
        self._say(reply)
        return Rejected(line, reply)

    def _hang_up(self, line: bytes, reply: Reply) -> Event:
        self.close(reply)
        return Rejected(line, reply)

    def _advance(self, event: Event, code: int) -> None:
        kind = type(event)
        if kind is Rcpt and code < 500:
            self._commands -= 1  # recipients have a limit of their own
        elif kind is Auth or kind is Response:
            self._step = self._response if code == 334 else self._command  # RFC 4954 4
        if code < 400:
            self._state = AFTER.get(kind, self._state)
            if type(event) is Mail:
                self._smtputf8 = event.smtputf8
            elif kind is Rcpt:
                self._accepted += 1
            elif kind is End:
                self._commands = 0
            elif kind is Quit:
                self.close()
        elif kind in (Mail, Piece, End):
            self._state = State.IDLE
        if self._state in (State.IDLE, State.MAIL):
            self._accepted = 0

    # Commands

    def _command(self) -> Event:
        if 0 < self._limits.errors <= self._errors:
            return self._hang_up(b"", _ERRORS)
        if 0 < self._limits.commands <= self._commands:
            return self._hang_up(b"", _COMMANDS)
        end = self._buffer.find(b"\n", self._at)
        if (end if end >= 0 else len(self._buffer)) - self._at > self._limits.line_bytes and self._is_too_long(end):
            return self._long_line(_LONG_LINE)
        if end < 0:
            return NEED_DATA
        line = self._buffer[self._at : end]
        self._at = end + 1
        self._commands += 1
        if line.endswith(b"\r"):
            line = line[:-1]
        try:
            return self._judge(smtpsyntax.parse(line, self._verbs))
        except smtpsyntax.Refused as refused:
            if line[:4].upper() == b"MAIL" and self._state is not State.BDAT:
                self._state, self._accepted = State.IDLE, 0  # its recipients must not join the sender before
            return (self._hang_up if refused.fatal else self._reject)(line, refused.reply)

    def _judge(self, command: Command) -> Event:
        if isinstance(command, Bdat):
            return self._bdat(command)
        if self.bar is not None and type(command) not in self.bar.free:
            raise smtpsyntax.Refused(self.bar.reply)
        if self._state not in LEGAL.get(type(command), EVER):
            raise smtpsyntax.Refused(SEQUENCE)
        if isinstance(command, Rcpt) and not self._smtputf8:
            smtpsyntax.check_ascii(command)
        return command

    def _is_too_long(self, end: int) -> bool:
        """Whether a command longer than others may be is so for an AUTH too."""
        line_end = end if end >= 0 else len(self._buffer)
        return self._buffer[self._at : self._at + 5].upper() != b"AUTH " or line_end - self._at > AUTH_MAX

    def _long_line(self, reply: Reply) -> Event:
        line = self._buffer[self._at : self._at + self._limits.line_bytes]
        self._commands += 1
        self._waste = 0
        self._step = self._skip
        return self._reject(line, reply)

    def _response(self) -> Event:
        """A line of an AUTH exchange."""
        end = self._buffer.find(b"\n", self._at)
        if (end if end >= 0 else len(self._buffer)) - self._at > RESPONSE_MAX + len(b"\r"):
            self._long_line(_LONG_RESPONSE)
            return Rejected(b"AUTH", _LONG_RESPONSE)
        if end < 0:
            return NEED_DATA
        line = self._buffer[self._at : end]
        self._at = end + 1
        return Response(line[:-1] if line.endswith(b"\r") else line)

    def _skip(self) -> Event:
        """Throw away the rest of a line that is too long."""
        end = self._buffer.find(b"\n", self._at)
        if end >= 0:
            self._at = end + 1
            self._step = self._command
            return self._command()
        self._waste += len(self._buffer) - self._at
        self._buffer, self._at = b"", 0
        return self._hang_up(b"", _ERRORS) if self._waste > SKIP_MAX else NEED_DATA

    # A message

    def _begin(self, start: Start, reply: Reply) -> None:
        """DATA or the first BDAT has been answered; a BDAT's go-ahead is silent."""
        if start.chunking:
            self._step = self._content
            if reply.code != GO.code:
                self.refuse(reply)
            return
        self._say(reply)
        if reply.code != GO.code:
            self._state = State.IDLE
            return
        self._step = self._content
        self._decoder = DotDecoder()

    def _bdat(self, chunk: Bdat) -> Event:
        if self._state is not State.BDAT:
            self._chunks = ChunkDecoder()
        self._decoder = self._chunks
        self._chunks.expect(chunk.octets, chunk.last)
        if self._state is State.RCPT:
            return Start(chunking=True)
        self._step = self._content
        if self._state is State.BDAT:
            return self._content()
        # RFC 3030 2: the octets come all the same, the answer after them
        self._refusal, self._waste = self.bar.reply if self.bar else SEQUENCE, 0
        return Rejected(b"BDAT", self._refusal)

    def _content(self) -> Event:
        wire = self._buffer[self._at :]
        try:
            text, rest = self._decoder.feed(wire)
        except BareLineEnd:
            return self._hang_up(b"", _BARE)
        self._buffer, self._at = rest or b"", 0
        if rest is not None:
            self._step = self._content_over
        if self._refusal is not None:
            self._waste += len(wire)
            if self._waste > DISCARD_MAX:
                return self._hang_up(b"", self._refusal)
            text = b""
        if text:
            return Text(text)
        return NEED_DATA if rest is None else self._content_over()

    def _content_over(self) -> Event:
        self._step = self._command
        if self._refusal is not None:
            (self._say_end if self._decoder.over else self._say)(self._refusal)
            self._refusal = None
            return self._command()
        return End() if self._decoder.over else Piece()
