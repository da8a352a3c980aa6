"""checkpassword: check the name and secret on descriptor 3, then become that user and run a program.

Usage:   checkpassword prog [arg ...]
Reads:   fd 3, to its end: name NUL secret NUL timestamp NUL, then perhaps method NUL (PASS, APOP, cram-md5,
         scram-sha-256, oauthbearer, external)
Env:     QMHOME, TCPREMOTEIP (for userd and the log), SSL_CLIENT_S_DN (who logs in by external); sets USER, HOME and
         SHELL
Writes:  fd 2 (log)
Asks:    userd, which alone sees what is stored of passwords
As:      root until the login is right, then the user; or the one user that it may log in
Exits:   1 refused; 2 no program, or too few fields; 111 cannot tell; after a login what prog exits with
See:     checkpassword(8), qmail.md 16.5

Called warm, it raises Permanent or Temporary instead of exiting with 1 or 111, as long as nobody has logged in.
"""

import os
import re
from typing import Final, NamedTuple, Self

from qm import errors
from qm.unix import chain, checking, fds, log, title
from qm.unix.program import Argv, Env, program
from qm.unix.userclient import AskLogin, Later, Login, Method, UserClient
from qm.wire.pop3login import LONG_MAX, METHODS, record_max

NAME: Final = b"checkpassword"
REFUSED: Final = 1
MISUSE: Final = 2
_DIGEST: Final = re.compile(rb"[0-9a-f]{32}")  # RFC 1939 7, APOP


class _Misuse(errors.Permanent):
    """Who runs us has not read checkpassword(8)."""


class Credentials(NamedTuple):
    name: bytes
    secret: bytes
    timestamp: bytes
    method: bytes  # b"" if whoever runs us does not tell

    def __repr__(self) -> str:
        return f"Credentials({self.name!r})"  # the secret is for nobody's log

    def methods(self) -> tuple[Method, ...]:
        """What the secret may be, in turn."""
        if self.method in METHODS:
            return (METHODS[self.method],)
        if not self.timestamp or not _DIGEST.fullmatch(self.secret):
            return (Method.PASSWORD,)
        return Method.PASSWORD, Method.APOP  # a stranger's popup gives a timestamp with either

    def certified(self, client: bytes) -> Self:
        """With who TLS says that the client is, where a certificate is the proof; raises Permanent.

        Of fd 3 nothing is believed about that: who wrote it may have had the peer fill in fields.
        """
        if self.method != Method.EXTERNAL.value:
            return self
        if not client:
            raise errors.Permanent("login refused", detail="external, without SSL_CLIENT_S_DN")
        return self._replace(name=client, secret=b"", timestamp=b"")

    def question(self, method: Method, address: bytes) -> AskLogin:
        challenge = b"" if method is Method.PASSWORD else self.timestamp
        return AskLogin(method, self.name, self.secret, challenge, address)


def parse(record: bytes) -> Credentials:
    """The fields of *record*; raises Permanent."""
    fields = record.split(b"\0")[:-1]
    if len(fields) < 2:
        raise _Misuse("login refused", detail="descriptor 3 must give name NUL secret NUL timestamp NUL")
    name, secret, timestamp, method, *_ = [*fields, b"", b""]
    if len(record) > record_max(method):
        raise errors.Permanent("login refused", detail=f"over {record_max(method)} bytes")
    return Credentials(name, secret, timestamp, method)


class _Check:
    """What runs one login and then the program."""

    def __init__(self, argv: Argv, env: Env) -> None:
        following = chain.prepare(argv, env)  # imports what it needs while we still can

        @program(at_home=False)  # it raises nothing, or its failures would be taken for a refused login
        def follow(_: Argv, login_env: Env) -> int:
            title.show(argv)
            return following(login_env)

        self._argv = argv
        self._follow = follow
        self._userd = UserClient()

    def __call__(self, env: Env) -> int:
        name = b""
        address = log.word(env.get(b"TCPREMOTEIP", b"?")).decode("ascii")
        try:
            credentials = parse(checking.read_record(LONG_MAX)).certified(env.get(b"SSL_CLIENT_S_DN", b""))
            name = credentials.name
            login = self._verify(credentials, env.get(b"TCPREMOTEIP", b""))
            self._become(login)
        except errors.QmError as error:
            log.warning(NAME, f"login {log.word(name).decode('ascii')} from {address}: {error}")
            raise
        log.info(NAME, f"login {log.word(name).decode('ascii')} from {address}: ok, uid {login.uid}")
        return self._follow(self._argv, {**env, b"USER": login.user, b"HOME": login.home, b"SHELL": login.shell})

    def _verify(self, credentials: Credentials, address: bytes) -> Login:
        """Who *credentials* are; raises Permanent, Temporary."""
        for method in credentials.methods():
            answer = self._userd.answer(credentials.question(method, address))
            if isinstance(answer, Login):
                return answer
            if isinstance(answer, Later):
                raise errors.Temporary("cannot check the password now", detail=os.fsdecode(answer.why))
            refused = answer
        why = os.fsdecode(refused.why)
        if refused.unchecked:
            raise checking.Locked("cannot check the password now", detail=why, delay_s=refused.delay_s)
        raise checking.Wrong("login refused", detail=why, delay_s=refused.delay_s)

    def _become(self, login: Login) -> None:
        """Be the user for good, in his home, with no descriptor but the network and the log."""
        if login.uid == 0:
            raise errors.Permanent("login refused", detail="uid 0")
        try:
            checking.become(login)
        finally:
            self._userd.close()
            fds.close_from(3)


def warm(argv: Argv, env: Env) -> chain.Runner:
    if len(argv) < 2:
        raise _Misuse("usage: checkpassword prog [arg ...]")
    return _Check(argv[1:], env)


@program()
def main(argv: Argv, env: Env) -> int:
    try:
        check = warm(argv, env)
    except _Misuse as error:
        log.fatal(NAME, str(error))
        return MISUSE
    try:
        return check(env)
    except _Misuse:
        return MISUSE
    except errors.Permanent:
        return REFUSED
    except errors.Temporary:
        return errors.TEMPORARY
