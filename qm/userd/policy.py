"""What userd decides: whether an address has a mailbox, whose account may log in, which login was verified just now."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import blake2b, md5
from typing import TYPE_CHECKING, Final

from qm.wire import passwdfile, route
from qm.wire.assign import User
from qm.wire.envelope import ADDRESS_MAX
from qm.wire.passwdfile import PLAIN, Entry
from qm.wire.userquery import Exists, Login, Verdict

if TYPE_CHECKING:
    from qm.unix.accounts import Account, Shadow  # ctypes costs a megabyte; only who needs it pays

LOGINS_MAX: Final = 10_000  # verified logins that are remembered; about 2 MB
_YES: Final = Exists(Verdict.YES, b"")
_NO: Final = Exists(Verdict.NO, b"no mailbox here by that name")


def exists(
    rules: route.Rules, address: bytes, find: Callable[[bytes], User], has_mailbox: Callable[[User], bool]
) -> Exists:
    """Whether mail for *address* would be taken, as send, lspawn and local will decide.

    Raises what *find* and *has_mailbox* raise when they cannot tell now.
    """
    if len(address) > ADDRESS_MAX:
        return _NO
    where = route.route(rules, address)
    if isinstance(where, route.Remote):
        return _YES  # not ours to say
    local = where.address.rpartition(b"@")[0]
    return _YES if local and has_mailbox(find(local)) else _NO


def of_account(account: Account, shadow: Shadow, today: int) -> Entry | None:
    """The entry of an account that may log in with a password; *today* in days since 1970 (shadow(5))."""
    locked = not shadow.hash or shadow.hash[:1] in b"!*"
    expired = 0 <= shadow.expires_day <= today
    stale = (
        shadow.changed_day > 0
        and shadow.days_max >= 0
        and shadow.days_inactive >= 0
        and shadow.changed_day + shadow.days_max + shadow.days_inactive < today
    )
    if account.uid == 0 or locked or expired or stale:
        return None
    login = Login(account.name, account.uid, account.gid, account.home, account.shell)
    return Entry(account.name, shadow.hash, login)


def apop(entry: Entry | None, digest: bytes, challenge: bytes) -> bool:
    """Whether *digest* answers *challenge*, for which the password must be stored as it is (RFC 1939 section 7)."""
    known = entry is not None and entry.hash.startswith(PLAIN)
    secret = entry.hash.removeprefix(PLAIN) if entry is not None and known else b""
    wanted = md5(challenge + secret, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(wanted.encode(), digest.lower()) and known


class Remembered:
    """Logins that were verified a short time ago, so that the next one need not pay for the hash.

    Kept is a keyed hash of secret and entry: memory that leaks tells no password, and an entry that has changed is no
    hit.
    """

    def __init__(self, key: bytes) -> None:
        """*key*: 32 random bytes of this process."""
        self._key = key
        self._known: dict[bytes, tuple[bytes, float]] = {}  # by name, oldest first: tag, and until when

    def tag(self, entry: Entry, secret: bytes) -> bytes:
        fields = b"\0".join((entry.name, passwdfile.encode(entry), secret))
        return blake2b(fields, key=self._key, digest_size=32).digest()

    def knows(self, name: bytes, tag: bytes, now_s: float) -> bool:
        known, until_s = self._known.get(name, (b"", 0.0))
        return hmac.compare_digest(known, tag) and now_s < until_s

    def add(self, name: bytes, tag: bytes, until_s: float) -> None:
        self._known.pop(name, None)
        if len(self._known) >= LOGINS_MAX:
            del self._known[next(iter(self._known))]
        self._known[name] = tag, until_s

    def forget(self) -> None:
        self._known.clear()
