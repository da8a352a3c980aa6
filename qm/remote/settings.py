"""The control files of remote, and resolv.conf(5), as one value that is read again when they change."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from qm.disk.control import BadControl, Controls
from qm.remote import policy
from qm.remote.resolver import Server, server
from qm.remote.talk import Timeouts
from qm.unix import tlscontext
from qm.wire import serveraddress, smtproute, tlspolicy
from qm.wire.smtpclient import Step

RESOLV_CONF: Final = "/etc/resolv.conf"
SERVERS_MAX: Final = 3  # of resolv.conf(5)
_LOOPBACK: Final = (policy.network(b"127.0.0.0/8"), policy.network(b"::1"))
RECHECK_S: Final = 1.0  # how often the files are looked at, at most

_PHASES: Final = {
    Step.GREETING: "timeoutgreeting",
    Step.EHLO: "timeouthelo",
    Step.HELO: "timeouthelo",
    Step.LHLO: "timeouthelo",
    Step.AUTH: "timeouthelo",
    Step.STARTTLS: "timeouthelo",
    Step.RSET: "timeoutmail",
    Step.MAIL: "timeoutmail",
    Step.RCPT: "timeoutrcpt",
    Step.DATA: "timeoutdatainit",
    Step.CHUNK: "timeoutdatadone",
    Step.LAST_CHUNK: "timeoutdatadone",
    Step.TEXT: "timeoutdatadone",
}
CONTROLS: Final = (
    "dnsservers",
    "dnstrusted",
    "ehloignore",
    "helohost",
    "ipfamily",
    "moreipme",
    "notipme",
    "remoteaddresses",
    "remotemessages",
    *smtproute.CONTROLS,
    "stsport",
    "timeoutconnect",
    "timeoutdatasend",
    "timeoutdns",
    "timeoutremote",
    "timeouttls",
    "tlspolicy",
    "tlsroots",
    *dict.fromkeys(_PHASES.values()),
)


class Settings(NamedTuple):
    helohost: bytes
    routes: smtproute.Routes
    ehloignore: Mapping[bytes, bytes]
    ipfamily: Mapping[bytes, bytes]
    moreipme: tuple[policy.Network, ...]
    notipme: tuple[policy.Network, ...]
    servers: tuple[Server, ...]
    timeoutdns: int
    addresses_max: int
    messages_max: int  # in one session
    timeouts: Timeouts
    tlspolicy: Mapping[bytes, bytes]
    stsport: int  # 0: no MTA-STS
    tlsroots: str  # a file, or a directory with a / at its end; empty: the system's


def _bad(name: str, value: bytes, why: str) -> BadControl:
    return BadControl("a control file is broken", detail=f"control/{name}: {policy.shown(value)}: {why}")


def _helohost(name: bytes) -> bytes:
    if not name or b" " in name or not (name.isascii() and name.decode().isprintable()):
        raise _bad("helohost", name, "not a host's name")
    return name


def _networks(controls: Controls, name: str) -> tuple[policy.Network, ...]:
    found = []
    for line in controls.lines(name):
        try:
            found.append(policy.network(line))
        except ValueError as error:
            raise _bad(name, line, "not address[/mask]") from error
    return tuple(found)


def _families(controls: Controls) -> Mapping[bytes, bytes]:
    table = controls.table("ipfamily")
    for key, value in table.items():
        if value not in policy.FAMILIES:
            raise _bad("ipfamily", key, "neither 4, 6, 46 nor 64")
    return table


def _trusted(controls: Controls) -> tuple[policy.Network, ...]:
    """Without the file, servers of this host: nobody is between us and them (RFC 7672 2.2)."""
    if controls.present("dnstrusted"):
        return _networks(controls, "dnstrusted")
    return _LOOPBACK


def _resolv_conf() -> tuple[Server, ...]:
    """The nameserver lines of resolv.conf(5); without any, this host, as the C library does."""
    found = []
    try:
        with open(RESOLV_CONF, "rb") as file:
            lines = file.read(65536).splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == b"nameserver":
            try:
                found.append(server(words[1].decode("ascii")))
            except ValueError:
                continue  # the C library skips such lines too
    return tuple(found[:SERVERS_MAX]) or (server("127.0.0.1"),)


def _servers(controls: Controls) -> tuple[Server, ...]:
    found = []
    for line in controls.lines("dnsservers"):
        try:
            found.append(server(*serveraddress.parse(line, 53)))
        except ValueError as error:
            raise _bad("dnsservers", line, "not address[:port]") from error
    trusted = _trusted(controls)
    return tuple(
        known._replace(trusted=policy.is_in(known.address, trusted)) for known in tuple(found) or _resolv_conf()
    )


def _timeouts(controls: Controls) -> Timeouts:
    most_s = controls.number("timeoutremote")

    def phase_s(name: str) -> int:
        return max(1, min(most_s, controls.number(name)))

    answers = {step: phase_s(name) for step, name in _PHASES.items()}
    connect_s = max(1, controls.number("timeoutconnect"))
    return Timeouts(connect_s, answers, phase_s("timeoutdatasend"), phase_s("timeouttls"))


def settings(controls: Controls) -> Settings:
    """What the control files say; raises BadControl for what makes no sense."""
    tlspolicy.check(controls.table("tlspolicy"))
    return Settings(
        _helohost(controls.line("helohost")),
        smtproute.routes(controls),
        controls.table("ehloignore"),
        _families(controls),
        _networks(controls, "moreipme"),
        _networks(controls, "notipme"),
        _servers(controls),
        max(1, controls.number("timeoutdns")),
        max(1, controls.number("remoteaddresses")),
        max(1, controls.number("remotemessages")),
        _timeouts(controls),
        controls.table("tlspolicy"),
        controls.number("stsport"),
        tlscontext.roots(controls.line("tlsroots")),
    )


def _resolv_stamp() -> int:
    try:
        return os.stat(RESOLV_CONF).st_mtime_ns
    except OSError:
        return 0


class Config:
    """The settings of now; raises BadControl at first, and later keeps the last good ones and says so to *complain*."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._controls = Controls(CONTROLS)
        self._settings = settings(self._controls)
        self._resolv_stamp = _resolv_stamp()
        self._checked_s = time.monotonic()

    def current(self) -> Settings:
        now_s = time.monotonic()
        if now_s - self._checked_s >= RECHECK_S:
            self._checked_s = now_s
            self._refresh()
        return self._settings

    def _refresh(self) -> None:
        stamp = _resolv_stamp()
        changed = self._controls.refresh(self._complain) or stamp != self._resolv_stamp
        self._resolv_stamp = stamp
        if not changed:
            return
        try:
            self._settings = settings(self._controls)
        except BadControl as error:
            self._complain(f"{error.detail}; keeping the last good value")
