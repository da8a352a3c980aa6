"""A client that says what no library would, on a TCP connection to this machine; and who sits at the other end."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from tests.harness.waiting import LIMIT_S, wait_for

HOST: Final = "127.0.0.1"


class _Row(NamedTuple):
    """A line of /proc/net/tcp."""

    unread: int  # bytes that have come and were not taken
    inode: str


class Dialogue:
    """What is said and heard; a connection that is reset reads as one that has ended."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(LIMIT_S)
        try:
            self.socket.connect((HOST, port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ports = self.socket.getsockname()[1], port
        self._heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    # saying

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def pour(self, pieces: Iterable[bytes]) -> int:
        """Say *pieces* until the other end has closed; how many bytes went."""
        went = 0
        try:
            for piece in pieces:
                self.socket.sendall(piece)
                went += len(piece)
        except ConnectionError:
            pass
        return went

    def say_in_segments(self, pieces: Iterable[bytes]) -> None:
        """Each piece is read by the other end before the next one leaves."""
        for count, piece in enumerate(pieces):
            if count:
                wait_for(self._is_read, "a segment that is read")
            self.socket.sendall(piece)

    def finish(self) -> None:
        """No more will be said."""
        self.socket.shutdown(socket.SHUT_WR)

    # hearing

    def _whole_line(self) -> bytes:
        while b"\r\n" not in self._heard and (data := self._receive()):
            self._heard += data
        line, end, self._heard = self._heard.partition(b"\r\n")
        return line + end

    def line(self) -> bytes:
        """The next line without its end; nothing at the end."""
        return self._whole_line().removesuffix(b"\r\n")

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def reply(self) -> bytes:
        """The last line of the next SMTP reply; nothing at the end."""
        while (line := self.line())[3:4] == b"-":
            pass
        return line

    def codes(self, count: int) -> list[int]:
        """Of so many SMTP replies; 0 where there is none any more."""
        return [int(self.reply()[:3] or 0) for _ in range(count)]

    def ask(self, command: bytes) -> bytes:
        self.say(command + b"\r\n")
        return self.reply()

    def text(self) -> bytes:
        """The lines of a multi-line POP3 reply, without the one that ends them."""
        lines = []
        while (line := self._whole_line()) not in (b".\r\n", b""):
            lines.append(line)
        return b"".join(lines)

    def rest(self) -> bytes:
        """All that comes until the end."""
        heard, self._heard = [self._heard], b""
        while data := self._receive():
            heard.append(data)
        return b"".join(heard)

    # the other end

    def _row(self) -> _Row | None:
        ours, theirs = self._ports
        ends = f":{theirs:04X} 0100007F:{ours:04X} "
        for line in Path("/proc/net/tcp").read_text().splitlines():
            if ends in line:
                fields = line.split()
                return _Row(int(fields[4].partition(":")[2], 16), fields[9])
        return None

    def _is_read(self) -> bool:
        row = self._row()
        return row is None or not row.unread

    @property
    def inode(self) -> str:
        """The other end as /proc/PID/fd names it."""
        row = wait_for(self._row, "the other end")
        assert row is not None
        return f"socket:[{row.inode}]"

    def holders(self, pids: Iterable[int]) -> list[int]:
        """Which of *pids* hold the other end."""
        inode = self.inode
        return [pid for pid in pids if inode in open_files(pid).values()]


def open_files(pid: int) -> dict[int, str]:
    """What the descriptors of a process are; nothing if it has ended."""
    folder, found = f"/proc/{pid}/fd", {}
    try:
        for name in os.listdir(folder):
            try:
                found[int(name)] = os.readlink(f"{folder}/{name}")
            except FileNotFoundError:
                pass  # closed meanwhile
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found
