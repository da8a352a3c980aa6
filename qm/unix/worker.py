"""A warm worker's life, from the fork to its end.  Its spawner is qm.unix.spawner; nothing else starts one."""

import gc
import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, NoReturn

from qm import errors
from qm.unix import fds, log, program, title
from qm.unix.loop import Loop

Work = Callable[[bytes, list[int]], bytes]

DONE: Final = b"+"  # before a report
CRASHED: Final = b"-"
SENT: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGINT)  # a worker has no use for them


class Trade(NamedTuple):
    """What a worker is to those who read the log or ps."""

    name: bytes  # its program
    job: bytes


def live(loop: Loop, trade: Trade, channel: socket.socket, enter: Callable[[], Work], keep: Iterable[int]) -> NoReturn:
    """In the forked child, with the signals of SENT blocked: become a worker, serve, end."""
    name = trade.name
    code = errors.TEMPORARY
    try:
        loop.forget()
        for signum in SENT:
            signal.signal(signum, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)  # they may be the spawner's own channel
        os.dup2(null, 1)
        fds.close_from(3, {channel.fileno(), *keep})
        title.job(*trade)
        work = enter()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # not sooner: *enter* may say what they mean, and a job waits
        gc.disable()  # the spawner recycles us long before cycles matter; collecting costs 5 % of a job
        code = serve(name, channel, work)
        getattr(work, "close", int)()  # it may have a goodbye to say
    except errors.QmError as error:
        log.fatal(name, str(error))
        code = error.exit_code
    except BaseException as error:  # a forked child must never run on in its parent's frames
        program.unforeseen(name, error)
    finally:
        os._exit(code)


def serve(name: bytes, channel: socket.socket, work: Work) -> int:
    """Do one job after another until the spawner closes the channel; gives the exit code.

    An exception from *work* is reported as a crash, and ends the worker: what it left behind is unknown.
    """
    while True:
        try:
            record, descriptors = fds.recv_record(channel)
        except ConnectionResetError:
            return errors.OK
        if not record:
            return errors.OK
        try:
            report = DONE + work(record, descriptors)
        except Exception as error:
            program.unforeseen(name, error)
            report = CRASHED
        else:
            fds.close_all(descriptors)
        try:
            fds.send_record(channel, report)
        except BrokenPipeError:
            return errors.OK  # the spawner has gone: nobody waits for us
        if report == CRASHED:
            return errors.TEMPORARY


def result(channel: socket.socket) -> bytes | None:
    """What a worker reports, or None if its job has failed or its channel has ended; BlockingIOError if neither."""
    try:
        record, descriptors = fds.recv_record(channel)
    except BlockingIOError:
        raise
    except (OSError, ValueError):
        return None
    fds.close_all(descriptors)
    return record[1:] if record[:1] == DONE else None
