"""A door in a thread: the sessions of the queue service, without its processes."""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from qm.disk import queue
from qm.queue import policy
from qm.queue.session import Client, Session
from qm.queue.shop import Shop


class Door:
    """Serves one connection after another on queue/socket, as uid *uid* unless a test says otherwise."""

    def __init__(self) -> None:
        self.uid = 1000
        self.timeout_s = 10.0
        self.crowded = False
        self.connections = 0
        self.rests = 0  # times that a connection went back to the doorman
        self.shop = Shop(policy.rules(1000, 1001, 1002, 1003), lambda: self.crowded)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(queue.SOCKET)
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with channel:
                while Session(self.shop, channel, Client(self.uid, 77, self.timeout_s)).serve():
                    self.rests += 1

    def stop(self) -> None:
        """As SIGTERM does."""
        self.shop.stopping = True
        leave = self.shop.leave
        if leave is not None:
            with suppress(OSError):  # the other thread has just closed; in the service there is but one
                leave()

    def close(self) -> None:
        self.stop()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.shop.reopen()

    def new(self) -> list[bytes]:
        """What has been queued, oldest first."""
        return [Path(queue.NEW, name).read_bytes() for name in sorted(os.listdir(queue.NEW))]
