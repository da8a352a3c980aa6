"""smtpd: receive mail by SMTP on descriptors 0 and 1; lmtpd: by LMTP.

Usage:   qm-smtpd [hostname [checkpassword subprogram [arg ...]]]
         qm-lmtpd
Reads:   fd 0 (peer), control/{me,authclear,badmailfrom,databytes,defaultdomain,defaulthost,hideclient,idhost,
         localiphost,maxcommands,maxerrors,maxhops,maxline,maxrecipients,plusdomain,rcpthosts,smtpgreeting,timeoutdata,
         timeoutsmtpd,timeouttls}, control/morercpthosts.cdb
Env:     TCPREMOTEIP, TCPREMOTEHOST, TCPREMOTEINFO, TCPLOCALIP, PROTO, IPCREMOTEEUID, RELAYCLIENT, DATABYTES,
         NOUSERCHECK, SUBMISSION, FORCETLS, QMAILQUEUE; SSL_PROTOCOL, SSL_CIPHER, SSL_TLS_SNI, SSL_CLIENT_S_DN,
         TLSBINDINGS (of qm-tls)
Writes:  fd 1 (peer), fd 2 (log)
Asks:    queue, once per message; userd, once per recipient, login and address of a submitted message; tlsd, once per
         STARTTLS; a checkpassword that is not ours, if one is named
As:      qmaild; needs no file that it can write
Exits:   0 talked to the end; 111 peer gone, bad controls or a bug of ours
See:     qm-smtpd(8), RFC 5321, RFC 2033, docs/SECURITY.md

One program, but for the words of the protocol: what LMTP answers for each recipient is that the queue has it.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from qm import errors
from qm.disk.cdb import Cdb
from qm.disk.control import Controls
from qm.errors import Temporary
from qm.smtpd.client import Means
from qm.smtpd.foreign import Checkpassword
from qm.smtpd.known import Known
from qm.smtpd.login import Store
from qm.smtpd.rehearsal import rehearse
from qm.smtpd.rules import CONTROLS, Peer, Rules, peer, rules
from qm.smtpd.session import Session
from qm.smtpd.starttls import Tlsd
from qm.smtpd.submission import Submission
from qm.smtpd.transaction import Queue
from qm.unix import chain, confine, entrance, log, privs
from qm.unix.channel import Channel, Gone
from qm.unix.program import Argv, Env, Usage, program
from qm.unix.queueclient import QueueClient
from qm.unix.userclient import UserClient
from qm.wire import qualify
from qm.wire.smtpreply import Reply

_REFUSE_S: Final = 10.0  # to say that we cannot serve
_UNAVAILABLE: Final = Reply(421, b"4.3.0", b"out of order, please try again later")


class Smtpd:
    """What one worker keeps between its sessions: control files, cdb, and its connections to queue and userd."""

    def __init__(self, argv: Argv, env: Env) -> None:
        """Raises Usage."""
        self._name = os.path.basename(argv[0])
        self._lmtp = self._name == b"qm-lmtpd"
        if self._lmtp and len(argv) != 1:
            raise Usage("usage: qm-lmtpd")
        if len(argv) == 3:
            raise Usage("usage: qm-smtpd [hostname [checkpassword subprogram [arg ...]]]")
        users = UserClient()
        self._host = argv[1] if argv[2:] else b""  # of AUTH; empty: there is none without SUBMISSION
        self._store: Store = Checkpassword(argv[2:], env) if argv[2:] and not chain.is_ours(argv[2]) else users
        self._more = Cdb("control/morercpthosts.cdb")
        self._queue: Queue = QueueClient()
        self._users = Known(users)
        self._tls = Tlsd()
        self._controls: Controls | None = None
        self._rules: Rules | None = None
        try:
            self._refresh()
        except Temporary as error:  # peers are told to come again until it is mended; no restart is needed
            log.warning(self._name, f"refusing mail: {error}")

    def _refresh(self) -> Rules:
        """The rules of now, or after a change that we cannot follow the last good ones.

        Raises Temporary if there are none.
        """
        if self._controls is None:
            self._controls = Controls(CONTROLS)
            changed = True
        else:
            changed = self._controls.refresh(lambda text: log.warning(self._name, text))
        if changed or self._rules is None:
            try:
                self._rules = rules(self._controls, self._host, lmtp=self._lmtp)
            except Temporary as error:
                if self._rules is None:
                    raise
                log.warning(self._name, f"{error.detail}; keeping the last good value")
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
            now = self._refresh()
            whom = peer(env, auth=bool(self._host))
            means = self._means(now, whom)
        except Temporary as error:
            log.fatal(self._name, str(error))
            with suppress(Gone):
                Channel(0, 1, _REFUSE_S).write(_UNAVAILABLE.encode())
            return errors.TEMPORARY
        channel = Channel(0, 1, now.command_s)
        queue = entrance.queue(env) if entrance.is_foreign(env) else self._queue  # kept for all sessions
        return Session(channel, now, whom, self._in_more, queue, self._users, means=means).run()

    def _means(self, rules: Rules, peer: Peer) -> Means:
        """Raises Temporary."""
        submission = None
        if peer.submission:
            assert self._controls is not None
            submission = Submission(qualify.hosts(self._controls, {}), self._store, rules.me)
        return Means(self._tls, self._store if peer.auth else None, submission)


def _drop() -> None:
    if privs.is_root():  # started without -u: what reads the network is never root
        privs.become(privs.role("qmaild"))
    confine.gain_nothing()


def warm(argv: Argv, env: Env) -> Callable[[Env], int]:
    _drop()
    smtpd = Smtpd(argv, env)
    smtpd.rehearse()
    return smtpd.serve


@program()
def main(argv: Argv, env: Env) -> int:
    _drop()
    return Smtpd(argv, env).serve(env)
