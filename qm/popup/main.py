"""popup: POP3 until somebody logs in, then a checkpassword takes over.

Usage:   qm-popup hostname subprogram [arg ...]
Reads:   fd 0 (peer), control/{roles,authfaildelay,maxerrors,maxlogins,pop3apop,timeoutpop3d}
Env:     QMHOME, TIMEOUTPOP3D (over the control file; set for the subprogram), TCPREMOTEIP (for the log)
Writes:  fd 1 (peer), fd 2 (log)
Asks:    the subprogram, on its descriptor 3: name NUL secret NUL banner NUL method NUL, at most 512 bytes
As:      root, or the owner of a private system; what comes from the peer is read by a child that is qmailp
Exits:   what a subprogram of ours exits with; 0 the peer left; 1 logins were refused; 111 bad controls or a bug of ours
See:     qm-popup(8), RFC 1939, RFC 3206, qmail.md 16.4

The subprogram runs in a process of its own, forked and, if it is a stranger's, exec'd.  One of ours raises an error
when it refuses a login: the peer may try again.  A stranger's exit code may come from the session, so its peers get one
attempt, as in qmail.
"""

import os
import time
from typing import Final

from qm import errors
from qm.disk.control import Controls
from qm.popup.session import SAID_LATER, SAID_NO, Speaker, run
from qm.popup.speaker import Talk
from qm.unix import chain, log, privs, title
from qm.unix.program import Argv, Env, Usage, program
from qm.wire.pop3auth import Login, checkpassword_record

NAME: Final = b"qm-popup"
GRACE_S: Final = 10.0  # a speaker that outlives its deadline by this is killed
REFUSED: Final = 1
TIMEOUT_MAX_S: Final = 86400  # poll(2) takes no more than 24 days
DELAY_MAX_S: Final = 60
_CONTROLS: Final = ("authfaildelay", "maxerrors", "maxlogins", "pop3apop", "timeoutpop3d")
_BAD_LOGIN: Final = b"-ERR [AUTH] login refused"  # RFC 3206 4
_LATER: Final = b"-ERR [SYS/TEMP] cannot check the password now, try again later"  # RFC 3206 3


class _Popup:
    """What serves one connection after another."""

    def __init__(self, argv: Argv, env: Env) -> None:
        self._host, self._subprogram = argv[1], argv[2:]
        self._ours = chain.is_warm(self._subprogram, env)
        self._prepared = chain.prepare(self._subprogram, env)
        self._controls = Controls(_CONTROLS)
        self._speaker = Speaker(privs.role("qmailp"))

    def __call__(self, env: Env) -> int:
        self._controls.refresh(lambda text: log.alert(NAME, text))
        timeout_s = self._timeout_s(env)
        env = {**env, b"TIMEOUTPOP3D": b"%d" % timeout_s}
        address = env.get(b"TCPREMOTEIP", b"")
        talk = self._greeting(timeout_s)
        attempts = max(1, self._controls.number("maxlogins")) if self._ours else 1
        code = errors.OK
        while login := self._speaker.talk(address, talk, _left_s(talk) + talk.delay_s + GRACE_S):
            record = checkpassword_record(login, talk.banner)
            result = self._verdict(run(self._run, record, env), login, address)
            if isinstance(result, int):
                return result
            attempts -= 1
            code = REFUSED
            delay_s = min(self._controls.number("authfaildelay"), DELAY_MAX_S)
            talk = talk._replace(line=result, delay_s=delay_s, last=attempts <= 0)
        return code

    def _run(self, env: Env) -> int:
        """In the child."""
        title.show(self._subprogram)
        return self._prepared(env)

    def _timeout_s(self, env: Env) -> int:
        told = env.get(b"TIMEOUTPOP3D", b"")
        timeout_s = int(told) if told.isdigit() and len(told) < 10 else self._controls.number("timeoutpop3d")
        return min(max(1, timeout_s), TIMEOUT_MAX_S)

    def _greeting(self, timeout_s: int) -> Talk:
        # RFC 1939 7: msg-id syntax, and never the same twice
        banner = b"<%d.%d@%b>" % (os.getpid(), time.time_ns(), self._host)
        offer_apop = self._controls.number("pop3apop") > 0
        return Talk(
            line=b"+OK " + (banner if offer_apop else self._host),
            delay_s=0,
            last=False,
            banner=banner,
            offer_apop=offer_apop,
            errors_max=self._controls.number("maxerrors"),
            deadline_s=int(time.monotonic()) + timeout_s,
        )

    def _verdict(self, code: int, login: Login, address: bytes) -> int | bytes:
        """What we exit with after a session, or the answer to a login that failed; *code* is the subprogram's."""
        if self._ours:
            said = {SAID_NO: _BAD_LOGIN, SAID_LATER: _LATER}.get(code)
            return (code if code >= 0 else errors.TEMPORARY) if said is None else said
        # qmail.md 16.5: 0 after a session, 1 for a bad password; anything else says nothing about the password
        name, program_name = log.word(login.name).decode("ascii"), os.fsdecode(self._subprogram[0])
        log.info(NAME, f"login {name} from {os.fsdecode(address)}: {program_name} exited with {code}")
        if code == errors.OK:
            return code
        return _BAD_LOGIN if code == REFUSED else _LATER


def _left_s(talk: Talk) -> float:
    return max(0.0, talk.deadline_s - time.monotonic())


def warm(argv: Argv, env: Env) -> chain.Runner:
    if len(argv) < 3:
        raise Usage("usage: qm-popup hostname subprogram [arg ...]")
    return _Popup(argv, env)


@program()
def main(argv: Argv, env: Env) -> int:
    return warm(argv, env)(env)
