"""What a session goes by: a snapshot of the control files, and who has connected (qmail.md 15.1, 15.2)."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from qm.wire.secured import Secured, secured_by
from qm.wire.smtplimits import Limits
from qm.wire.userquery import Login

# What `rules` reads
CONTROLS: Final = (
    "authclear",
    "badmailfrom",
    "databytes",
    "defaultdomain",
    "defaulthost",
    "hideclient",
    "idhost",
    "localiphost",
    "maxcommands",
    "maxerrors",
    "maxhops",
    "maxline",
    "maxrecipients",
    "plusdomain",
    "rcpthosts",
    "smtpgreeting",
    "timeoutdata",
    "timeoutsmtpd",
    "timeouttls",
)
LINE_MIN: Final = 512  # bytes; RFC 5321 4.5.3.1.4: a shorter command line must not be refused
ENV_MAX: Final = 255  # bytes of a variable that goes into Received and the log


class Source(Protocol):
    """The control files, as qm.disk.control.Controls has them."""

    def me(self) -> bytes: ...

    def present(self, name: str) -> bool: ...

    def line(self, name: str) -> bytes: ...

    def lines(self, name: str) -> tuple[bytes, ...]: ...

    def number(self, name: str) -> int: ...


class Rules(NamedTuple):
    me: bytes
    greeting: bytes
    localiphost: bytes
    rcpthosts: frozenset[bytes]  # in lower case
    badmailfrom: frozenset[bytes]  # in lower case
    databytes: int
    maxhops: int
    maxrecipients: int
    limits: Limits
    command_s: int
    data_s: int
    tls_s: int = 60
    authhost: bytes = b""  # our name in AUTH
    authclear: bool = False  # passwords may come in clear
    hideclient: bool = False
    lmtp: bool = False  # the protocol is LMTP (RFC 2033)


class Peer(NamedTuple):
    """Who has connected, as the environment of tcpserver or ipcserver tells."""

    ip: bytes
    host: bytes
    info: bytes  # empty: not known
    local_ip: bytes
    relay: bytes | None  # RELAYCLIENT: may send anywhere, with this appended to each recipient
    databytes: int | None  # DATABYTES: instead of the control file
    asks_userd: bool = True  # NOUSERCHECK: a local user's own session, who could bypass us anyway
    forcetls: bool = False  # FORCETLS: nothing in clear
    submission: bool = False  # SUBMISSION: mail of our own users, who log in (RFC 6409)
    secured: Secured | None = None  # what TLS agreed on
    auth: bool = False  # logins are taken
    login: Login | None = None
    dsn: bool = True  # without QMAILQUEUE, whose program is told addresses only


def rules(controls: Source, host: bytes = b"", *, lmtp: bool = False) -> Rules:
    """The rules that CONTROLS make; raises BadControl without a name for this host.

    *host* is the command line's, which takes logins in clear as qmail-smtpd with AUTH does.
    """
    return Rules(
        me=controls.me(),
        greeting=controls.line("smtpgreeting"),
        localiphost=controls.line("localiphost"),
        rcpthosts=frozenset(host.lower() for host in controls.lines("rcpthosts")),
        badmailfrom=frozenset(sender.lower() for sender in controls.lines("badmailfrom")),
        databytes=controls.number("databytes"),
        maxhops=controls.number("maxhops"),
        maxrecipients=controls.number("maxrecipients"),
        limits=Limits(
            max(LINE_MIN, controls.number("maxline")),
            controls.number("maxerrors"),
            controls.number("maxcommands"),
        ),
        command_s=max(1, controls.number("timeoutsmtpd")),  # qmail.md 15.2
        data_s=max(1, controls.number("timeoutdata")),
        tls_s=max(1, controls.number("timeouttls")),
        authhost=host or controls.me(),
        authclear=bool(host) or controls.number("authclear") > 0,
        hideclient=controls.number("hideclient") > 0,
        lmtp=lmtp,
    )


def peer(env: Mapping[bytes, bytes], *, auth: bool = False) -> Peer:
    """*auth*: logins are taken, also without SUBMISSION."""
    databytes = env.get(b"DATABYTES", b"")
    host, info = env.get(b"TCPREMOTEHOST", b"unknown"), env.get(b"TCPREMOTEINFO", b"")
    if env.get(b"PROTO") == b"IPC":  # ipcserver
        host, info = b"localhost", b"uid-" + env.get(b"IPCREMOTEEUID", b"")
    return Peer(
        env.get(b"TCPREMOTEIP", b"unknown")[:ENV_MAX],
        host[:ENV_MAX],
        info[:ENV_MAX],
        env.get(b"TCPLOCALIP", b""),
        env.get(b"RELAYCLIENT"),
        int(databytes) if databytes.isdigit() and len(databytes) <= 18 else None,
        b"NOUSERCHECK" not in env,
        b"FORCETLS" in env,
        b"SUBMISSION" in env,
        secured_by(env),
        auth or b"SUBMISSION" in env,
        dsn=not env.get(b"QMAILQUEUE"),
    )


def size_limit(rules: Rules, peer: Peer) -> int:
    """The largest message in bytes; 0: no limit."""
    return rules.databytes if peer.databytes is None else peer.databytes
