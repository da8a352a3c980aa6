"""log: write lines from descriptor 0 to a directory, in multilog's format, and put full files away (qm-log).

Usage:   qm-log DIRECTORY
Reads:   fd 0 (lines), control/{logformat,logsize,lognumber,roles}
Writes:  DIRECTORY/current, DIRECTORY/@TIME.s
As:      qmaill, which owns the directory
Exits:   0 at the end of the input, or after SIGTERM with what was in the pipe written; 111 cannot become qmaill
See:     qm-log(8), tai64nlocal(8)

A line is a TAI64N label, a blank, the text; or, if control/logformat says json, an object that has them and what the
text says.  A file has lines of one format: one of another is put away.  Nobody may wait for a log: lines that cannot be
written (full disk, directory gone) are dropped and counted, and the count is the first thing written when writing works
again.  No fsync: the mail's own files hold what must survive. SIGHUP: read the control files again, and open current
again.
"""

import errno
import os
import select
import signal
import time
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk.control import BadControl, Controls
from qm.unix import log, privs
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env, Usage, program, ready
from qm.wire import logline

NAME: Final = b"qm-log"
READ_MAX: Final = 65536  # bytes at once: all that a pipe holds
GATHER_S: Final = 0.005  # seconds; a line's time is that much late at most, and a pipe holds what comes meanwhile
LAST_READS_MAX: Final = 64  # after SIGTERM, so that one who goes on writing cannot hold us
# a stranger's program may write anything; what moves a cursor or turns the text around does not get to a terminal
_PRINTABLE: Final = bytes(byte if byte in b"\t\n" or 0x20 <= byte < 0x7F else 0x3F for byte in range(256))


class Directory:
    """A log directory; does not raise OSError, but counts the lines that it could not write."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self.size_max = 16 << 20  # bytes at which current is put away
        self.files_max = 10  # of those that are kept
        self.format = logline.FORMATS[b"qmail"]
        self.lost = 0
        self._why = ""
        self._folder = -1
        self._file = -1
        self._size = 0
        try:
            self._open_folder()
        except OSError as error:
            log.alert(NAME, f"{os.fsdecode(path)}: {error.strerror}")

    def _open_folder(self) -> None:
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._folder >= 0:
            os.close(self._folder)
        self._folder = folder

    def write(self, lines: list[bytes], time_ns: int) -> None:
        text = self._text(lines, time_ns)
        name = f"{logline.label(time_ns).decode('ascii')}.s"
        try:
            self._open(text[:1], name)
            if self.lost:
                self._put(self._text([b"qm-log: alert: %d lines lost: %b" % (self.lost, self._why.encode())], time_ns))
                self.lost = 0
            self._put(text)
        except OSError as error:
            self.lost += len(lines)
            self._why = error.strerror or ""
            self.reopen()
            return
        if self._size >= self.size_max:
            self._put_away(name)

    def _text(self, lines: list[bytes], time_ns: int) -> bytes:
        return b"".join([self.format(time_ns, line) + b"\n" for line in lines])

    def _open(self, first: bytes, name: str) -> None:
        """Open current; if its lines do not begin with *first*, put it away as *name* before."""
        if self._folder < 0:
            self._open_folder()
        if self._file < 0:
            self._open_file()
            if self._size and os.pread(self._file, 1, 0) != first:
                self._put_away(name)
        if self._file < 0:
            self._open_file()

    def _open_file(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open("current", flags, 0o644, dir_fd=self._folder)
        self._size = os.fstat(self._file).st_size

    def _put(self, text: bytes) -> None:
        """Append *text* whole, or leave the file as it was and raise OSError."""
        if os.write(self._file, text) < len(text):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(text)

    def _put_away(self, name: str) -> None:
        """As multilog: a file that is complete has the x bit and a name by the time of its end; the oldest ones go.

        A file that cannot be put away goes on growing: that is better than no log.
        """
        try:
            os.fchmod(self._file, 0o744)
            os.rename("current", name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._close_file()
            old = sorted(name for name in os.listdir(self._folder) if name.startswith("@"))
            for name in old[: max(0, len(old) - self.files_max)]:
                os.unlink(name, dir_fd=self._folder)
        except OSError:
            self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def reopen(self) -> None:
        """Let go of current; the next line opens it again, in the directory that has its name now."""
        self._close_file()
        with suppress(OSError):  # then the one that we have must do
            self._open_folder()


class Lines:
    """Bytes in, whole lines out; a line is cut at LINE_MAX."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data.translate(_PRINTABLE)).split(b"\n")
        if len(self._rest) >= log.LINE_MAX:
            lines.append(self._rest)
            self._rest = b""
        return [line[: log.LINE_MAX] for line in lines]

    def last(self) -> list[bytes]:
        """The last line, if it had no end."""
        return [self._rest] if self._rest else []


class _Logger:
    def __init__(self, loop: Loop, directory: Directory) -> None:
        self._loop = loop
        self._directory = directory
        self._lines = Lines()

    def run(self) -> None:
        self._loop.on_signal(signal.SIGTERM, self._finish)
        self._loop.on_signal(signal.SIGHUP, self._reload)
        self._loop.watch(0, self._readable)
        self._loop.run()

    def _write(self, lines: list[bytes]) -> None:
        if lines:
            self._directory.write(lines, time.time_ns())

    def _readable(self) -> None:
        """Take what is there, and let more gather before the next look: many lines for one wake-up."""
        data = os.read(0, READ_MAX)
        self._write(self._lines.feed(data) if data else self._lines.last())
        if not data:
            self._loop.stop()
        elif len(data) < READ_MAX // 2:
            self._loop.unwatch(0)
            self._loop.after(GATHER_S, lambda: self._loop.watch(0, self._readable))

    def _finish(self) -> None:
        reads = 0
        self._loop.stop()
        while reads < LAST_READS_MAX and select.select([0], [], [], 0)[0] and (data := os.read(0, READ_MAX)):
            self._write(self._lines.feed(data))
            reads += 1
        self._write(self._lines.last())

    def configure(self) -> None:
        """Take the control files' numbers; a broken file is said, and does not stop a log."""
        try:
            controls = Controls(("logformat", "logsize", "lognumber"))
            form = logline.FORMATS.get(controls.line("logformat"))
            if form is None:
                raise BadControl("a control file is broken", detail="control/logformat:1: neither qmail nor json")
        except BadControl as error:
            self._write([b"qm-log: alert: " + log.clean(str(error).encode())])
            return
        self._directory.format = form
        self._directory.size_max = controls.number("logsize")
        self._directory.files_max = controls.number("lognumber")

    def _reload(self) -> None:
        self.configure()
        self._directory.reopen()


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 2:
        raise Usage("usage: qm-log directory")
    directory = Directory(argv[1])
    privs.become(privs.role("qmaill"))
    logger = _Logger(Loop(), directory)
    logger.configure()
    ready(env)
    logger.run()
    return errors.OK
