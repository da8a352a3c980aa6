"""Bytes between a peer under TLS and a program in clear, until either has ended.

TLS works on memory here: the network is read and written in large pieces, with one system call for each.  Nothing is
read from one side while the other has not taken what it was given, so no buffer grows; who waits for whom, and how
long, is the program's to say.
"""

import select
import socket
import ssl
import time
from typing import Final

READ_MAX: Final = 65536  # bytes taken at once
RECORD_MAX: Final = 16384  # bytes of one TLS record (RFC 8446 5.1)
LAST_S: Final = 30.0  # for the peer to take the last bytes of a program that has ended
LINGER_S: Final = 2.0  # for it to end, too, so that our close does not reset what it has still to read
LINGER_MAX: Final = 1 << 20  # bytes of its that are thrown away meanwhile
_GONE: Final = select.POLLERR | select.POLLNVAL
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)
_SEND: Final = int(socket.MSG_DONTWAIT) | int(socket.MSG_NOSIGNAL)


class Gone(Exception):
    """The peer is no longer there."""


class TooSlow(Gone):
    """The peer has kept us waiting longer than it may."""


class Network:
    """The peer's connection, and TLS on it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self._poll = select.poll()

    def fileno(self) -> int:
        return self._connection.fileno()

    def receive(self) -> bytes:
        """What has come; b"" at the end.  Raises BlockingIOError, Gone."""
        try:
            return self._connection.recv(READ_MAX, _DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            raise Gone from error

    def send(self, data: bytes) -> bytes:
        """Send what it takes now; the rest.  Raises Gone."""
        try:
            return data[self._connection.send(data, _SEND) :]
        except BlockingIOError:
            return data
        except OSError as error:
            raise Gone from error

    def wait(self, event: int, deadline_s: float) -> None:
        """Raises TooSlow."""
        self._poll.register(self._connection, event)
        if not self._poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            raise TooSlow

    def flush(self, data: bytes, deadline_s: float) -> None:
        """Send *data* and what TLS wants to say; raises Gone."""
        data += self.outgoing.read()
        while data:
            data = self.send(data)
            if data:
                self.wait(select.POLLOUT, deadline_s)

    def end(self) -> None:
        """Say that no more comes, and let the peer end too, within bounds."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
            deadline_s = time.monotonic() + LINGER_S
            left = LINGER_MAX
            while left > 0:
                self.wait(select.POLLIN, deadline_s)
                taken = len(self.receive())
                if not taken:
                    return
                left -= taken
        except (Gone, OSError):
            pass


class Pump:
    """One session after its handshake."""

    def __init__(self, network: Network, tls: ssl.SSLObject, program: socket.socket) -> None:
        self._network = network
        self._tls = tls
        self._program = program
        self._for_program = b""  # what it has not taken yet
        self._for_peer = b""
        self._peer_talks = True  # no end of it has come
        self._program_listens = True
        self._ended = False  # the program has said its last

    def run(self) -> None:
        """Until both have ended, or one has gone."""
        poll = select.poll()
        masks = (-1, -1)
        network, program = self._network.fileno(), self._program.fileno()
        try:
            if self._network.incoming.pending:
                self._decrypt()  # it came with the end of the handshake
            while not self._ended:
                wanted = self._masks()
                if wanted != masks:
                    masks = wanted
                    poll.register(network, masks[0])
                    poll.register(program, masks[1])
                for fd, event in poll.poll():
                    if fd == network:
                        self._network_event(event)
                    else:
                        self._program_event(event)
            self._end()
        except Gone:
            pass  # what the program still says is for nobody

    def _masks(self) -> tuple[int, int]:
        network = (select.POLLIN if self._peer_talks and not self._for_program else 0) | (
            select.POLLOUT if self._for_peer else 0
        )
        program = (0 if self._for_peer else select.POLLIN) | (select.POLLOUT if self._for_program else 0)
        return network, program

    def _network_event(self, event: int) -> None:
        if event & select.POLLOUT:
            self._for_peer = self._network.send(self._for_peer)
        if event & (select.POLLIN | select.POLLHUP) and self._peer_talks and not self._for_program:
            try:
                data = self._network.receive()
            except BlockingIOError:
                return
            if data:
                self._network.incoming.write(data)
                self._decrypt()
            else:
                self._peer_ends()
        elif event & (_GONE | select.POLLHUP):
            raise Gone

    def _decrypt(self) -> None:
        pieces = []
        try:
            while piece := self._tls.read(RECORD_MAX):
                pieces.append(piece)
                if not self._network.incoming.pending and not self._tls.pending():
                    break  # a read for nothing costs an exception
            else:
                self._peer_talks = False  # close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._peer_talks = False  # an alert is on its way
        if pieces:
            self._give(b"".join(pieces))
        if self._network.outgoing.pending:  # an alert, or an answer to a change of keys
            self._for_peer = self._network.send(self._for_peer + self._network.outgoing.read())
        if not self._peer_talks:
            self._peer_ends()

    def _give(self, data: bytes) -> None:
        """To the program, what it takes now."""
        if not self._program_listens:
            return
        try:
            self._for_program = data[self._program.send(data, _SEND) :]
        except BlockingIOError:
            self._for_program = data
        except OSError:
            self._for_program = b""  # it has gone; what it has said before is still to be read
            self._program_listens = self._peer_talks = False

    def _peer_ends(self) -> None:
        """Tell the program, once it has taken the rest."""
        self._peer_talks = False
        if not self._for_program and self._program_listens:
            self._program_listens = False
            try:
                self._program.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has gone

    def _program_event(self, event: int) -> None:
        if event & select.POLLOUT:
            self._give(self._for_program)
            if not self._peer_talks:
                self._peer_ends()
        if event & select.POLLHUP and self._for_peer:  # it has gone, and keeps no time any more
            self._network.flush(self._for_peer, time.monotonic() + LAST_S)
            self._for_peer = b""
        if event & ~select.POLLOUT and not self._for_peer:
            self._take()

    def _take(self) -> None:
        """What the program says, to the peer."""
        try:
            data = self._program.recv(READ_MAX, _DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # it has gone without reading all
        if not data:
            self._ended = True
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise Gone from error
        self._for_peer = self._network.send(self._network.outgoing.read())

    def _end(self) -> None:
        """The program has said all; the peer learns that nothing was cut off."""
        self._program.close()
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError):
            pass  # it has put our close_notify into outgoing, and wants the peer's, which nobody waits for
        self._network.flush(self._for_peer, time.monotonic() + LAST_S)
        if self._peer_talks:
            self._network.end()
