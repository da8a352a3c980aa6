"""How many logins may fail: by address (an IPv6 one by its /64) and by account, in memory that has an end.

A failure is a debt that time pays: with a limit of 20 in an hour one is paid in 180 s.  Who owes as many as the limit
is refused unseen.  An attempt is charged when it begins, or a thousand at once would all be let in, and given back when
the password was right or nobody could tell.

- An account's lock-out does not hold for who comes from where that account has logged in before: he has a debt of his
  own there.  So strangers cannot lock a user out of his home.
- The same wrong password again is no new guess, as of a telephone that knows the old one: it is given back.
- This machine's own addresses owe nothing: all users of a webmail come by it.  Their accounts do.
- When memory is full the smallest debts are forgotten; to have a big one forgotten one must make many as big.
- All of it is this process's: a restart and SIGHUP forget it.
"""

import hmac
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

from qm.wire.userquery import AskLogin, Login, LoginAnswer, Method, Refused

KEYS_MAX: Final = 20_000  # addresses, accounts, places that are known, and wrong passwords, each; about 2 MB each
KNOWN_S: Final = 30 * 86400.0  # how long an address is one that an account has logged in from
DELAY_MAX_S: Final = 30  # the delay doubles with each failure of an address up to this
_NAME_MAX: Final = 255
_HERE: Final = b"lo"  # no packed address is as short
_ROUNDING_S: Final = 0.001


class Limits(NamedTuple):
    address: int  # failures in time_s; 0: no limit
    account: int
    time_s: int
    delay_s: int  # before the answer to the first failure


class _Debts:
    """Until when each key owes."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._until_s: dict[bytes, float] = {}

    def owed_s(self, key: bytes, now_s: float) -> float:
        return max(0.0, self._until_s.get(key, 0.0) - now_s)

    def change(self, key: bytes, by_s: float, now_s: float) -> None:
        until_s = now_s + self.owed_s(key, now_s) + by_s
        if until_s <= now_s:
            self._until_s.pop(key, None)
            return
        if len(self._until_s) >= self._keys_max and key not in self._until_s:
            self._make_room(now_s)
        self._until_s[key] = until_s

    def _make_room(self, now_s: float) -> None:
        """Forget the smaller half of the debts."""
        owing = sorted((item for item in self._until_s.items() if item[1] > now_s), key=lambda item: item[1])
        self._until_s = dict(owing[-(self._keys_max // 2) :])

    def __len__(self) -> int:
        return len(self._until_s)

    def clear(self) -> None:
        self._until_s.clear()


class Attempt(NamedTuple):
    """One login that has begun: what was charged for it."""

    debts: tuple[tuple[_Debts, bytes, int], ...]  # with the limit
    address: bytes
    place: bytes  # this account at this address
    wrong: bytes  # a mark of the password


def network(address: bytes) -> bytes:
    """What counts as one address: an IPv4 address, an IPv6 /64; b"" where nobody knows."""
    try:
        parsed = ip_address(address.decode("ascii").partition("%")[0])
    except ValueError:
        return b""
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if parsed.is_loopback:
        return _HERE
    return parsed.packed[:8] if isinstance(parsed, IPv6Address) else parsed.packed


class Budget:
    def __init__(self, key: bytes, limits: Limits, keys_max: int = KEYS_MAX) -> None:
        """*key*: 32 random bytes of this process."""
        self._key = key
        self.limits = limits
        self._keys_max = keys_max
        self._addresses = _Debts(keys_max)
        self._accounts = _Debts(keys_max)
        self._places = _Debts(keys_max)  # of an account at an address that it is known at
        self._known_until_s: dict[bytes, float] = {}  # places, the longest unused first
        self._wrong: dict[bytes, bytes] = {}  # the last wrong password at a place, the oldest first

    def _mark(self, *fields: bytes) -> bytes:
        return blake2b(b"\0".join(fields), key=self._key, digest_size=16).digest()

    def begin(self, question: AskLogin, now_s: float) -> Attempt | Refused:
        """Charge an attempt, or refuse it unseen."""
        address = network(question.address)
        account = question.name[:_NAME_MAX].lower()
        place = self._mark(address, account)
        known = bool(address) and self._known_until_s.get(place, 0.0) > now_s
        debts = [(self._places, place, self.limits.address)] if known else []
        if not known and address not in (b"", _HERE):
            debts.append((self._addresses, address, self.limits.address))
        if not known and account:
            debts.append((self._accounts, self._mark(account), self.limits.account))
        for debt, key, limit in debts:
            if limit and debt.owed_s(key, now_s) + self._cost_s(limit) > self.limits.time_s + _ROUNDING_S:
                return self._refusal(debt, limit)
        self._charge(debts, 1, now_s)
        wrong = self._mark(account, question.secret) if question.method is Method.PASSWORD else b""
        return Attempt(tuple(debts), address, place, wrong)

    def _cost_s(self, limit: int) -> float:
        return self.limits.time_s / limit if limit else 0.0

    def _charge(self, debts: list[tuple[_Debts, bytes, int]], sign: int, now_s: float) -> None:
        for debt, key, limit in debts:
            debt.change(key, sign * self._cost_s(limit), now_s)

    def _refusal(self, debt: _Debts, limit: int) -> Refused:
        what = b"this account (authfailaccount)" if debt is self._accounts else b"this address (authfailaddress)"
        why = b"%d failed logins in %d s are the most for %b" % (limit, self.limits.time_s, what)
        return Refused(why, min(DELAY_MAX_S, self.limits.delay_s * 8), unchecked=True)

    def settle(self, attempt: Attempt, answer: LoginAnswer, now_s: float) -> LoginAnswer:
        """The answer with its delay, once the attempt is over."""
        if isinstance(answer, Refused):
            return self._failed(attempt, answer, now_s)
        self._charge([*attempt.debts], -1, now_s)
        if isinstance(answer, Login) and attempt.address:
            self._known_until_s.pop(attempt.place, None)
            _drop_oldest(self._known_until_s, self._keys_max)
            self._known_until_s[attempt.place] = now_s + KNOWN_S
        return answer

    def _failed(self, attempt: Attempt, answer: Refused, now_s: float) -> Refused:
        same = bool(attempt.wrong) and hmac.compare_digest(self._wrong.pop(attempt.place, b""), attempt.wrong)
        if attempt.wrong:
            _drop_oldest(self._wrong, self._keys_max)
            self._wrong[attempt.place] = attempt.wrong
        if same:
            self._charge([*attempt.debts], -1, now_s)
        failures = 1.0
        for debt, key, limit in attempt.debts:
            if debt is not self._accounts and limit:
                failures = debt.owed_s(key, now_s) / self._cost_s(limit) if self.limits.time_s else 1.0
        delay_s = self.limits.delay_s * 2 ** min(10, max(0, round(failures) - 1))
        return answer._replace(delay_s=min(delay_s, DELAY_MAX_S))

    def forget(self) -> None:
        """Forgive all; where accounts are known stays."""
        for debts in (self._addresses, self._accounts, self._places):
            debts.clear()
        self._wrong.clear()


def _drop_oldest(entries: dict[bytes, bytes] | dict[bytes, float], most: int) -> None:
    while len(entries) >= most:
        del entries[next(iter(entries))]
