"""A queue file of Postfix, read to its end: records of a letter, a length in groups of seven bits, and data.

Envelope records come first, then M and the message's lines, then X and what was found in the header, then E.  ``p``
records jump.  Everything is checked: a file that was cut, that loops, or that has a record we do not know is Malformed.
"""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from qm.wire import xtext
from qm.wire.envelope import Envelope, Recipient
from qm.wire.record import Malformed, number

Read = Callable[[int, int], bytes]  # offset, size; less at the file's end

_RECORD_MAX: Final = 1024 * 1024  # bytes; Postfix writes lines of up to line_length_limit, 2048 by default
_JUMPS_MAX: Final = 100_000
_BUFFER: Final = 65536
_IGNORED: Final = frozenset((b"F", b"I", b"W", b"P", b"f", b"d", b"c", b"w", b"m", b"r", b"e", b"/", b"L", b"V"))
_NOTIFY: Final = ((1, b"NEVER"), (2, b"SUCCESS"), (4, b"FAILURE"), (8, b"DELAY"))
_RET: Final = {b"1": b"FULL", b"2": b"HDRS"}
_NAMES: Final = {b"n": b"notify_flags", b"o": b"dsn_orig_rcpt", b"<": b"ret_flags", b"i": b"envelope_id"}


_BOUNCED: Final = re.compile(rb"^offset=([0-9]{1,18})$", re.MULTILINE)


class Mail(NamedTuple):
    envelope: Envelope  # with the recipients that have not got it yet
    done: int  # those that have
    failed: int  # those that are among the first because their failure was not told
    arrived_ns: int


class _Reader:
    """Records in the order in which they count."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._position = 0  # of the buffer's end
        self._buffer = b""
        self.offset = 0  # of the record in hand
        self._jumps = 0
        self._total = 0

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            more = self._read(self._position, max(_BUFFER, size))
            if not more:
                raise Malformed("the file is cut off")
            self._buffer += more
            self._position += len(more)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _length(self) -> int:
        length = 0
        for shift in range(0, 35, 7):
            byte = self._take(1)[0]
            length |= (byte & 127) << shift
            if byte < 128:
                return length
        raise Malformed("a record's length makes no sense")

    def _jump(self, data: bytes) -> None:
        target = number(data.strip(), 1 << 62)
        self._jumps += 1
        if self._jumps > _JUMPS_MAX:
            raise Malformed("its pointers go in circles")
        if target:
            self._buffer, self._position = b"", target

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            self.offset = self._position - len(self._buffer)
            kind, length = self._take(1), self._length()
            if length > _RECORD_MAX:
                raise Malformed("a record is too long")
            data = self._take(length)
            if kind == b"p":
                self._jump(data)
                continue
            yield kind, data
            if kind == b"E":
                return


def _attribute(data: bytes) -> tuple[bytes, bytes]:
    name, equals, value = data.partition(b"=")
    if not equals:
        raise Malformed("an attribute without a value")
    return name, value


def _recipient(address: bytes, known: dict[bytes, bytes]) -> Recipient:
    flags = number(known.get(b"notify_flags", b"0"), 15)
    notify = b",".join(word for bit, word in _NOTIFY if flags & bit)
    kind, semicolon, original = known.get(b"dsn_orig_rcpt", b"").partition(b";")
    orcpt = kind + semicolon + xtext.encode(original) if semicolon and kind.isalnum() else b""
    return Recipient(address, notify, orcpt)


class _Envelope:
    def __init__(self, untold: Collection[int]) -> None:
        """*untold* are offsets of recipients who count as done, and of whose failure the sender has not heard."""
        self._untold = untold
        self.failed = 0
        self.sender: bytes | None = None
        self.recipients: list[Recipient] = []
        self.done = 0
        self.arrived_ns = 0
        self.smtputf8 = False
        self.attributes: dict[bytes, bytes] = {}
        self._of_next: dict[bytes, bytes] = {}  # said of the recipient that comes

    def take(self, kind: bytes, data: bytes, offset: int) -> None:
        if kind == b"D" and offset in self._untold:
            self.failed += 1
            kind = b"R"
        if kind == b"A" or kind in _NAMES:
            name, value = (_NAMES[kind], data) if kind in _NAMES else _attribute(data)
            own = name in (b"notify_flags", b"dsn_orig_rcpt")
            (self._of_next if own else self.attributes)[name] = value
        elif kind == b"R":
            self.recipients.append(_recipient(data, self._of_next))
            self._of_next = {}
        elif kind == b"D":
            self.done += 1
            self._of_next = {}
        elif kind == b"S":
            self.sender = data
        elif kind == b"T":
            seconds, _, micro = data.strip().partition(b" ")
            self.arrived_ns = number(seconds, 1 << 40) * 1_000_000_000 + number(micro.strip() or b"0", 10**6) * 1000
        elif kind == b"C":
            self.smtputf8 = data.split()[5:6] not in ([], [b"0"])
        elif kind in (b"K", b">"):
            raise Malformed("it was killed" if kind == b"K" else "it is redirected")
        elif kind not in _IGNORED and kind != b"O":
            raise Malformed(f"a record of the kind {kind.decode('latin-1')!r}, which is not known")

    def finished(self) -> Envelope:
        if self.sender is None:
            raise Malformed("it has no sender")
        said = self.attributes
        client, protocol = said.get(b"log_client_address", b""), said.get(b"log_protocol_name", b"")
        return Envelope(
            self.sender,
            tuple(self.recipients),
            client=client if client.translate(None, b"0123456789abcdefABCDEF:.") == b"" else b"",
            protocol=protocol if protocol.isalnum() else b"local",
            eight_bit=said.get(b"encoding") == b"8bit",
            smtputf8=self.smtputf8,
            ret=_RET.get(said.get(b"ret_flags", b""), b""),
            envid=xtext.encode(said.get(b"envelope_id", b"")),
        )


_CONTENT: Final = frozenset((b"N", b"L"))


def bounced(text: bytes) -> frozenset[int]:
    """What a file of bounce/ says, in which the failures of a message are until its sender is told: `untold` below."""
    return frozenset(map(int, _BOUNCED.findall(text)))


def read(read_at: Read, untold: Collection[int] = ()) -> Mail:
    """The envelope, after a look at the whole file; raises Malformed."""
    envelope, inside, ended = _Envelope(untold), False, False
    reader = _Reader(read_at)
    for kind, data in reader:
        if kind in (b"M", b"X"):
            inside = kind == b"M"
            ended = ended or kind == b"X"
        elif inside and kind not in _CONTENT and kind != b"w":
            raise Malformed("what is no line stands in the message")
        elif not inside and kind != b"E":
            envelope.take(kind, data, reader.offset)
    if not ended:
        raise Malformed("the message has no end")
    return Mail(envelope.finished(), envelope.done, envelope.failed, envelope.arrived_ns)


def message(read_at: Read) -> Iterator[bytes]:
    """The message's bytes, in pieces, LF at each line's end, and at the last."""
    pieces: list[bytes] = []
    held, inside = 0, False
    for kind, data in _Reader(read_at):
        if kind == b"X":
            break
        if kind == b"M":
            inside = True
        elif inside and kind in _CONTENT:
            pieces += (data, b"\n") if kind == b"N" else (data,)
            held += len(data) + 1
        if held >= _BUFFER:
            yield b"".join(pieces)
            pieces, held = [], 0
    if pieces:
        yield b"".join(pieces)
