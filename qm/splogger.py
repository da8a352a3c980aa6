"""splogger: pass the lines of descriptor 0 to syslog.

Usage:   splogger [tag [facility]]
Reads:   fd 0 (lines)
Env:     QMSYSLOG (syslog's socket, by default /dev/log)
Writes:  datagrams to that socket; fd 2 only for a wrong command line
As:      whoever runs it; qm-start makes it qmaill
Exits:   0 at the end of the input; 100 usage
See:     splogger(8), qmail.md section 19

A line goes out as SECONDS.MICROSECONDS, a blank, the text; the rest of a line of 800 bytes or more follows with a plus
for the blank.  Nobody waits for syslog: when it is away, or full for longer than PATIENCE_S, lines are dropped until it
takes one again, and their number is the first thing that it is told then.
"""

import os
import re
import select
import socket
import time
from typing import Final

from qm import errors
from qm.unix import fds, log
from qm.unix.program import Argv, Env, Usage, program

PIECE_MAX: Final = 799  # bytes of a line in one datagram
READ_MAX: Final = 65536  # bytes at once: all that a pipe holds
PATIENCE_S: Final = 1.0  # for a syslog that is busy; until it has taken a line again there is none
SOCKET: Final = b"/dev/log"
MAIL: Final = 2  # syslog(3), as the next ones
FACILITY_MAX: Final = 23
ALERT, ERR, WARNING, INFO = 1, 3, 4, 6
_TAG_MAX: Final = 32  # RFC 3164 4.1.3
_KIND: Final = re.compile(rb"(?:[A-Za-z0-9_.-]{1,32}: )?(alert|fatal|warning): ")
_PRIORITY: Final = {b"alert": ALERT, b"fatal": ERR, b"warning": WARNING}


def priority(line: bytes) -> int:
    """What the line's own first words say, after the name of its program; a stranger's text never comes first."""
    found = _KIND.match(line)
    return _PRIORITY[found[1]] if found else INFO


class Lines:
    """Bytes in, pieces out: (priority, whether it goes on from the last one, text)."""

    def __init__(self) -> None:
        self._rest = b""
        self._continued = False
        self._priority = INFO

    def feed(self, data: bytes) -> list[tuple[int, bool, bytes]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        pieces = [piece for line in lines for piece in self._end(line)]
        while len(self._rest) >= PIECE_MAX:
            pieces.append(self._piece(self._rest[:PIECE_MAX]))
            self._rest = self._rest[PIECE_MAX:]
        return pieces

    def last(self) -> list[tuple[int, bool, bytes]]:
        """The last line, if it had no end."""
        return self._end(self._rest)

    def _end(self, line: bytes) -> list[tuple[int, bool, bytes]]:
        pieces = [self._piece(line[at : at + PIECE_MAX]) for at in range(0, len(line), PIECE_MAX)]
        self._continued = False
        return pieces

    def _piece(self, text: bytes) -> tuple[int, bool, bytes]:
        continued, self._continued = self._continued, True
        if not continued:
            self._priority = priority(text)
        return self._priority, continued, log.clean(text)


class Syslog:
    """Where lines go; does not raise OSError, but counts the lines that it could not give away."""

    def __init__(self, path: bytes, tag: bytes, facility: int) -> None:
        self._path = path
        self._tag = tag
        self._facility = facility
        self._channel: socket.socket | None = None
        self._patient = True
        self.lost = 0
        self._why = ""

    def say(self, level: int, text: bytes) -> None:
        if self.lost:
            lost = f"{self.lost} lines lost: {self._why}"
            if not self._send(WARNING, b"%b splogger: warning: %b" % (stamp(time.time_ns()), lost.encode())):
                self.lost += 1
                return
            self.lost = 0
        if not self._send(level, text):
            self.lost += 1

    def _send(self, level: int, text: bytes) -> bool:
        # RFC 3164 4.1: as the C library writes it to /dev/log, without a host name
        when = time.strftime("%b %e %H:%M:%S").encode("ascii", "replace")
        datagram = b"<%d>%b %b: %b" % (self._facility << 3 | level, when, self._tag, text)
        try:
            self._deliver(datagram)
        except OSError as error:
            self._why = error.strerror or "no room"
            return False
        self._patient = True
        return True

    def _deliver(self, datagram: bytes) -> None:
        """Raises OSError; a syslog that was started anew is found at the second try."""
        for last in (False, True):
            channel = self._connected()
            try:
                channel.send(datagram, socket.MSG_DONTWAIT)
                return
            except BlockingIOError:
                self._wait(channel)
                channel.send(datagram, socket.MSG_DONTWAIT)
                return
            except OSError:
                self.close()
                if last:
                    raise

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connected(self) -> socket.socket:
        if self._channel is None:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                channel.connect(self._path)
            except OSError:
                channel.close()
                raise
            self._channel = channel
        return self._channel

    def _wait(self, channel: socket.socket) -> None:
        """Until there is room, once; who has waited in vain waits no more until a line has gone out."""
        if self._patient:
            self._patient = False
            poll = select.poll()
            poll.register(channel, select.POLLOUT)
            poll.poll(PATIENCE_S * 1000)


def stamp(time_ns: int) -> bytes:
    """Seconds since 1970 with six decimals, as log analysers expect them before a line."""
    return b"%d.%06d" % (time_ns // 1_000_000_000, time_ns % 1_000_000_000 // 1000)


def _facility(text: bytes) -> int:
    if not text.isdigit() or len(text) > 2 or int(text) > FACILITY_MAX:
        raise Usage(f"splogger: a facility is a number up to {FACILITY_MAX}; mail is {MAIL}")
    return int(text)


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    if len(argv) > 3:
        raise Usage("usage: splogger [tag [facility]]")
    fds.fill_standard()
    tag = log.word(argv[1] if len(argv) > 1 else b"splogger")[:_TAG_MAX]
    syslog = Syslog(env.get(b"QMSYSLOG", SOCKET), tag, _facility(argv[2]) if len(argv) > 2 else MAIL)
    lines = Lines()
    while True:
        data = os.read(0, READ_MAX)
        for level, continued, text in lines.feed(data) if data else lines.last():
            syslog.say(level, stamp(time.time_ns()) + (b"+" if continued else b" ") + text)
        if not data:
            syslog.close()
            return errors.OK
