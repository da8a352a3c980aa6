"""popup: POP3 until somebody logs in, then a checkpassword takes over.

Usage:   qm-popup hostname subprogram [arg ...]
Reads:   fd 0 (peer), control/{roles,authclear,authfaildelay,maxerrors,maxlogins,pop3apop,timeoutpop3d,timeouttls}
Env:     QMHOME, TIMEOUTPOP3D (over the control file; set for the subprogram), TCPREMOTEIP (for the log), FORCETLS,
         SSL_PROTOCOL, SSL_CLIENT_S_DN, TLSBINDINGS (of qm-tls; with the others of qm-tls(1) set after STLS)
Writes:  fd 1 (peer), fd 2 (log)
Asks:    the subprogram, on its descriptor 3: name NUL secret NUL banner NUL method NUL, at most 512 bytes, or 24576 for
         what only our checkpassword knows; userd, what AUTH can be; tlsd, once per STLS
As:      root, or the owner of a private system; what comes from the peer is read by a child that is qmailp
Exits:   what a subprogram of ours exits with; 0 the peer left; 1 logins were refused; 111 no handshake, bad controls or
         a bug of ours
See:     qm-popup(8), RFC 1939, RFC 2595, RFC 3206, RFC 5034, qmail.md 16.4

The subprogram runs in a process of its own, forked and, if it is a stranger's, exec'd.  One of ours raises an error
when it refuses a login: the peer may try again.  A stranger's exit code may come from the session, so its peers get one
attempt, as in qmail.
"""

import os
import stat
import time
from typing import Final

from qm import errors
from qm.disk.control import Controls
from qm.errors import Temporary
from qm.popup import policy
from qm.popup.session import NAME, Speaker, Subprogram
from qm.popup.talk import Talk
from qm.unix import chain, log, privs
from qm.unix.program import Argv, Env, Usage, program
from qm.unix.tlsclient import Busy, TlsClient
from qm.unix.tlsclient import Failed as NoHandshake
from qm.unix.userclient import UserClient
from qm.wire import sasl
from qm.wire.pop3auth import Offer
from qm.wire.pop3login import Failed, Left, Login, Stls, checkpassword_record
from qm.wire.secured import environment, secured_by

GRACE_S: Final = 10.0  # a speaker that outlives its deadline by this is killed
REFUSED: Final = 1
TIMEOUT_MAX_S: Final = 86400  # poll(2) takes no more than 24 days
_CONTROLS: Final = (
    "authclear", "authfaildelay", "maxerrors", "maxlogins", "pop3apop", "timeoutpop3d", "timeouttls",
)  # fmt: skip
_ANY_CHECKPASSWORD: Final = (b"PLAIN", b"LOGIN")
_READY: Final = b"+OK begin TLS\r\n"  # RFC 2595 4; qm-tlsd says it, and nothing after it in clear


class _Popup:
    """What serves one connection after another."""

    def __init__(self, argv: Argv, env: Env) -> None:
        self._host, subprogram = argv[1], argv[2:]
        self._program_name = os.fsdecode(subprogram[0])
        self._subprogram = Subprogram(subprogram, env)
        asks_userd = chain.is_ours(subprogram[0]) and os.path.basename(subprogram[0]) == b"checkpassword"
        self._users = UserClient() if asks_userd else None
        self._tls = TlsClient()
        self._controls = Controls(_CONTROLS)
        self._in_clear, self._encrypted = (Speaker(privs.role("qmailp")) for _ in range(2))

    def __call__(self, env: Env) -> int:
        self._controls.refresh(lambda text: log.alert(NAME, text))
        timeout_s = self._timeout_s(env)
        env = {**env, b"TIMEOUTPOP3D": b"%d" % timeout_s}
        return self._serve(env, self._greeting(env, timeout_s))

    def _serve(self, env: Env, talk: Talk) -> int:
        attempts = max(1, self._controls.number("maxlogins")) if self._subprogram.warm else 1
        code = errors.OK
        while True:
            speaker = self._encrypted if talk.encrypted else self._in_clear
            match speaker.talk(talk, _left_s(talk) + talk.delay_s + GRACE_S):
                case Left():
                    return code
                case Stls():
                    try:
                        env, talk = self._start_tls(env, talk)
                    except NoHandshake:  # qm-tlsd has said why
                        return errors.TEMPORARY
                    continue
                case Failed() as failed:
                    method = b""
                case Login() as login:
                    result = self._log_in(login, talk, env)
                    if isinstance(result, int):
                        return result
                    failed, method = result, login.method
            attempts -= 1
            code = REFUSED
            answer = policy.answer(failed, self._controls.number("authfaildelay"), method)
            talk = self._told(talk, *answer)._replace(last=attempts <= 0)

    def _timeout_s(self, env: Env) -> int:
        told = env.get(b"TIMEOUTPOP3D", b"")
        timeout_s = int(told) if told.isdigit() and len(told) < 10 else self._controls.number("timeoutpop3d")
        return min(max(1, timeout_s), TIMEOUT_MAX_S)

    def _greeting(self, env: Env, timeout_s: int) -> Talk:
        # RFC 1939 7: msg-id syntax, and never the same twice
        banner = b"<%d.%d@%b>" % (os.getpid(), time.time_ns(), self._host)
        apop = self._controls.number("pop3apop") > 0
        offer, peer = self._terms(env)
        return Talk(
            line=b"+OK " + (banner if apop else self._host),
            after=b"",
            delay_s=0,
            last=False,
            banner=banner,
            offer=offer,
            peer=peer,
            errors_max=self._controls.number("maxerrors"),
            deadline_s=int(time.monotonic()) + timeout_s,
            encrypted=secured_by(env) is not None,
        )

    def _terms(self, env: Env) -> tuple[Offer, sasl.Peer]:
        """How the client may log in, and what SASL knows of it."""
        secured = secured_by(env)
        bindings, client = (secured.bindings, secured.client) if secured else ({}, b"")
        clear = self._controls.number("authclear") > 0 and b"FORCETLS" not in env
        mechanisms: tuple[bytes, ...] = ()
        if secured or clear:
            mechanisms = sasl.mechanisms(
                self._stored(), encrypted=secured is not None, clear=clear, bindings=bindings, client=client
            )
        offer = Offer(
            apop=self._controls.number("pop3apop") > 0,
            stls=secured is None and stat.S_ISSOCK(os.fstat(0).st_mode) and self._tls.ready(),
            forced=secured is None and b"FORCETLS" in env,
            mechanisms=mechanisms,
        )
        address = env.get(b"TCPREMOTEIP", b"")
        return offer, sasl.Peer(address, self._host, os.urandom(16).hex().encode(), mechanisms, bindings, client)

    def _stored(self) -> tuple[bytes, ...]:
        """What the subprogram can check."""
        if self._users is None:
            return _ANY_CHECKPASSWORD
        try:
            return self._users.mechanisms()
        except Temporary as error:
            log.warning(NAME, f"no AUTH is offered: {error}")
            return ()

    def _told(self, talk: Talk, line: bytes, after: bytes = b"", delay_s: int = 0) -> Talk:
        """The same conversation with another line, and a nonce that nobody has seen."""
        peer = talk.peer._replace(nonce=os.urandom(16).hex().encode())
        return talk._replace(line=line, after=after, delay_s=delay_s, peer=peer)

    def _start_tls(self, env: Env, talk: Talk) -> tuple[Env, Talk]:
        """What holds after STLS; nothing that was said in clear does.  Raises NoHandshake."""
        try:
            limit_s = min(max(1, self._controls.number("timeouttls")), max(1.0, _left_s(talk)))
            facts = self._tls.encrypt(_READY, b"pop3", limit_s)
        except Busy as error:
            log.warning(NAME, str(error))
            errors_max = talk.errors_max - 1
            return env, self._told(talk, policy.NO_TLS)._replace(errors_max=errors_max, last=errors_max <= 0)
        env = {**env, **environment(facts)}
        offer, peer = self._terms(env)
        return env, talk._replace(line=b"", after=b"", delay_s=0, offer=offer, peer=peer, encrypted=True)

    def _log_in(self, login: Login, talk: Talk, env: Env) -> int | Failed:
        """What we exit with after a session, or why there was none."""
        result = self._subprogram.run(checkpassword_record(login, talk.banner), env)
        if isinstance(result, Failed):
            return result
        if self._subprogram.warm:
            return result if result >= 0 else errors.TEMPORARY
        # qmail.md 16.5: 0 after a session, 1 for a bad password; anything else says nothing about the password
        name, address = log.word(login.name).decode("ascii"), os.fsdecode(talk.peer.address)
        log.info(NAME, f"login {name} from {address}: {self._program_name} exited with {result}")
        if result == errors.OK:
            return result
        return Failed(result != REFUSED, policy.DELAY_UNKNOWN)


def _left_s(talk: Talk) -> float:
    return max(0.0, talk.deadline_s - time.monotonic())


def warm(argv: Argv, env: Env) -> chain.Runner:
    if len(argv) < 3:
        raise Usage("usage: qm-popup hostname subprogram [arg ...]")
    return _Popup(argv, env)


@program()
def main(argv: Argv, env: Env) -> int:
    return warm(argv, env)(env)
