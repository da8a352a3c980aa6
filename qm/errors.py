"""The two kinds of failure, and the exit codes that say them (qmail.md 2.1)."""

import errno
from typing import Final

OK: Final = 0
PERMANENT: Final = 100
TEMPORARY: Final = 111
PROGRAM_PERMANENT: Final = frozenset((PERMANENT, 64, 65, 70, 76, 77, 78, 112))  # of a program that mail is given to

# qmail.md 2.2: what may work later
TEMPORARY_ERRNO: Final = frozenset(
    (
        errno.EINTR, errno.ENOMEM, errno.ETXTBSY, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EDEADLK,
        errno.EBUSY, errno.ENFILE, errno.EMFILE, errno.EFBIG, errno.ENOSPC, errno.ENETDOWN, errno.ENETUNREACH,
        errno.ENETRESET, errno.ECONNABORTED, errno.ECONNRESET, errno.ENOBUFS, errno.ETOOMANYREFS, errno.ECONNREFUSED,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EUSERS, errno.EDQUOT, errno.ESTALE, errno.ENOLCK,
    )
)  # fmt: skip


class QmError(Exception):
    """Base of our failures; raise one of the kinds below, never this.

    *public* goes on the wire and into bounces: it names no path, uid or traceback.
    *detail* goes to the log only.  *status* is an RFC 3463 code without its class digit.
    """

    exit_code: int = TEMPORARY
    status_class: str = "4"

    def __init__(self, public: str, *, detail: str = "", status: str = "3.0") -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        self.status = f"{self.status_class}.{status}"

    def __str__(self) -> str:
        return f"{self.public} ({self.detail})" if self.detail else self.public


class Temporary(QmError):
    """Later may work: disk full, no DNS answer, peer busy."""


class Permanent(QmError):
    """Later cannot work: no such user, message too big, bad syntax."""

    exit_code = PERMANENT
    status_class = "5"
