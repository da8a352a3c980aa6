"""A child of an administrator's command that reads what strangers say: another user, for good, with one channel.

It has its parent's descriptor 2, no other, and a limit of memory.  It is started before its parent has a secret.
"""

import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final

from qm.errors import OK, TEMPORARY, QmError, Temporary
from qm.unix import confine, fds, log, privs, program
from qm.wire.record import Malformed

MEMORY_MAX: Final = 1 << 30  # bytes of addresses; what it reads is answers of a few KiB
NAME: Final = b"qm"


class Helper:
    """*serve* runs in it, with the other end of `channel`."""

    def __init__(self, who: privs.Ids, serve: Callable[[socket.socket], None], keep: Iterable[int] = ()) -> None:
        self.channel, theirs = fds.pair()
        self._pid = os.fork()
        if self._pid == 0:
            _live(who, serve, theirs, keep)
        theirs.close()

    def hear(self, deadline_s: float) -> bytes:
        """A record of its; raises Temporary if none comes in time, or it has ended."""
        self.channel.settimeout(max(0.01, deadline_s - time.monotonic()))
        try:
            record, descriptors = fds.recv_record(self.channel)
        except TimeoutError as error:
            raise Temporary("it takes too long", detail="nothing has been changed; try again later") from error
        except (OSError, Malformed) as error:
            raise Temporary("a child of ours has failed", detail=str(error)) from error
        fds.close_all(descriptors)
        if not record:
            raise Temporary("a child of ours has ended", detail="see above")
        return record

    def ask(self, record: bytes, deadline_s: float) -> bytes:
        """Raises Temporary."""
        try:
            fds.send_record(self.channel, record)
        except OSError as error:
            raise Temporary("a child of ours has ended", detail=str(error.strerror)) from error
        return self.hear(deadline_s)

    def close(self) -> None:
        """End it; it has nothing that is worth waiting for."""
        self.channel.close()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _live(who: privs.Ids, serve: Callable[[socket.socket], None], channel: socket.socket, keep: Iterable[int]) -> None:
    """In the child."""
    code = TEMPORARY
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's, which goes to our parent too: that ends us
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        fds.close_from(3, {channel.fileno(), *keep})
        confine.gain_nothing()
        privs.become(who)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        logging.disable()  # libraries would show what strangers have said
        serve(channel)
        code = OK
    except ConnectionError:
        pass  # our parent has gone
    except QmError as error:
        log.fatal(NAME, str(error))
    except BaseException as error:  # a forked child must never run on in its parent's frames
        program.unforeseen(NAME, error)
    finally:
        os._exit(code)
