"""Bytes from one descriptor to another, two ways at once; and a child that does it between a program and its peer.

Of each way one piece is held, so memory is bounded.  Descriptors stay blocking, since others may share them: never more
is written than poll says there is room for.
"""

import os
import select
from collections.abc import Callable
from typing import Final, NoReturn

from qm.unix import chain, confine, fds, privs, title
from qm.unix.program import Argv, Env, enter_home, roles, unforeseen
from qm.wire.lineends import Change

PIECE_MAX: Final = 4096  # bytes read at once
STUCK_S: Final = 3600.0  # that nobody takes what there is

Changes = Callable[[int], tuple[Change, Change]]


class Flow:
    """One way: from *source* to *sink*, both of which it closes at its end, through *change*."""

    def __init__(self, source: int, sink: int, change: Change, most: int = PIECE_MAX) -> None:
        self._source, self._sink = source, sink
        self._change = change
        self._most = most
        self.pending = b""
        self._ended = False
        self.open = True

    def wants(self) -> tuple[int, int]:
        """The descriptor and event that it waits for."""
        return (self._sink, select.POLLOUT) if self.pending else (self._source, select.POLLIN)

    def move(self) -> None:
        """Write or read once; what cannot be written ends it, as the end of its source does."""
        try:
            if self.pending:
                self.pending = self.pending[os.write(self._sink, self.pending[: select.PIPE_BUF]) :]
            else:
                piece = os.read(self._source, self._most)
                self._ended = not piece
                self.pending = self._change(piece)
        except OSError:
            self._ended, self.pending = True, b""
        if self._ended and not self.pending:
            fds.close_all((self._source, self._sink))
            self.open = False


def until_end(inward: Flow, outward: Flow) -> None:
    """Move both until *outward* is at its end."""
    while outward.open:
        flows = {flow.wants()[0]: flow for flow in (inward, outward) if flow.open}
        poll = select.poll()
        for flow in flows.values():
            poll.register(*flow.wants())
        ready = poll.poll(STUCK_S * 1000)
        if not ready and any(flow.pending for flow in flows.values()):
            return
        for fd, _ in ready:
            flows[fd].move()


def beside(argv: Argv, env: Env, changes: Changes, most: int = PIECE_MAX) -> int:
    """Run what follows the first word of *argv*, our own name, with a child between it and descriptors 0 and 1.

    *changes* is called in the child with the number of this process, and gives the change of what goes to the program
    and of what comes from it, in pieces of at most *most* bytes.  The child ends when the program's output does.
    """
    fds.fill_standard()
    into, out = os.pipe(), os.pipe()
    name, following = argv[0], argv[1:]
    if os.fork() == 0:
        _relay(name, env, into, out, changes, most)
    fds.place({0: into[0], 1: out[1]})
    fds.close_all((*into, *out))
    if chain.is_warm(following, env):
        enter_home(env)  # as each program of ours does that starts by itself
    return chain.prepare(following, env)(env)


def _relay(name: bytes, env: Env, into: tuple[int, int], out: tuple[int, int], changes: Changes, most: int) -> NoReturn:
    """In the child, which reads a stranger's bytes and is therefore never root."""
    try:
        fds.close_from(3, {into[1], out[0]})
        if privs.is_root():
            privs.become(privs.least(roles(env)))
        confine.gain_nothing()
        title.job(os.path.basename(name), b"between a program and its peer")
        inward, outward = changes(os.getppid())
        until_end(Flow(0, into[1], inward, most), Flow(out[0], 1, outward, most))
    except BaseException as error:  # a forked child must never run on in its parent's frames
        unforeseen(b"relay", error)
    finally:
        os._exit(0)
