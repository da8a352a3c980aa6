"""smtpd: receive mail by SMTP on descriptors 0 and 1.

Reads:   fd 0 (peer), control/{me,badmailfrom,databytes,localiphost,maxcommands,maxerrors,maxhops,maxline,
         maxrecipients,rcpthosts,smtpgreeting,timeoutdata,timeoutsmtpd}, control/morercpthosts.cdb
Env:     TCPREMOTEIP, TCPREMOTEHOST, TCPREMOTEINFO, TCPLOCALIP, RELAYCLIENT, DATABYTES, NOUSERCHECK
Writes:  fd 1 (peer), fd 2 (log)
Asks:    queue, once per message; userd, once per recipient
As:      qmaild; needs no file that it can write
Exits:   0 talked to the end; 111 peer gone, bad controls or a bug of ours
See:     qm-smtpd(8), RFC 5321, docs/SECURITY.md
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk.cdb import Cdb
from qm.disk.control import Controls
from qm.errors import Temporary
from qm.smtpd import policy
from qm.smtpd.known import Known
from qm.smtpd.policy import Rules
from qm.smtpd.rehearsal import rehearse
from qm.smtpd.session import Session
from qm.unix import confine, log, privs
from qm.unix.channel import Channel, Gone
from qm.unix.program import Argv, Env, program
from qm.unix.queueclient import QueueClient
from qm.unix.userclient import UserClient
from qm.wire.smtpreply import Reply

_NAME: Final = b"qm-smtpd"
_REFUSE_S: Final = 10.0  # to say that we cannot serve
_UNAVAILABLE: Final = Reply(421, b"4.3.0", b"out of order, please try again later")


class Smtpd:
    """What one worker keeps between its sessions: control files, cdb, and its connections to queue and userd."""

    def __init__(self) -> None:
        self._more = Cdb("control/morercpthosts.cdb")
        self._queue = QueueClient()
        self._users = Known(UserClient())
        self._controls: Controls | None = None
        self._rules: Rules | None = None
        try:
            self._refresh()
        except Temporary as error:  # peers are told to come again until it is mended; no restart is needed
            log.warning(_NAME, f"refusing mail: {error}")

    def _refresh(self) -> Rules:
        """The rules of now, or after a change that we cannot follow the last good ones.

        Raises Temporary if there are none.
        """
        if self._controls is None:
            self._controls = Controls(policy.CONTROLS)
            changed = True
        else:
            changed = self._controls.refresh(lambda text: log.warning(_NAME, text))
        if changed or self._rules is None:
            try:
                self._rules = policy.rules(self._controls)
            except Temporary as error:
                if self._rules is None:
                    raise
                log.warning(_NAME, f"{error.detail}; keeping the last good value")
        return self._rules

    def _in_more(self, key: bytes) -> bool:
        self._more.refresh()
        return self._more.lookup(key) is not None

    def rehearse(self) -> None:
        """Be ready to be forked."""
        if self._rules is not None:
            rehearse(self._rules, self._refresh)

    def serve(self, env: Env) -> int:
        """One session on descriptors 0 and 1."""
        try:
            rules = self._refresh()
        except Temporary as error:
            log.fatal(_NAME, str(error))
            with suppress(Gone):
                Channel(0, 1, _REFUSE_S).write(_UNAVAILABLE.encode())
            return errors.TEMPORARY
        channel = Channel(0, 1, rules.command_s)
        return Session(channel, rules, policy.peer(env), self._in_more, self._queue, self._users).run()


def _drop() -> None:
    if privs.is_root():  # started without -u: what reads the network is never root
        privs.become(privs.role("qmaild"))
    confine.gain_nothing()


def warm(argv: Argv, env: Env) -> Callable[[Env], int]:
    _drop()
    smtpd = Smtpd()
    smtpd.rehearse()
    return smtpd.serve


@program()
def main(argv: Argv, env: Env) -> int:
    _drop()
    return Smtpd().serve(env)
