"""What each login has sent in its hour, and whether it may send more.

An hour begins with a login's first message.  Nothing of this outlives userd: after a restart everybody has a new hour,
so a stolen password sends at most the limits once more.
"""

from typing import Final, NamedTuple

from qm.wire.userquery import AskSpend, Spent, Verdict

HOUR_S: Final = 3600.0
LOGINS_MAX: Final = 10_000  # hours that are remembered; then the oldest is forgotten
_YES: Final = Spent(Verdict.YES, b"")


class Limits(NamedTuple):
    """In an hour; 0: no limit."""

    messages: int
    recipients: int
    domains: int


class _Hour:
    __slots__ = ("domains", "ends_at_s", "messages", "recipients", "told")

    def __init__(self, ends_at_s: float) -> None:
        self.ends_at_s = ends_at_s
        self.messages = 0
        self.recipients = 0
        self.domains: set[bytes] = set()  # no more than the limit
        self.told = False


class Spending:
    def __init__(self) -> None:
        self._hours: dict[bytes, _Hour] = {}  # by login, the oldest first

    def spend(self, question: AskSpend, limits: Limits, now_s: float) -> Spent:
        """Count a message, unless that is over a limit."""
        hour = self._hour(question.name.lower(), now_s)
        domains = hour.domains | set(question.marks) if limits.domains else set()
        over = (
            (b"limitmessages", limits.messages, hour.messages + 1),
            (b"limitrecipients", limits.recipients, hour.recipients + question.recipients),
            (b"limitdomains", limits.domains, len(domains)),
        )
        for name, most, wanted in over:
            if most and wanted > most:
                first, hour.told = not hour.told, True
                return Spent(Verdict.LATER, b"control/%b: %d in an hour" % (name, most), first)
        hour.messages += 1
        hour.recipients += question.recipients
        hour.domains = domains
        return _YES

    def _hour(self, login: bytes, now_s: float) -> _Hour:
        hour = self._hours.get(login)
        if hour is None or hour.ends_at_s <= now_s:
            self._hours.pop(login, None)
            if len(self._hours) >= LOGINS_MAX:
                del self._hours[next(iter(self._hours))]
            hour = self._hours[login] = _Hour(now_s + HOUR_S)
        return hour

    def __len__(self) -> int:
        return len(self._hours)
