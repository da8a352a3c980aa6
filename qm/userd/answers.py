"""The answers: who has a mailbox at once, who may log in when a worker has looked at the password (qm.userd.logins)."""

import time
from collections.abc import Mapping
from typing import Final

from qm.disk import dotqmail
from qm.disk.control import BadControl, Controls
from qm.disk.users import Directory, User
from qm.errors import Temporary
from qm.unix.loop import Loop
from qm.userd import logins, policy
from qm.userd.logins import NAME, Complain, Logins, Reply
from qm.userd.spending import Limits, Spending
from qm.wire import route
from qm.wire.record import Malformed
from qm.wire.userquery import (
    AskExists,
    AskLogin,
    AskMechanisms,
    AskScram,
    AskSender,
    AskSpend,
    Exists,
    Later,
    LoginAnswer,
    Question,
    Verdict,
    pack_exists,
    pack_mechanisms,
    pack_scram,
    pack_spent,
)

__all__ = ["CONTROLS", "NAME", "Answers"]

CONTROLS: Final = (
    *route.CONTROLS, *logins.CONTROLS, "authsenders", "concurrencyuserd", "limitdomains", "limitmessages",
    "limitrecipients",
)  # fmt: skip
REFRESH_S: Final = 1.0  # how often control files are looked at, at most


class Answers:
    def __init__(self, loop: Loop, controls: Controls, complain: Complain) -> None:
        self._controls = controls
        self._complain = complain
        self._rules = route.rules(controls)
        self._refresh_at_s = 0.0
        self._directory = Directory()
        self._logins = Logins(loop, controls, complain)
        self._senders = self._read_senders()
        self._spending = Spending()

    def _read_senders(self) -> Mapping[bytes, frozenset[bytes]]:
        """control/authsenders; raises BadControl."""
        try:
            return policy.senders(self._controls.lines("authsenders"))
        except Malformed as error:
            raise BadControl("a control file is broken", detail=f"control/authsenders: {error}") from error

    def _refresh(self) -> None:
        """Take up changed control files; broken ones keep what they said."""
        now_s = time.monotonic()
        if now_s < self._refresh_at_s:
            return
        self._refresh_at_s = now_s + REFRESH_S
        if self._controls.refresh(self._complain):
            try:
                self._logins.reload()
                self._rules = route.rules(self._controls)
                self._senders = self._read_senders()
            except BadControl as error:
                self._complain(str(error))

    def answer(self, question: Question) -> bytes:
        """The record that answers a question at once; not for AskLogin."""
        self._refresh()
        if isinstance(question, AskExists):
            return pack_exists(self._exists(question))
        if isinstance(question, AskSender):
            return pack_exists(self._may_send(question))
        if isinstance(question, AskSpend):
            return pack_spent(self._spending.spend(question, self._limits(), time.monotonic()))
        try:
            if isinstance(question, AskScram):
                return pack_scram(self._logins.scram(question))
            assert isinstance(question, AskMechanisms)
            return pack_mechanisms(self._logins.mechanisms())
        except Temporary as error:
            self._complain(str(error))
            return pack_scram(Later(error.public.encode()))

    def _exists(self, question: AskExists) -> Exists:
        try:
            return policy.exists(self._rules, question.address, self._directory.find, _has_mailbox)
        except Temporary as error:
            self._complain(str(error))
            return Exists(Verdict.LATER, error.public.encode())

    def _may_send(self, question: AskSender) -> Exists:
        try:
            return policy.may_send(self._rules, self._senders, question, self._directory.find, _has_mailbox)
        except Temporary as error:
            self._complain(str(error))
            return Exists(Verdict.LATER, error.public.encode())

    def _limits(self) -> Limits:
        number = self._controls.number
        return Limits(number("limitmessages"), number("limitrecipients"), number("limitdomains"))

    def login(self, question: AskLogin, reply: Reply) -> LoginAnswer | None:
        """The answer; None if *reply* will be called with it."""
        self._refresh()
        return self._logins.login(question, reply)

    def forget(self) -> None:
        """Ask everything anew."""
        self._directory.forget()
        self._logins.forget()
        self._refresh_at_s = 0.0

    def close(self) -> None:
        """End the workers; checks that are not done are not answered."""
        self._logins.close()


def _has_mailbox(user: User) -> bool:
    return dotqmail.exists(user.home, user.dash, user.ext)
