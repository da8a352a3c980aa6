"""What a process gives up for good once it is who it must be.

Imported where a program starts, before workers are forked: ctypes costs 5 ms and a megabyte, once.
"""

import os
from ctypes import CDLL, get_errno
from typing import Final

from qm.errors import Temporary

_PR_SET_NO_NEW_PRIVS: Final = 38
_libc: Final = CDLL(None, use_errno=True)


def gain_nothing() -> None:
    """From here on no exec gives rights (set-user-ID bits, file capabilities), to us and to all that we start.

    Raises Temporary if the kernel refuses; the process must then end.
    """
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Temporary("cannot give up new privileges", detail=os.strerror(get_errno()))
