"""Who waits to hear how the start goes: the other end of QMREADY, and a service manager (sd_notify(3))."""

import os

from qm.unix.program import Env


class Readiness:
    """Takes both out of *env*: they are not the services' concern."""

    def __init__(self, env: Env) -> None:
        self._fd = int(env.pop(b"QMREADY", b"-1"))
        if self._fd >= 0:
            os.set_inheritable(self._fd, False)
        self._manager = None
        if env.pop(b"NOTIFY_SOCKET", b""):
            import sdnotify  # only where there is such a manager

            self._manager = sdnotify.SystemdNotifier()  # it looks into the process's own environment
            if self._manager.socket is not None:
                self._manager.socket.setblocking(False)  # mail does not wait for a manager
        self._waited_for = True

    def serves(self, name: str, text: bytes) -> None:
        self._tell(b"ready %s %s\n" % (name.encode(), text))

    def died(self, name: str, code: int) -> None:
        self._tell(b"died %s %d\n" % (name.encode(), code))
        self._notify(f"STATUS={name} ended with {code}")

    def all_serve(self) -> None:
        """Of interest the first time only."""
        if self._waited_for:
            self._tell(b"all\n")
            self._notify("READY=1\nSTATUS=all services serve")
            self._end()

    def stopping(self) -> None:
        self._notify("STOPPING=1")
        if self._manager is not None and self._manager.socket is not None:
            self._manager.socket.close()
        self._manager = None
        self._end()

    def _tell(self, line: bytes) -> None:
        if self._fd >= 0:
            try:
                os.write(self._fd, line)
            except OSError:
                self._end()  # nobody waits any more

    def _notify(self, state: str) -> None:
        if self._manager is not None:
            self._manager.notify(state)

    def _end(self) -> None:
        self._waited_for = False
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
