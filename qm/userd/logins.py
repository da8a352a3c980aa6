"""Who may log in: the lines of control/logins are asked in turn until one says yes.

Each line costs the same whether it knows the name or not, and whether the password is wrong or nobody's: a name that
nobody has is checked against a hash of the kind that was checked last.  So neither answers nor work tell who is here.
"""

import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from qm.disk import passwdtext
from qm.disk.control import BadControl, Controls
from qm.disk.passwd import DIRECTORY, SECRET_MAX, Passwords
from qm.errors import Temporary
from qm.unix import privs
from qm.unix.loop import Loop
from qm.unix.spawner import Trade
from qm.userd import judges, policy
from qm.userd.budget import Budget, Limits
from qm.userd.policy import Backend, Kind
from qm.userd.workers import NO, YES, Workers, check_record, enter_hashing
from qm.wire import saslprep
from qm.wire.passwdfile import NAME_MAX, Entry, canonical
from qm.wire.record import Malformed
from qm.wire.userquery import (
    AskLogin,
    AskScram,
    Later,
    Login,
    LoginAnswer,
    Mechanisms,
    Method,
    Refused,
    Scram,
    ScramAnswer,
    unpack_login,
)

NAME: Final = b"qm-userd"
_HASHING: Final = Trade(NAME, b"checks passwords")
_JUDGING: Final = Trade(NAME, b"asks about logins")
CONTROLS: Final = (
    "authcachetime", "authfailaccount", "authfailaddress", "authfaildelay", "authfailtime", "authmechanisms",
    "concurrencylogin", "logins", "timeoutlogin",
)  # fmt: skip
_WRONG: Final = Refused(b"wrong name or password")
_CANNOT: Final = Later(b"cannot check passwords now")

Complain = Callable[[str], None]
Reply = Callable[[LoginAnswer], None]


class _Attempt(NamedTuple):
    """A password that is being checked: what is still to be asked, and who waits for the answer."""

    question: AskLogin
    rest: Iterator[Backend]
    reply: Reply


class Logins:
    def __init__(self, loop: Loop, controls: Controls, complain: Complain) -> None:
        self._controls = controls
        self._complain = complain
        self._passwords = Passwords()
        self._salt_key = passwdtext.salt_key(DIRECTORY)
        self._remembered = policy.Remembered(os.urandom(32))
        self._decoys: dict[Kind, bytes] = {}  # what an unknown name is checked against: the hash that was checked last
        most = max(1, controls.number("concurrencylogin"))
        self._hashing = Workers(loop, _HASHING, enter_hashing, most)
        self._judging = {
            Kind.PAM: Workers(loop, _JUDGING, judges.enter_judging, most),
            Kind.PROGRAM: Workers(loop, _JUDGING, judges.enter_judging, most),
            Kind.OAUTHBEARER: Workers(loop, _JUDGING, judges.enter_tokens, most),
        }
        self._account_entry = _account_entry() if privs.is_root() else None
        self._backends = self._read_backends()
        self._budget = Budget(os.urandom(32), self._limits())

    def _limits(self) -> Limits:
        number = self._controls.number
        account, address = number("authfailaccount"), number("authfailaddress")
        return Limits(address, account, number("authfailtime"), number("authfaildelay"))

    def _read_backends(self) -> tuple[Backend, ...]:
        """control/logins; raises BadControl.  Accounts of this machine count only if we are root."""
        try:
            found = policy.backends(self._controls.lines("logins"))
        except Malformed as error:
            raise BadControl("a control file is broken", detail=f"control/logins: {error}") from error
        return tuple(one for one in found if one.kind is not Kind.SYSTEM or self._account_entry is not None)

    def reload(self) -> None:
        """Take up changed control files; raises BadControl, and then goes on as before."""
        self._remembered.forget()
        self._budget.limits = self._limits()
        self._backends = self._read_backends()

    def mechanisms(self) -> Mechanisms:
        """Raises Temporary."""
        kinds = {backend.kind for backend in self._backends}
        wanted = self._controls.lines("authmechanisms")
        return Mechanisms(policy.mechanisms(kinds, *self._passwords.served(), wanted))

    def scram(self, question: AskScram) -> ScramAnswer:
        """Raises Temporary."""
        name = canonical(question.name) or question.name[:NAME_MAX].lower()
        salt, iterations = policy.salt(self._entry(question.name), self._salt_key, name)
        return Scram(b64encode(salt), iterations)

    def login(self, question: AskLogin, reply: Reply) -> LoginAnswer | None:
        """The answer; None if *reply* will be called with it."""
        attempt = self._budget.begin(question, time.monotonic())
        if isinstance(attempt, Refused):
            return attempt

        def settled(answer: LoginAnswer) -> LoginAnswer:
            return self._budget.settle(attempt, answer, time.monotonic())

        try:
            answer = self._ask(question, lambda answer: reply(settled(answer)))
        except Temporary as error:
            self._complain(str(error))
            answer = Later(error.public.encode())
        return None if answer is None else settled(answer)

    def _ask(self, question: AskLogin, reply: Reply) -> LoginAnswer | None:
        """As `login`; raises Temporary."""
        if question.method is Method.PASSWORD:
            return self._next(_Attempt(question, self._lines(Kind.OAUTHBEARER, listed=False), reply))
        if question.method is Method.OAUTHBEARER:
            return self._next(_Attempt(question, self._lines(Kind.OAUTHBEARER, listed=True), reply))
        entry = self._entry(question.name)
        if question.method is Method.SCRAM_SHA_256:
            signature = policy.proven(entry, question.secret, question.challenge)
            return _named(entry, signature) if entry is not None and signature else _WRONG
        if question.method is Method.EXTERNAL:
            return _named(entry) if entry is not None and entry.secrets.external else _WRONG
        right = policy.digest(entry, question.method, question.secret, question.challenge)
        return _named(entry) if entry is not None and right else _WRONG

    def _lines(self, kind: Kind, *, listed: bool) -> Iterator[Backend]:
        """The lines of this kind, or all others."""
        return iter([backend for backend in self._backends if (backend.kind is kind) == listed])

    def _entry(self, name: bytes) -> Entry | None:
        """The entry of users/passwd, if that counts; raises BadCdb."""
        listed = any(backend.kind is Kind.PASSWD for backend in self._backends)
        return self._passwords.lookup(name) if listed else None

    def _next(self, attempt: _Attempt) -> LoginAnswer | None:
        """Ask the next line; raises Temporary."""
        backend = next(attempt.rest, None)
        if backend is None:
            return _WRONG
        question = attempt.question
        if backend.kind is Kind.PASSWD:
            return self._check(attempt, backend, self._passwords.lookup(question.name), saslprep.password)
        if backend.kind in self._judging:
            record = judges.job(question, backend.argv, self._controls.number("timeoutlogin"))
            self._judging[backend.kind].give(record, lambda report: self._judged(attempt, backend, report))
            return None
        find = self._account_entry
        entry = find(question.name) if find is not None and len(question.name) <= NAME_MAX else None
        return self._check(attempt, backend, entry, bytes)

    def _check(
        self, attempt: _Attempt, backend: Backend, entry: Entry | None, prepare: Callable[[bytes], bytes]
    ) -> LoginAnswer | None:
        """Have the password checked against *entry*, or for nobody against what takes as long."""
        secret = prepare(attempt.question.secret)
        if len(secret) > SECRET_MAX:
            entry, secret = None, b""
        tag = b""
        if entry is not None:
            tag = self._remembered.tag(entry, secret)
            if self._remembered.knows(tag, time.monotonic()):
                return _named(entry)
            self._decoys[backend.kind] = entry.secrets.hash or self._decoys.get(backend.kind, b"")
        record = self._record(entry, self._decoys.get(backend.kind, b""), secret)
        self._hashing.give(record, lambda report: self._checked(attempt, entry, tag, report))
        return None

    def _record(self, entry: Entry | None, decoy: bytes, secret: bytes) -> bytes:
        salt, iterations = policy.salt(entry, self._salt_key, b"")
        apps = entry.secrets.apps if entry is not None else ()
        keys = [verifier.stored_key for _, verifier in apps]
        return check_record(entry.secrets.hash if entry is not None else b"", decoy, salt, iterations, keys, secret)

    def _checked(self, attempt: _Attempt, entry: Entry | None, tag: bytes, report: bytes | None) -> None:
        """A worker's verdict on one line."""
        if report == YES and entry is not None:
            lifetime_s = self._controls.number("authcachetime")
            if lifetime_s:
                self._remembered.add(tag, time.monotonic() + lifetime_s)
            attempt.reply(_named(entry))
        elif report in (YES, NO):
            self._go_on(attempt)
        else:
            self._complain(report.decode("utf-8", "replace") if report else "a worker failed in a password check")
            attempt.reply(_CANNOT)

    def _judged(self, attempt: _Attempt, backend: Backend, report: bytes | None) -> None:
        """What a judge says."""
        try:
            answer = unpack_login(report) if report else Later(b"a worker failed, or took too long")
            if isinstance(answer, Login) and backend.kind is Kind.OAUTHBEARER:
                answer = self._known(answer.user, attempt.question.name)
        except (Malformed, Temporary) as error:
            answer = Later(str(error).encode("utf-8", "replace"))
        if isinstance(answer, Login):
            attempt.reply(answer)
        elif isinstance(answer, Refused):
            self._go_on(attempt)
        else:
            self._complain(f"{backend.kind.value.decode()}: {os.fsdecode(answer.why)}")
            attempt.reply(_CANNOT)

    def _known(self, name: bytes, claimed: bytes) -> LoginAnswer:
        """Who *name*, whom a token names, is here, if that is who the client says he is; raises Temporary."""
        answer = self._here(name)
        if isinstance(answer, Login) and claimed and answer.name.lower() != claimed.lower():
            return Refused(b"the token is somebody else's")
        return answer

    def _here(self, name: bytes) -> LoginAnswer:
        entry = self._entry(name)
        if entry is not None:
            return _named(entry)
        listed = {Kind.SYSTEM, Kind.PAM} & {backend.kind for backend in self._backends}
        return _account_login(name) if listed and privs.is_root() else _WRONG

    def _go_on(self, attempt: _Attempt) -> None:
        try:
            answer = self._next(attempt)
        except Temporary as error:
            self._complain(str(error))
            answer = _CANNOT
        if answer is not None:
            attempt.reply(answer)

    def forget(self) -> None:
        """Ask everything anew, and forgive what has failed."""
        self._remembered.forget()
        self._budget.forget()

    def close(self) -> None:
        """End the workers; checks that are not done are not answered."""
        for workers in (self._hashing, *self._judging.values()):
            workers.close()


def _named(entry: Entry, signature: bytes = b"") -> Login:
    return entry.login._replace(name=entry.name, signature=signature)


def _account_login(name: bytes) -> LoginAnswer:
    from qm.unix import accounts  # ctypes costs a megabyte

    account = accounts.account(name)
    if account is None or account.uid == 0:
        return _WRONG
    return Login(account.name, account.uid, account.gid, account.home, account.shell, account.name)


def _account_entry() -> Callable[[bytes], Entry | None]:
    from qm.unix import accounts  # ctypes costs a megabyte; only root needs it

    def find(name: bytes) -> Entry | None:
        account = accounts.account(name)
        shadow = accounts.shadow(name) if account is not None else None
        if account is None or shadow is None:
            return None
        return policy.of_account(account, shadow, int(time.time()) // 86400)

    return find
