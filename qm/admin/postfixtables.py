"""Postfix's tables of transports and aliases, as control files and databases of fastforward.

What aliases lead to is a text in alias/, which is compiled there: `aliases` for sendmail's format, `virtual` in
setforward's for virtual_alias_maps.  alias/.qmail-default asks both for the names of nobody, and
alias/.qmail-virtual-default the second for virtual domains.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Final

from qm.admin.action import Write, read
from qm.admin.findings import AddLines, Compile, Finding, kept, text_of
from qm.disk import cdb
from qm.wire import aliases, forwarding
from qm.wire.forwarding import BadForward, Command

_NEXT_HOP: Final = re.compile(r"(?:\[([A-Za-z0-9_.:-]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?")
_HOST: Final = re.compile(r"(\.?)([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)")
_PREFIX: Final = "alias-virtual"
_ASKERS: Final = {  # .qmail files, and the option: -p leaves what it does not know to the next line
    "virtual": {".qmail-virtual-default": "-d", ".qmail-default": "-dp"},
    "aliases": {".qmail-default": "-d"},
}
_Compiler = Callable[[bytes], list[tuple[bytes, bytes]]]


class Transport:
    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "control/smtproutes")

    def finding(self, where: str, key: str, value: str) -> Finding:
        """``key transport:nexthop`` as a line of smtproutes."""
        transport, _, hop = value.partition(":")
        host = "" if key == "*" else key
        if host and not _HOST.fullmatch(host):
            return Finding(where, f"{key} {value}: smtproutes has hosts only", False)
        if transport not in ("", "smtp", "relay"):
            return Finding(where, f"{key} {value}: smtproutes has no transport {transport}", False)
        if not hop:
            return self._line(where, f"{host}:", "by MX")
        match = _NEXT_HOP.fullmatch(hop)
        if match is None:
            return Finding(where, f"{key} {value}: smtproutes has no such next hop", False)
        relay = match[1] or match[2]
        relay = f"[{relay}]" if ":" in relay else relay
        said = "" if match[1] else "its MX records are not asked, only its addresses"
        return self._line(where, f"{host}:{relay}" + (f":{match[3]}" if match[3] else ""), said)

    def _line(self, where: str, line: str, said: str) -> Finding:
        shown = f"control/smtproutes: {line}{f' ({said})' * bool(said)}"
        return Finding(where, shown, True, (AddLines(self._path, (line,)),))


class Aliases:
    """sendmail's alias files, put one behind the other."""

    def __init__(self, home: str, host: str) -> None:
        self._home = home
        self._host = host.encode()
        self._texts: list[str] = []

    def findings(self, path: str) -> Iterator[Finding]:
        text = text_of(path)
        try:
            found = aliases.parse(text.encode(), self._host)
        except BadForward as error:
            line, _, why = str(error).partition(": ")
            yield Finding(f"{path}:{line}", f"{why}; none of the file is taken", False)
            return
        for warning in found.warnings:
            line, _, why = warning.partition(": ")
            yield Finding(f"{path}:{line}", why, False)
        self._texts.append(text if text.endswith("\n") or not text else text + "\n")
        yield Finding(path, f"alias/aliases: {sum(e.key[:1] == b':' for e in found.entries)} aliases; they do not count"
                      " for names of users", True)  # fmt: skip

    def compiled(self) -> Iterator[Finding]:
        if self._texts:
            yield from _database(self._home, "aliases", "".join(self._texts), self._compile)
            path = os.path.join(self._home, "control/aliasfile")
            yield Finding(path, "alias/aliases, for newaliases", True, (Write(path, "alias/aliases\n"),))

    def _compile(self, text: bytes) -> list[tuple[bytes, bytes]]:
        return [(entry.key, forwarding.encode(entry.commands)) for entry in aliases.parse(text, self._host).entries]


def _compile_forward(text: bytes) -> list[tuple[bytes, bytes]]:
    return [(entry.key, forwarding.encode(entry.commands)) for entry in forwarding.parse(text)]


class Virtual:
    def __init__(self, home: str, host: str) -> None:
        self._home = home
        self._host = host.encode()
        self._entries: dict[bytes, list[Command]] = {}

    def domain(self, where: str, name: str) -> Finding:
        actions = (
            AddLines(os.path.join(self._home, "control/rcpthosts"), (name,)),
            AddLines(os.path.join(self._home, "control/virtualdomains"), (f"{name}:{_PREFIX}",)),
        )
        return Finding(where, f"control/virtualdomains, control/rcpthosts: {name}", True, actions)

    def row(self, where: str, key: str, value: str) -> Iterator[Finding]:
        """``user@domain``, ``@domain`` or ``user``, and addresses; a key without @ and with a dot is a domain."""
        _, at, domain = key.rpartition("@")
        if not at and "." in key:
            return
        addresses = value.replace(",", " ").split()
        if any(address.startswith("@") for address in addresses):
            yield Finding(where, f"{key} {value}: a domain cannot be forwarded name by name", False)
            return
        try:
            found = [command for address in addresses for command in aliases.commands(address.encode(), self._host)]
        except ValueError as error:
            yield Finding(where, f"{key} {value}: {error}", False)
            return
        target = (key if at else f"{key}@").encode()
        self._entries.setdefault(forwarding.key(target), found)
        note = "" if at and domain else "; not for names of users"
        yield Finding(where, f"alias/virtual: {target.decode()}{note}", True)

    def compiled(self, where: str) -> Iterator[Finding]:
        if self._entries:
            text = b"".join(forwarding.unparse(key, commands) for key, commands in self._entries.items())
            yield from _database(self._home, "virtual", text.decode(), _compile_forward)


def _database(home: str, name: str, text: str, compiled: _Compiler) -> Iterator[Finding]:
    """alias/NAME, its cdb, and the .qmail files that ask it."""
    path = os.path.join(home, "alias", name)
    why = kept(path, text)

    def compile_it() -> None:
        cdb.write(f"{path}.cdb", compiled((read(path) or "").encode()))

    actions = (Write(path, text), Compile(f"{path}.cdb", (path,), compile_it))
    yield Finding(path, why or "and its cdb", not why, () if why else actions)
    for file, option in _ASKERS[name].items():
        asker = os.path.join(home, "alias", file)
        line = f"|fastforward {option} {name}.cdb"
        yield Finding(asker, line, True, (AddLines(asker, (line,)),))
