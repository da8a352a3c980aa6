"""sendmail: what other programs call to send mail (sendmail).

Usage:   sendmail [-tv] [-fsender] [-Fname] [-bm|-bp|-bs|-bi|-q] [-Nnotify] [-Rreturn] [-Venvid] [recipient ...]
Reads:   fd 0 (the message)
Env:     QMHOME, PROTO (-bs), QMAILQUEUE (-v); sets for inject QMAILUSER, QMAILHOST, MAILNAME, QMAILNOTIFY, QMAILRET,
         QMAILENVID; for smtpd RELAYCLIENT, DATABYTES, NOUSERCHECK, TCPLOCALIP and its like
Writes:  fd 1 (-bp, -bs, -v), fd 2 (what is wrong)
Asks:    inject, smtpd, qread, newaliases, each as the same process; -q signals the supervisor
As:      the caller
Exits:   0 done; 100 usage; else what inject, smtpd, qread or newaliases exits with
See:     sendmail(8), qmail.md 16.2
"""

from collections.abc import Callable
from contextlib import closing
from typing import Final, NamedTuple

from qm import errors
from qm.errors import Permanent, Temporary
from qm.unix import chain, log, standard
from qm.unix.options import parse
from qm.unix.program import Argv, Env, Usage, program

USAGE: Final = "usage: sendmail [-tv] [-fsender] [-Fname] [-bm|-bp|-bs|-bi|-q] [recipient ...]"
NAME: Final = b"sendmail"
SUPERVISOR: Final = "run/lock"

_FLAGS: Final = b"tvimxnGU"
_VALUED: Final = b"fFrbBepohLNRVOXCA"
_ATTACHED: Final = b"EJq"
_REPORTS: Final = {b"N": b"QMAILNOTIFY", b"R": b"QMAILRET", b"V": b"QMAILENVID"}
_NAMES: Final = (b"QMAILNAME", b"MAILNAME", b"NAME", b"QMAILHOST", b"MAILHOST")
_LOCAL_CLIENT: Final = {
    b"RELAYCLIENT": b"",
    b"NOUSERCHECK": b"",  # the caller may not ask userd, and may queue for anybody
    b"DATABYTES": b"0",
    b"PROTO": b"TCP",
    b"TCPLOCALIP": b"127.0.0.1",
    b"TCPLOCALHOST": b"localhost",
    b"TCPREMOTEIP": b"127.0.0.1",
    b"TCPREMOTEHOST": b"localhost",
    b"TCPREMOTEINFO": b"sendmail-bs",
}


class _Command(NamedTuple):
    mode: bytes  # m deliver, p list the queue, s SMTP, i aliases, q try the queue now
    from_header: bool
    sender: bytes | None
    name: bytes | None
    reports: dict[bytes, bytes]  # variables for inject
    recipients: list[bytes]
    verbose: bool = False


def _command(argv: Argv) -> _Command:
    options, recipients = parse(argv[1:], USAGE, flags=_FLAGS, valued=_VALUED, attached=_ATTACHED)
    given = dict(options)
    only_queue = b"q" in given and b"t" not in given and not recipients
    mode = given.get(b"b", b"q" if only_queue else b"m")
    reports = {_REPORTS[letter]: value for letter, value in options if letter in _REPORTS}
    sender = given.get(b"f", given.get(b"r"))
    return _Command(mode, b"t" in given, sender, given.get(b"F"), reports, recipients, b"v" in given)


def _author(sender: bytes, env: Env) -> Env:
    """Whoever is named by -f is also the author, unless it is nobody; -F does not count then (netqmail)."""
    local, at, host = sender.rpartition(b"@")
    if not at:
        local, host = sender, b""
    known = {name: value for name, value in env.items() if name not in _NAMES}
    return {**known, b"QMAILUSER": local, **({b"QMAILHOST": host} if host else {})}


def _deliver(command: _Command, env: Env) -> int:
    if not (command.from_header or command.recipients):
        raise Usage(f"no recipients; {USAGE}")
    env = {**env, **command.reports}
    if command.name is not None:
        env[b"MAILNAME"] = command.name
    words = [b"qm-inject", b"-H" if command.from_header else b"-a"]
    if command.sender is not None:
        words += [b"-f", command.sender]
        if command.sender not in (b"", b"<>"):
            env = _author(command.sender.removeprefix(b"<").removesuffix(b">"), env)
    inject = chain.prepare([*words, b"--", *command.recipients], env)
    return _show(inject, env) if command.verbose else inject(env)


def _show(inject: chain.Runner, env: Env) -> int:
    """Have the message queued, then show how it is delivered, as long as its first try lasts."""
    from qm.unix import following  # as in _try_now

    if env.get(b"QMAILQUEUE"):
        code = inject(env)
        if code == errors.OK:
            log.warning(NAME, "cannot follow the deliveries: QMAILQUEUE's program has the message")
        return code
    try:
        listener = following.Listener()
    except (OSError, Temporary) as error:
        log.warning(NAME, f"cannot follow the deliveries: {error}")
        return inject(env)
    with closing(listener):
        code = inject(env)
        if code == errors.OK:
            _hear(lambda: listener.hear(lambda line: standard.write(line + b"\n")))
        return code


def _hear(until_end: Callable[[], bool]) -> None:
    """Whatever happens here, the message is queued, and the caller must not send it again."""
    try:
        if not until_end():
            log.warning(NAME, "nothing more is said of the message; it is in the queue")
    except (OSError, errors.QmError) as error:
        log.warning(NAME, f"cannot follow the deliveries: {error}")


def _talk(env: Env) -> int:
    """SMTP on descriptors 0 and 1, with somebody who may send anywhere."""
    if b"PROTO" not in env:
        env = {**env, **_LOCAL_CLIENT}
    return chain.prepare([b"qm-smtpd"], env)(env)


def _list(env: Env) -> int:
    return chain.prepare([b"qm-qread"], env)(env)


def _aliases(env: Env) -> int:
    return chain.prepare([b"newaliases"], env)(env)


def _try_now(env: Env) -> int:
    """Have send try all mail now; it tries by itself anyway, when the time has come."""
    import signal  # rare, and the usual way shall start fast

    from qm.unix import owner

    running = owner.find(SUPERVISOR)
    if running is None:
        raise Temporary("the mail system does not run")
    try:
        running.signal(signal.SIGALRM)
    except PermissionError as error:
        raise Permanent("only root and the mail system's owner may ask for that") from error
    return errors.OK


@program()
def main(argv: Argv, env: Env) -> int:
    command = _command(argv)
    if command.mode == b"m":
        return _deliver(command, env)
    modes = {b"s": _talk, b"p": _list, b"i": _aliases, b"q": _try_now}
    if command.mode not in modes:
        raise Usage(USAGE)
    return modes[command.mode](env)
