"""The answers to the two questions.

"exists" is answered at once.  A password that was not verified just now is checked by a worker: that takes 50 ms, in
which others get answers, and C code sees a stranger's bytes only as a user who owns nothing.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from qm.disk import dotqmail
from qm.disk.control import BadControl, Controls
from qm.disk.passwd import SECRET_MAX, Passwords
from qm.disk.users import Directory, User
from qm.errors import Temporary
from qm.unix import privs
from qm.unix.loop import Loop
from qm.unix.spawner import Limits, Pool, Work
from qm.userd import policy
from qm.wire import route
from qm.wire.passwdfile import NAME_MAX, Entry
from qm.wire.record import pack, unpack
from qm.wire.userquery import AskExists, AskLogin, Exists, Later, LoginAnswer, Refused, Verdict

NAME: Final = b"qm-userd"
CONTROLS: Final = (*route.CONTROLS, "authcachetime", "concurrencylogin", "concurrencyuserd", "systemlogin")
REFRESH_S: Final = 1.0  # how often control files are looked at, at most
IDLE_S: Final = 10.0  # a worker that has nothing to do leaves; malloc keeps the 19 MiB of its last check
_WRONG: Final = Refused(b"wrong name or password")

Complain = Callable[[str], None]
Reply = Callable[[LoginAnswer], None]


class _Check(NamedTuple):
    """A password that waits for a worker; without an *entry* the name is nobody's."""

    entry: Entry | None
    secret: bytes
    tag: bytes
    reply: Reply


def _enter(key: None) -> Work:
    """In the fresh worker: import what checks passwords, then be a user who owns nothing."""
    from qm.disk import hashes  # 4 MB, which userd itself does without
    from qm.unix import accounts

    with suppress(Temporary):  # then the checks that need it say so
        accounts.libcrypt()
    privs.become(privs.role("qmailp"))

    def work(record: bytes, descriptors: object) -> bytes:
        stored, secret = unpack(record, 2)
        try:
            return b"yes" if hashes.check(stored or hashes.DECOY, secret) else b"no"
        except Temporary as error:
            return str(error).encode("utf-8", "replace")

    return work


class Answers:
    def __init__(self, loop: Loop, controls: Controls, complain: Complain) -> None:
        self._controls = controls
        self._complain = complain
        self._rules = route.rules(controls)
        self._refresh_at_s = 0.0
        self._directory = Directory()
        self._passwords = Passwords()
        self._remembered = policy.Remembered(os.urandom(32))
        self._decoy = b""  # what an unknown name is checked against: the hash that was checked last
        self._waiting: deque[_Check] = deque()  # each client has at most one
        workers = max(1, controls.number("concurrencylogin"))
        self._pool: Pool[None] = Pool(loop, NAME, _enter, Limits(workers, workers, idle_s=IDLE_S))
        self._account_entry: Callable[[bytes], Entry | None] | None = _account_entry() if privs.is_root() else None

    def _refresh(self) -> None:
        """Take up changed control files; broken ones keep what they said."""
        now_s = time.monotonic()
        if now_s < self._refresh_at_s:
            return
        self._refresh_at_s = now_s + REFRESH_S
        if self._controls.refresh(self._complain):
            self._remembered.forget()
            try:
                self._rules = route.rules(self._controls)
            except BadControl as error:
                self._complain(str(error))

    def exists(self, question: AskExists) -> Exists:
        self._refresh()
        try:
            return policy.exists(self._rules, question.address, self._directory.find, _has_mailbox)
        except Temporary as error:
            self._complain(str(error))
            return Exists(Verdict.LATER, error.public.encode())

    def login(self, question: AskLogin, reply: Reply) -> LoginAnswer | None:
        """The answer; None if *reply* will be called with it."""
        self._refresh()
        try:
            entry = self._find(question.name)
        except Temporary as error:
            self._complain(str(error))
            return Later(error.public.encode())
        if question.challenge:
            right = policy.apop(entry, question.secret, question.challenge)
            return entry.login if entry is not None and right else _WRONG
        tag = b""
        if entry is not None:
            tag = self._remembered.tag(entry, question.secret)
            if self._remembered.knows(entry.name, tag, time.monotonic()):
                return entry.login
            self._decoy = entry.hash
        self._waiting.append(_Check(entry, question.secret, tag, reply))
        self._start()
        return None

    def _find(self, name: bytes) -> Entry | None:
        if len(name) > NAME_MAX:
            return None
        entry = self._passwords.lookup(name)
        if entry is None and self._account_entry is not None and self._controls.number("systemlogin"):
            entry = self._account_entry(name)
        return entry

    def _start(self) -> None:
        """Give waiting checks to workers, as far as there are any."""
        while self._waiting and self._pool.room(None):
            check = self._waiting.popleft()
            stored = check.entry.hash if check.entry else self._decoy
            too_long = len(check.secret) > SECRET_MAX
            try:
                job = pack(stored, b"" if too_long else check.secret)
                self._pool.give(None, job, (), partial(self._checked, check))
            except OSError as error:
                self._complain(f"cannot start a worker: {error.strerror}")
                check.reply(Later(b"cannot check passwords now"))

    def _checked(self, check: _Check, report: bytes | None) -> None:
        check.reply(self._judge(check, report))
        self._start()

    def _judge(self, check: _Check, report: bytes | None) -> LoginAnswer:
        if check.entry is None or report == b"no":
            return _WRONG
        if report == b"yes":
            lifetime_s = self._controls.number("authcachetime")
            if lifetime_s:
                self._remembered.add(check.entry.name, check.tag, time.monotonic() + lifetime_s)
            return check.entry.login
        self._complain(report.decode("utf-8", "replace") if report else "a worker failed in a password check")
        return Later(b"cannot check passwords now")

    def forget(self) -> None:
        """Ask everything anew."""
        self._directory.forget()
        self._remembered.forget()
        self._refresh_at_s = 0.0

    def close(self) -> None:
        """End the workers; checks that are not done are not answered."""
        self._waiting.clear()
        self._pool.close()


def _has_mailbox(user: User) -> bool:
    return dotqmail.exists(user.home, user.dash, user.ext)


def _account_entry() -> Callable[[bytes], Entry | None]:
    from qm.unix import accounts  # ctypes costs a megabyte; only root needs it

    def find(name: bytes) -> Entry | None:
        account = accounts.account(name)
        shadow = accounts.shadow(name) if account is not None else None
        if account is None or shadow is None:
            return None
        return policy.of_account(account, shadow, int(time.time()) // 86400)

    return find
