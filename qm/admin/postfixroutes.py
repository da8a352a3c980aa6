"""Postfix's transports and networks, as lines of control/smtproutes, control/lmtproutes and tcp.smtp."""

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from typing import Final

from qm.admin.findings import AddLines, Finding
from qm.wire import smtproute
from qm.wire.maincf import BadSetting, logical_lines

_NEXT_HOP: Final = re.compile(r"(?:\[(?i:ipv6:)?([A-Za-z0-9_.:-]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?")
_HOST: Final = re.compile(r"(\.?)([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)")
_LMTP_PORT: Final = "24"  # lmtp_tcp_port
_CLIENTS: Final = ("", "smtp", "relay", "lmtp")  # transports whose work qm-remote does


class _Line:
    """A control file of one line, to be looked at as qm will."""

    def __init__(self, name: str, key: str, value: str) -> None:
        self._tables = {name: {key.encode(): value.encode()}}

    def table(self, name: str) -> Mapping[bytes, bytes]:
        return self._tables.get(name, {})


def socket_root(master_cf: str, queue_directory: str) -> tuple[str, str]:
    """Where a path of Postfix's lmtp(8) begins, one that is relative and one that is absolute: it may have a chroot."""
    try:
        for _, content in logical_lines(master_cf):
            fields = content.split()
            if fields[:2] == ["lmtp", "unix"] and fields[4:5] == ["y"]:
                return queue_directory, queue_directory
    except BadSetting:
        pass  # it is said elsewhere
    return queue_directory, "/"


class Transport:
    def __init__(self, home: str, roots: tuple[str, str]) -> None:
        """*roots* as `socket_root` gives them."""
        self._control = os.path.join(home, "control")
        self._roots = roots

    def finding(self, where: str, key: str, value: str) -> Finding:
        """``key transport:nexthop`` as a line of smtproutes or lmtproutes."""
        transport, _, hop = value.partition(":")
        host = "" if key == "*" else key
        file = "lmtproutes" if transport == "lmtp" else "smtproutes"
        if host and not _HOST.fullmatch(host):
            return Finding(where, f"{key} {value}: {file} has hosts only", False)
        if transport not in _CLIENTS:
            return Finding(where, f"{key} {value}: qm has no transport {transport}", False)
        if transport == "lmtp":
            return self._lmtp(where, host, hop) or Finding(where, f"{key} {value}: {file} has no such next hop", False)
        if not hop:
            return self._line(where, file, host, "", "by MX")
        match = _NEXT_HOP.fullmatch(hop)
        if match is None:
            return Finding(where, f"{key} {value}: {file} has no such next hop", False)
        said = "" if match[1] else "its MX records are not asked, only its addresses"
        return self._line(where, file, host, _server(match, ""), said)

    def _lmtp(self, where: str, host: str, hop: str) -> Finding | None:
        """``unix:path``, ``inet:server:port``, or the second without its beginning."""
        kind, _, path = hop.partition(":")
        if kind == "unix":
            if not path:
                return None
            root = self._roots[path.startswith("/")]
            place = os.path.normpath(os.path.join(root, path.lstrip("/")))
            return self._line(where, "lmtproutes", host, place, "qmailr must be able to connect to it")
        match = _NEXT_HOP.fullmatch(path if kind == "inet" else hop)
        return None if match is None else self._line(where, "lmtproutes", host, _server(match, _LMTP_PORT), "")

    def _line(self, where: str, file: str, host: str, value: str, said: str) -> Finding:
        line = f"{host}:{value}"
        try:
            smtproute.routes(_Line(file, host, value))
        except smtproute.BadRoute as error:
            return Finding(where, f"{error.detail}: {line}", False)
        path = os.path.join(self._control, file)
        shown = f"control/{file}: {line}{f' ({said})' * bool(said)}"
        return Finding(where, shown, True, (AddLines(path, (line,)),))


def _server(match: re.Match[str], port: str) -> str:
    relay = match[1] or match[2]
    relay = f"[{relay}]" if ":" in relay else relay
    port = match[3] or port
    return f"{relay}:{port}" if port else relay


def network_rules(word: str) -> Iterator[str]:
    """The addresses, as tcprules(1) has them, of a word of mynetworks; raises ValueError for one that has none."""
    network = ipaddress.ip_network(word.replace("[", "").replace("]", ""))
    if network.version == 6:
        if network.prefixlen != network.max_prefixlen:
            raise ValueError("tcprules has no such networks of IPv6")
        yield str(network.network_address)
        return
    whole, rest = divmod(network.prefixlen, 8)
    if not network.prefixlen:
        raise ValueError("everybody would be a relay client")
    numbers = str(network.network_address).split(".")
    before = "".join(f"{number}." for number in numbers[:whole])
    if not rest:
        yield before.removesuffix(".") if whole == len(numbers) else before
        return
    first = int(numbers[whole])
    last = first + (1 << (8 - rest)) - 1
    yield f"{before}{first}-{last}" + ("." if whole < len(numbers) - 1 else "")
