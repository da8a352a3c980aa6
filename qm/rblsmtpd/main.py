"""rblsmtpd: refuse mail from peers that a list names, and run an SMTP server for all others.

Usage:   rblsmtpd [-bBcC] [-t seconds] [-r base[=codes]] [-a base[=codes]] program [arg ...]
Reads:   fd 0 (a listed peer's commands); DNS answers
Env:     RBLSMTPD, TCPREMOTEIP, DNSCACHEIP, QMCOLD
Writes:  fd 1 (a listed peer), fd 2 (log)
As:      qmaild; started as root it becomes that
Exits:   0 the peer was listed; 100 usage; 111 no name servers, or a bug of ours; else what program exits with
See:     rblsmtpd(1), qmail.md 21.5, RFC 5782

A program of ours runs warm, in a process that serves one connection after another.
"""

import os
import time
from typing import Final

from qm import errors
from qm.rblsmtpd import policy
from qm.rblsmtpd.policy import Kind, Source, Verdict
from qm.rblsmtpd.protocol import Refuser
from qm.unix import chain, log, options, privs
from qm.unix.channel import Channel, Gone
from qm.unix.program import Argv, Env, Usage, enter_home, program, roles

NAME: Final = b"rblsmtpd"
REFUSE_S: Final = 60  # that a listed peer may talk
REFUSE_MAX_S: Final = 100_000
SOURCES_MAX: Final = 100
_USAGE: Final = (
    "usage: rblsmtpd [-bBcC] [-t seconds] [-r base[=codes]] [-a base[=codes]] program [arg ...];"
    " codes: 127.0.0.2,127.0.0.4-7"
)


def _parse(args: Argv) -> tuple[list[Source], int, list[bytes]]:
    """The lists, the seconds for the listed, the program; an option counts for what comes after it.  Raises Usage."""
    found, rest = options.parse(args, _USAGE, flags=b"bBcC", valued=b"tra")
    bounce = closed = False
    refuse_s = REFUSE_S
    sources = []
    for letter, text in found:
        if letter in b"bB":
            bounce = letter == b"b"
        elif letter in b"cC":
            closed = letter == b"c"
        elif letter == b"t":
            if not (text.isdigit() and len(text) < 8 and int(text) <= REFUSE_MAX_S):
                raise Usage(f"-t wants a number up to {REFUSE_MAX_S}; {_USAGE}")
            refuse_s = int(text)
        else:
            try:
                sources.append(policy.source(Kind(letter), text, bounce=bounce, closed=closed))
            except ValueError as error:
                raise Usage(f"-{letter.decode()}: {error}; {_USAGE}") from error
    if not rest or len(sources) > SOURCES_MAX:
        raise Usage(_USAGE)
    return sources, refuse_s, rest


class _Rblsmtpd:
    """What one worker keeps between its connections: the program made ready, the answers of lists."""

    def __init__(self, sources: list[Source], refuse_s: int, following: Argv, env: Env) -> None:
        """Raises Temporary."""
        self._sources, self._refuse_s = sources, refuse_s
        self._lists = None
        if self._sources:
            from qm.rblsmtpd.lists import Lists  # see there

            try:
                self._lists = Lists(env.get(b"DNSCACHEIP", b""))
            except Exception as error:  # dnspython and its reader of /etc/resolv.conf raise many kinds
                detail = f"DNSCACHEIP or resolv.conf: {error}"
                raise errors.Temporary("cannot use the name servers", detail=detail) from error
        self._run = chain.prepare(following, env)
        if privs.is_root():  # what reads the network is never root
            privs.become(privs.role("qmaild", roles(env)))

    def serve(self, env: Env) -> int:
        """One connection on descriptors 0 and 1."""
        ip = env.get(b"TCPREMOTEIP", b"")
        verdict = self._judge(env, ip)
        if not verdict.blocked:
            return self._run(env)
        log.write(log.clean(b"rblsmtpd: %b pid %d: %b" % (ip, os.getpid(), verdict.message)))  # LITERAL
        _refuse(verdict.message, self._refuse_s)
        return errors.OK

    def _judge(self, env: Env, ip: bytes) -> Verdict:
        if b"RBLSMTPD" in env:
            return policy.told(env[b"RBLSMTPD"])
        if self._lists is None:
            return policy.SERVED
        return policy.judge(self._sources, ip, self._lists.questions())


def _refuse(message: bytes, limit_s: float) -> None:
    """Talk for at most *limit_s*; for 0, only say it."""
    deadline_s = time.monotonic() + limit_s
    channel = Channel(0, 1, limit_s or REFUSE_S)
    try:
        if not limit_s:
            channel.write(message + b"\r\n")
            return
        refuser = Refuser(message)
        while True:
            channel.write(refuser.outgoing())
            left_s = deadline_s - time.monotonic()
            if refuser.done or left_s <= 0:
                return
            channel.set_timeout(left_s)
            data = channel.read()
            if not data:
                return
            refuser.receive(data)
    except Gone:
        pass  # it has heard what it wanted, or its time is over
    finally:
        channel.hang_up()


def warm(argv: Argv, env: Env) -> chain.Runner:
    return _Rblsmtpd(*_parse(argv[1:]), env).serve


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    sources, refuse_s, following = _parse(argv[1:])
    if chain.is_warm(following, env):
        enter_home(env)  # as each program of ours does that starts by itself
    return _Rblsmtpd(sources, refuse_s, following, env).serve(env)
