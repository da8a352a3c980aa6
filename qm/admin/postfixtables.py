"""Postfix's tables of aliases, as databases of fastforward.

What aliases lead to is a text in alias/, which is compiled there: `aliases` for sendmail's format, `virtual` in
setforward's for virtual_alias_maps.  alias/.qmail-default asks both for the names of nobody.  Addresses whose domain is
not local come to the second by a line of virtualdomains and alias/.qmail-virtual-default; so do names of the first, by
alias/.qmail-aliases-default, at a domain that an LMTP server has otherwise.  Where the alias user is no account, what
virtualdomains puts before them is not taken off: then .qmail-alias-virtual-default and the like count.
"""

import os
from collections.abc import Callable, Collection, Iterator
from typing import Final

from qm.admin.action import Write, read
from qm.admin.findings import AddLines, Compile, Finding, kept, text_of
from qm.disk import cdb
from qm.wire import aliases, forwarding
from qm.wire.forwarding import BadForward, Command

_PREFIX: Final = "alias-virtual"
_PREFIX_OF_ALIASES: Final = "alias-aliases"
_ASKERS: Final = {  # .qmail files, and the option: -p leaves what it does not know to the next line
    "virtual": {".qmail-virtual-default": "-d", ".qmail-alias-virtual-default": "-d", ".qmail-default": "-dp"},
    "aliases": {".qmail-default": "-d"},
}
_Compiler = Callable[[bytes], list[tuple[bytes, bytes]]]


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

    def compiled(self, lmtp: Collection[str]) -> Iterator[Finding]:
        """*lmtp* are domains whose other mail an LMTP server gets."""
        if self._texts and lmtp:
            yield from self._before(lmtp)
        if self._texts:
            yield from _database(self._home, "aliases", "".join(self._texts), self._compile)
            path = os.path.join(self._home, "control/aliasfile")
            yield Finding(path, "alias/aliases, for newaliases", True, (Write(path, "alias/aliases\n"),))

    def _before(self, domains: Collection[str]) -> Iterator[Finding]:
        """Postfix's local(8) looks at aliases before its mailbox_transport."""
        keys = [key for key, _ in self._compile("".join(self._texts).encode()) if key[:1] == forwarding.ADDRESS]
        names = [key[1:-1].decode() for key in keys if key.endswith(b"@")]
        lines = tuple(f"{name}@{domain}:{_PREFIX_OF_ALIASES}" for domain in domains for name in names)
        path = os.path.join(self._home, "control/virtualdomains")
        yield Finding(path, f"aliases of {' '.join(domains)}: {len(lines)} lines", True, (AddLines(path, lines),))
        for name in ("aliases", "alias-aliases"):
            yield _asker(os.path.join(self._home, f"alias/.qmail-{name}-default"), "|fastforward -d aliases.cdb")

    def _compile(self, text: bytes) -> list[tuple[bytes, bytes]]:
        return [(entry.key, forwarding.encode(entry.commands)) for entry in aliases.parse(text, self._host).entries]


def _compile_forward(text: bytes) -> list[tuple[bytes, bytes]]:
    return [(entry.key, forwarding.encode(entry.commands)) for entry in forwarding.parse(text)]


class Virtual:
    def __init__(self, home: str, host: str, local: Collection[str]) -> None:
        """*local* are the domains whose users are here."""
        self._home = home
        self._host = host.encode()
        self._local = local
        self._virtual: set[str] = set()
        self._entries: dict[bytes, list[Command]] = {}

    def domain(self, where: str, name: str) -> Finding:
        self._virtual.add(name.lower())
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
        if domain and domain not in self._local and domain not in self._virtual:
            path, line = os.path.join(self._home, "control/virtualdomains"), f"{key.removeprefix('@')}:{_PREFIX}"
            yield Finding(where, f"alias/virtual: {target.decode()}; {path}: {line}", True, (AddLines(path, (line,)),))
        else:
            note = "; not for names of users" if domain not in self._virtual else ""
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
        yield _asker(os.path.join(home, "alias", file), f"|fastforward {option} {name}.cdb")


def _asker(path: str, line: str) -> Finding:
    return Finding(path, line, True, (AddLines(path, (line,)),))
