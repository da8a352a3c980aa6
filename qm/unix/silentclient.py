"""Ask rspawn about addresses that do not answer, on its socket; for qm-tcpto and qm-tcpok."""

import socket
import struct
from typing import Final

from qm.errors import Temporary
from qm.unix import fds
from qm.wire.record import Malformed, pack
from qm.wire.silent import SOCKET

TIMEOUT_S: Final = 10


def ask(question: bytes) -> bytes:
    """rspawn's answer; raises Temporary."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        limit = struct.pack("@ll", TIMEOUT_S, 0)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)  # connect(2) keeps it too
        try:
            channel.connect(SOCKET)
            fds.send_record(channel, pack(question))
            record, descriptors = fds.recv_record(channel)
        except BlockingIOError as error:
            raise trouble(f"no answer within {TIMEOUT_S} s") from error
        except FileNotFoundError as error:
            raise trouble("it is not there; is qm-rspawn running?") from error
        except ConnectionRefusedError as error:
            raise trouble("nobody listens; is qm-rspawn running?") from error
        except (OSError, Malformed) as error:
            raise trouble(getattr(error, "strerror", None) or str(error)) from error
    fds.close_all(descriptors)
    if not record:
        raise trouble("it was closed without an answer")
    return record


def trouble(why: str) -> Temporary:
    return Temporary("cannot ask qm-rspawn", detail=f"{SOCKET}: {why}")
