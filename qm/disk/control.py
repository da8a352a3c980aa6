"""Control files: one table of all of them, and the readers of their four kinds (qmail.md 2.4, section 23).

The table is the manual: qm-control(5) and qm-showctl print it.  A broken file is refused with its name and line; a
program that runs keeps the last good values, and says so once for each change.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from qm.errors import Temporary

SIZE_MAX: Final = 16 * 1024 * 1024  # bytes of one control file
Value = bytes | int | tuple[bytes, ...] | dict[bytes, bytes] | None


class Kind(Enum):
    LINE = "one line"
    INT = "a number"
    LIST = "a list, one entry a line"
    TABLE = "key:value lines"


class BadControl(Temporary):
    """A control file that we will not act on; *detail* is ``control/NAME:LINE: why``."""


class Control(NamedTuple):
    name: str
    kind: Kind
    default: bytes | int | None  # a literal; ME: the content of control/me; None: not set
    readers: str  # the programs that read it
    text: str  # one line for the manual
    unit: str = ""
    secret: bool = False  # for its owner alone to read, and shown to nobody


ME: Final = b"\0me"  # as a default: what control/me says
L, N, S, T = Kind.LINE, Kind.INT, Kind.LIST, Kind.TABLE

TABLE: Final[dict[str, Control]] = {
    c.name: c
    for c in (
        Control("me", L, None, "all", "This host's name; the default of many others."),
        Control("acme", S, None, "qm", "Where qm cert renew gets certificates, and which; see qm(8)."),
        Control("aliasfile", L, b"/etc/aliases", "newaliases", "sendmail's alias file; its .cdb is what it becomes."),
        Control("authcachetime", N, 60, "userd", "How long a verified login is remembered; 0 does not.", "s"),
        Control("authclear", N, 0, "smtpd, popup", "1: AUTH is offered without TLS, where logins are taken."),
        Control("authfailaccount", N, 100, "userd", "Failed logins of a name; then strangers are refused.", "failures"),
        Control("authfailaddress", N, 20, "userd", "Failed logins of an address or IPv6 /64; 0: no limit.", "failures"),
        Control("authfaildelay", N, 2, "userd, popup", "How long a refused login waits; doubles with each more.", "s"),
        Control("authfailtime", N, 3600, "userd", "The time in which so many may fail.", "s"),
        Control("authmechanisms", S, None, "userd", "SASL mechanisms to offer; none: those that serve every login."),
        Control("authsenders", S, None, "userd", "More senders of a login: login:address, login:@domain, login:*."),
        Control("badmailfrom", S, None, "smtpd", "Senders that are refused: addresses, or @domain."),
        Control("bouncefrom", L, b"MAILER-DAEMON", "send", "Local part of the address that bounces come from."),
        Control("bouncehost", L, ME, "send", "Host of the address that bounces come from."),
        Control("bouncemaxbytes", N, 50000, "send", "Larger messages come back as header only; 0: none.", "bytes"),
        Control("concurrencylocal", N, 10, "send", "Local deliveries at once; 0 holds them.", "deliveries"),
        Control("concurrencylogin", N, 4, "userd", "Passwords that are checked at once; read at start.", "checks"),
        Control("concurrencyqueue", N, 120, "queued", "Messages that are taken in at once.", "connections"),
        Control("concurrencyremote", N, 20, "send, rspawn", "Remote deliveries at once; 0 holds them.", "deliveries"),
        Control("concurrencytls", N, 400, "tlsd", "Sessions under TLS at once; read at start.", "sessions"),
        Control("concurrencyuserd", N, 400, "userd", "Programs that are connected to it at once.", "connections"),
        Control("databytes", N, 52428800, "smtpd", "Largest message; 0: no limit.", "bytes"),
        Control("defaultdomain", L, ME, "inject, smtpd", "Domain for hosts without a dot."),
        Control("defaulthost", L, ME, "inject, smtpd", "Host for addresses without @."),
        Control("delaywarning", N, 0, "send", "Age at which a sender is warned that mail waits; 0: never.", "s"),
        Control("dnsservers", S, None, "config, remote", "DNS servers, address[:port]; none: /etc/resolv.conf."),
        Control("dnstrusted", S, None, "remote", "DNS servers believed about DNSSEC, address[/mask]; or loopback."),
        Control("doublebouncehost", L, ME, "send", "Host of doublebounceto."),
        Control("doublebounceto", L, b"postmaster", "send", "Who gets bounces that bounce."),
        Control("ehloignore", T, None, "remote", "EHLO keywords not to use: host:KEYWORD KEYWORD; keys as smtproutes."),
        Control("envnoathost", L, ME, "send, userd", "Host for recipients without @."),
        Control("helohost", L, ME, "remote", "Our name in HELO and EHLO."),
        Control("hideclient", N, 0, "smtpd", "1: a submitted message does not tell where its author was."),
        Control("idhost", L, ME, "inject, smtpd", "Host in the Message-IDs that we make."),
        Control("ipfamily", T, None, "remote", "4, 6, 46 or 64: IP versions and their order; keys as smtproutes."),
        Control("lmtproutes", T, None, "send, rspawn, remote", "LMTP: host:/socket, host:server:port; as smtproutes."),
        Control("localiphost", L, ME, "smtpd", "Host for recipients at our own address in brackets."),
        Control("locals", S, ME, "send, userd", "Domains whose mail is delivered here."),
        Control("limitdomains", N, 500, "userd", "Domains that a login may write to in an hour; 0: all.", "domains"),
        Control("limitheld", N, 100, "queued", "Messages of a login over a limit that are held at once.", "messages"),
        Control("limitmessages", N, 1000, "userd", "Messages that a login may send in an hour; 0: all.", "messages"),
        Control("limitrecipients", N, 5000, "userd", "Recipients of a login in an hour; 0: all.", "recipients"),
        Control("logins", S, None, "userd", "Who lets in: passwd, system, pam, program X, oauthbearer X."),
        Control("logformat", L, b"qmail", "log", "qmail: lines as qmail's; json: an object a line."),
        Control("logsize", N, 16777216, "log", "Size at which log/current is put away.", "bytes"),
        Control("lognumber", N, 10, "log", "How many old log files are kept.", "files"),
        Control("maxcommands", N, 200, "smtpd", "Commands without mail before the end; 0: no limit.", "commands"),
        Control("maxerrors", N, 20, "smtpd, popup", "Refused commands before the end; 0: no limit.", "replies"),
        Control("maxhops", N, 100, "smtpd", "Received and Delivered-To fields that make a loop.", "fields"),
        Control("maxline", N, 4096, "smtpd", "Longest command line.", "bytes"),
        Control("maxlogins", N, 3, "popup", "Refused logins before the connection is closed.", "logins"),
        Control("maxrcptperdelivery", N, 50, "send", "Recipients of one host in one delivery.", "recipients"),
        Control("maxrecipients", N, 1000, "smtpd, qmtpd", "Recipients of one message; 0: no limit.", "recipients"),
        Control("moreipme", S, None, "remote", "More addresses that are this host: address[/mask]."),
        Control("morercpthosts", S, None, "smtpd", "More of rcpthosts, compiled to morercpthosts.cdb."),
        Control("notipme", S, None, "remote", "Addresses that are not this host after all: address[/mask]."),
        Control("percenthack", S, None, "send, userd", "Domains in whose addresses user%host is rewritten."),
        Control("plusdomain", L, ME, "inject, smtpd", "Domain for hosts that end in +."),
        Control("pop3apop", N, 0, "popup", "1: offer APOP, which needs passwords stored in plain text."),
        Control("qmqpservers", S, None, "qmqpc", "Machines whose queue we use, in turn: address, or address:port."),
        Control("queuelifetime", N, 604800, "send", "How long a message is tried.", "s"),
        Control("rcpthosts", S, ME, "smtpd", "Domains that mail is taken for; .domain means all hosts below it."),
        Control("remoteaddresses", N, 10, "remote", "Addresses tried in one delivery.", "addresses"),
        Control("remoteidle", N, 5, "rspawn", "How long a session is kept for the next message.", "s"),
        Control("remotemessages", N, 100, "remote", "Messages in one session.", "messages"),
        Control("roles", T, None, "all", "Users of the programs: name:uid:gid."),
        Control("smtpauth", S, None, "rspawn", "Logins at relays: relay:port name password; mode 0600.", secret=True),
        Control("smtpgreeting", L, ME, "smtpd", "What the SMTP greeting says, this host's name first."),
        Control("smtproutes", T, None, "send, rspawn, remote", "Relays: host:relay:port; .domain, empty; none: MX."),
        Control("stsport", N, 443, "remote", "Port of the servers of MTA-STS policies; 0: no MTA-STS."),
        Control("timeoutconnect", N, 60, "remote", "How long a server may take to accept a connection.", "s"),
        Control("timeoutdata", N, 180, "smtpd", "How long smtpd waits for the next piece of a message.", "s"),
        Control("timeoutdatadone", N, 600, "remote", "How long it may take to accept a message.", "s"),
        Control("timeoutdatainit", N, 120, "remote", "How long it may take to answer DATA.", "s"),
        Control("timeoutdatasend", N, 180, "remote", "How long it may take to take 256 KiB of a message.", "s"),
        Control("timeoutdns", N, 20, "remote", "How long DNS servers may take.", "s"),
        Control("timeoutgreeting", N, 300, "remote", "How long a server may take to greet.", "s"),
        Control("timeouthelo", N, 300, "remote", "How long it may take to answer EHLO and HELO.", "s"),
        Control("timeoutlogin", N, 30, "userd", "How long PAM or a checkpassword may take.", "s"),
        Control("timeoutmail", N, 300, "remote", "How long it may take to answer MAIL and RSET.", "s"),
        Control("timeoutpop3d", N, 600, "popup", "How long POP3 waits for its client; at least 600 by RFC 1939.", "s"),
        Control("timeoutqueue", N, 1200, "queued", "How long the queue waits for the next piece of a message.", "s"),
        Control("timeoutprogram", N, 86400, "local", "How long a program of a .qmail file may run.", "s"),
        Control("timeoutrcpt", N, 300, "remote", "How long it may take to answer RCPT.", "s"),
        Control("timeoutremote", N, 1200, "remote", "An upper bound of all these but timeoutconnect.", "s"),
        Control("timeouttls", N, 60, "smtpd, popup, tls, remote", "How long a TLS handshake may take.", "s"),
        Control("timeoutsmtpd", N, 300, "smtpd", "How long smtpd waits for a command.", "s"),
        Control("tlspolicy", T, None, "remote", "domain:level name ...; keys as smtproutes; see qm-remote(8)."),
        Control(
            "tlsroots",
            L,
            None,
            "remote, checkpassword-ldap, checkpassword-oauth, qm",
            "Certificates to trust, a file or directory, instead of the system's.",
        ),
        Control("virtualdomains", T, None, "send, userd", "Whose: domain:user, user@domain:user, .domain:user, :user."),
    )
}


def _text_lines(data: bytes) -> list[tuple[int, bytes]]:
    """Numbered lines without trailing blanks, comments and empty ones."""
    lines = ((count, line.rstrip(b" \t\n")) for count, line in enumerate(data.split(b"\n"), 1))
    return [(count, line) for count, line in lines if line and not line.startswith(b"#")]


def _parse(control: Control, data: bytes) -> Value:
    where = f"control/{control.name}"
    if b"\0" in data:
        raise BadControl("a control file is broken", detail=f"{where}:{data[: data.index(0)].count(10) + 1}: NUL byte")
    if control.kind is Kind.LINE:
        return data.split(b"\n", 1)[0].rstrip(b" \t")
    if control.kind is Kind.INT:
        text = data.split(b"\n", 1)[0].strip()
        if not text.isdigit() or len(text) > 18:
            raise BadControl("a control file is broken", detail=f"{where}:1: not a number of {control.unit}")
        return int(text)
    lines = _text_lines(data)
    if control.kind is Kind.LIST:
        return tuple(line for _, line in lines)
    for count, line in lines:
        if b":" not in line:
            raise BadControl("a control file is broken", detail=f"{where}:{count}: no colon")
    # a later line wins (qmail.md 27.1)
    return dict(_pair(line) for _, line in lines)


def _pair(line: bytes) -> tuple[bytes, bytes]:
    """Key, in lower case, and value; colons in the brackets of an address, ``[IPv6:::1]``, are the key's."""
    bracket = line.find(b"]") if line.startswith(b"[") else -1
    colon = line.find(b":", bracket + 1)
    if colon < 0:
        colon = line.index(b":")
    return line[:colon].lower(), line[colon + 1 :]


_Stamp = tuple[int, ...]


class Controls:
    """A snapshot of some control files, that `refresh` brings up to date."""

    def __init__(self, names: Iterable[str], directory: str = "control") -> None:
        """Read *names*; raises BadControl, also for a file that cannot be read or has an unsafe mode."""
        self._directory = directory
        self._names = tuple(dict.fromkeys(("me", *names)))
        self._stamps: dict[str, _Stamp | None] = {}
        self._values: dict[str, Value] = {}
        for name in self._names:
            self._read(name, self._stamp(name))

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _stamp(self, name: str) -> _Stamp | None:
        """What differs when the file does; None if there is none."""
        try:
            status = os.stat(self._path(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            return (error.errno or 0,)  # reading it will fail alike, and say why
        return status.st_mode, status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self, name: str, stamp: _Stamp | None) -> None:
        self._stamps[name] = stamp  # first: what is wrong with it is said once
        value = None if stamp is None else _parse(TABLE[name], self._content(name))
        if name == "me" and self._values.get(name) and not value:
            raise self._nameless()
        self._values[name] = value

    def _content(self, name: str) -> bytes:
        try:
            with open(self._path(name), "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(SIZE_MAX + 1)
        except OSError as error:
            raise BadControl("cannot read a control file", detail=f"{self._path(name)}: {error.strerror}") from error
        if mode & 0o002:
            detail = f"{self._path(name)}: writable by everybody; chmod o-w"
            raise BadControl("a control file is not safe", detail=detail)
        if TABLE[name].secret and mode & 0o077:
            detail = f"{self._path(name)}: others can read it; chmod 0600"
            raise BadControl("a control file is not safe", detail=detail)
        if len(data) > SIZE_MAX:
            raise BadControl("cannot read a control file", detail=f"{self._path(name)}: larger than {SIZE_MAX} bytes")
        return data

    def refresh(self, complain: Callable[[str], None]) -> bool:
        """Read again what has changed; whether anything has.

        A broken file keeps its last good value, said to *complain* once.
        """
        changed = False
        for name in self._names:
            try:
                stamp = self._stamp(name)
                if stamp == self._stamps[name]:
                    continue
                self._read(name, stamp)
                changed = True
            except BadControl as error:
                complain(f"{error.detail}; keeping the last good value")
        return changed

    def _default(self, name: str) -> bytes | int | None:
        default = TABLE[name].default
        return self.me() if default == ME else default

    def present(self, name: str) -> bool:
        return self._values[name] is not None

    def me(self) -> bytes:
        """This host's name; raises BadControl when control/me is missing or empty."""
        value = self._values["me"]
        if not isinstance(value, bytes) or not value:
            raise self._nameless()
        return value

    def _nameless(self) -> BadControl:
        detail = f"{self._path('me')}:1: missing or empty; write the host's name into it"
        return BadControl("this host has no name", detail=detail)

    def line(self, name: str) -> bytes:
        """Value of a line; without file and default, b""."""
        value = self._values[name]
        if value is None:
            value = self._default(name)
        return value if isinstance(value, bytes) else b""

    def number(self, name: str) -> int:
        value = self._values[name]
        if value is None:
            value = TABLE[name].default
        assert isinstance(value, int)
        return value

    def lines(self, name: str) -> tuple[bytes, ...]:
        """Entries of a list; without file, control/me where that is the default, else none."""
        value = self._values[name]
        if value is None:
            default = self._default(name)
            return (default,) if isinstance(default, bytes) else ()
        assert isinstance(value, tuple)
        return value

    def table(self, name: str) -> Mapping[bytes, bytes]:
        """Keys in lower case to values; without file, empty."""
        value = self._values[name]
        return value if isinstance(value, dict) else {}
