"""Who gets the mail of a local part: users/cdb, this machine's accounts, the alias user (qmail.md 10, 12.1).

lspawn, userd and the tools all ask here, so that there is one answer.

- users/cdb (made by qm-newu) comes first.  A home in it that is not absolute lies below qm's own home.
- Accounts of this machine count only if we are root.  A private system has the users of its users/assign, no others.
- All the rest is the alias user's, whom control/roles or the account alias names.  Its home is that account's if it
  has the same uid, else ``alias`` below qm's home.
- Nobody gets mail as uid 0.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Final

from qm.disk.cdb import BadCdb, Cdb
from qm.errors import TEMPORARY_ERRNO, Temporary
from qm.unix import privs
from qm.wire.assign import User, decode
from qm.wire.record import Malformed

if TYPE_CHECKING:
    from qm.unix.accounts import Account  # ctypes costs a megabyte; only who needs it pays

__all__ = ["Directory", "HomeTrouble", "NoAlias", "RootUser", "User"]

BREAK: Final = b"-"  # conf-break
ACCOUNT_MAX: Final = 31  # bytes of an account's name; longer ones are not asked for (qmail.md 12.1)
ACCOUNT_S: Final = 2.0  # how long an answer about accounts is believed
FOUND_MAX: Final = 4096  # answers kept; up to 3 MB
FOUND_LENGTH: Final = 64  # bytes of a local part that is worth keeping (RFC 5321 4.5.3.1.1)
ALIAS: Final = b"alias"


class HomeTrouble(Temporary):
    """A home directory cannot be looked at now (qmail.md section 10, 115)."""


class NoAlias(Temporary):
    """There is no alias user (116)."""


class RootUser(Temporary):
    """The mail would be delivered as root (113)."""


FindAccount = Callable[[bytes], "Account | None"]


def _system_accounts() -> FindAccount | None:
    """How to find an account of this machine, or None if they do not count."""
    if not privs.is_root():
        return None
    from qm.unix import accounts

    return accounts.account


def _candidates(local: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Account, dash and extension that *local* may mean, the longest account first."""
    end = len(local)
    while end > ACCOUNT_MAX:
        end = local.rfind(BREAK, 0, end)
    while end > 0:
        yield local[:end].lower(), local[end : end + 1], local[end + 1 :]
        end = local.rfind(BREAK, 0, end)


class Directory:
    """The users of the system whose home is the current directory; keep one, it remembers.

    *account* finds an account of this machine; unless it is given, they count only for root.
    """

    def __init__(
        self,
        directory: str = "users",
        *,
        account: FindAccount | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cdb = Cdb(f"{directory}/cdb")
        self._home = os.getcwdb()
        self._clock = clock
        self._fresh = False  # whether what follows belongs to the cdb as it is now
        self._wildcards = b""
        self._found: dict[bytes, tuple[float, User]] = {}  # with the time until which it is believed
        self._alias: tuple[float, User] | None = None
        self._account = account or _system_accounts()

    def find(self, local: bytes) -> User:
        """Who gets mail for *local*, the part before the last @.

        Raises Temporary: HomeTrouble, NoAlias, RootUser, BadCdb for users/cdb, or the account database cannot be asked.
        """
        if self._cdb.refresh() or not self._fresh:
            self._reload()
        now_s = self._clock()
        until_s, user = self._found.get(local, (0.0, None))
        if user is None or until_s <= now_s:
            user = self._assigned(local)
            until_s = inf if user else now_s + ACCOUNT_S
            user = user or self._of_account(local) or self._of_alias(local, now_s)
            if user.uid == 0:
                raise RootUser("not allowed to deliver mail as root", detail=f"{os.fsdecode(user.user)} has uid 0")
            if len(self._found) >= FOUND_MAX:
                self._found.clear()
            if len(local) <= FOUND_LENGTH:
                self._found[local] = until_s, user
        return user

    def forget(self) -> None:
        """Ask again for everything."""
        self._fresh = False

    def _reload(self) -> None:
        self._fresh = False
        self._found.clear()
        self._alias = None
        if self._cdb.present:
            wildcards = self._cdb.lookup(b"")
            if wildcards is None:
                raise BadCdb("cannot read a database", detail=f"{self._cdb.path}: not made by qm-newu; run it")
            self._wildcards = wildcards
        self._fresh = True

    def _assigned(self, local: bytes) -> User | None:
        key = b"!" + local.lower()
        data = self._cdb.lookup(key + b"\0")
        if data is not None:
            return self._user(data, b"")
        for end in range(len(key), 0, -1):
            if end == 1 or key[end - 1] in self._wildcards:
                data = self._cdb.lookup(key[:end])
                if data is not None:
                    return self._user(data, local[end - 1 :])
        return None

    def _user(self, data: bytes, rest: bytes) -> User:
        try:
            user = decode(data)
        except Malformed as error:
            why = f"{self._cdb.path}: a value has {error}; run qm-newu"
            raise BadCdb("cannot read a database", detail=why) from error
        return user._replace(home=os.path.join(self._home, user.home), ext=user.ext + rest)

    def _of_account(self, local: bytes) -> User | None:
        """The account whose name is *local* or begins it, up to a break; it must own its home."""
        if self._account is None:
            return None
        for name, dash, ext in _candidates(local):
            account = self._account(name)
            if account is not None and account.uid != 0 and _owns(account.home, account.uid):
                return User(account.name, account.uid, account.gid, account.home, dash, ext)
        return None

    def _of_alias(self, local: bytes, now_s: float) -> User:
        if self._alias is None or self._alias[0] <= now_s:
            self._alias = now_s + ACCOUNT_S, self._read_alias()
        return self._alias[1]._replace(ext=local)

    def _read_alias(self) -> User:
        try:
            ids = privs.role("alias")
        except Temporary as error:
            raise NoAlias("there is no alias user", detail=error.detail) from error
        account = self._account(ALIAS) if self._account is not None else None
        home = account.home if account is not None and account.uid == ids.uid else os.path.join(self._home, ALIAS)
        return User(ALIAS, ids.uid, ids.gid, home, BREAK, b"")


def _owns(home: bytes, uid: int) -> bool:
    """Whether *home* is there and belongs to *uid*; raises HomeTrouble when only time can tell."""
    try:
        return os.stat(home).st_uid == uid
    except OSError as error:
        if error.errno in TEMPORARY_ERRNO:
            why = f"{os.fsdecode(home)}: {error.strerror}"
            raise HomeTrouble("cannot look at a home directory", detail=why) from error
        return False
