"""What can be carried over from a Postfix: main.cf, the tables in text form that it names, and its queue."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Final

from qm.admin.action import Write
from qm.admin.findings import AddLines, Finding, kept, text_of
from qm.admin.fromqmail import is_locked
from qm.admin.postfixtables import Aliases, Transport, Virtual
from qm.admin.queueimport import Source
from qm.errors import QmError, Temporary
from qm.wire.maincf import BadSetting, Configuration, parse, table_rows
from qm.wire.route import Rules

_TEXT_TABLES: Final = frozenset(("btree", "cdb", "dbm", "hash", "lmdb", "sdbm", "texthash"))  # made of a text
_OF_POSTFIX: Final = frozenset(
    (
        "alias_database", "command_directory", "compatibility_level", "daemon_directory", "data_directory",
        "debug_peer_level", "debugger_command", "default_database_type", "html_directory", "inet_protocols",
        "mail_owner", "mailq_path", "maillog_file", "maillog_file_prefixes", "manpage_directory", "meta_directory",
        "mydomain", "newaliases_path", "queue_directory", "readme_directory", "sample_directory", "sendmail_path",
        "setgid_group", "shlib_directory",
    )
)  # fmt: skip
_QUEUES: Final = {  # and of what kind a message in it is
    "incoming": b"postfix", "active": b"postfix", "deferred": b"postfix", "hold": b"postfix-hold",
    "maildrop": b"postfix-maildrop",
}  # fmt: skip
_LEFT: Final = {  # what else is there, and is not carried over
    "corrupt": "message: Postfix calls it corrupt",
    "trace": "who asked to be told that mail was delivered is not told",
}
_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Postfix:
    """The Postfix whose configuration is in *folder*, for *home*."""

    def __init__(self, folder: str, home: str, hostname: str) -> None:
        self._folder = folder
        self._home = home
        self._main = os.path.join(folder, "main.cf")
        try:
            self._known = Configuration(parse(text_of(self._main)), hostname)
        except BadSetting as error:
            raise Temporary("cannot read the other system", detail=f"{self._main}:{error}") from error

    def _where(self, name: str) -> str:
        line = self._known.line(name)
        return f"{self._main}:{line}" if line else f"{self._main}: {name} (its default)"

    def _ours(self, name: str) -> str:
        return os.path.join(self._home, name)

    def findings(self) -> Iterator[Finding]:
        for name, carry in self._CARRIED.items():
            yield from self._guarded(name, carry)
        for name, (value, _) in self._known.settings.items():
            if name not in self._CARRIED:
                ours = name in _OF_POSTFIX
                yield Finding(self._where(name), f"{name}: {'of Postfix only' if ours else value}", ours)

    def _guarded(self, name: str, carry: Callable[["Postfix", str], Iterator[Finding]]) -> Iterator[Finding]:
        try:
            yield from carry(self, name)
        except QmError as error:
            yield Finding(self._where(name), f"{name}: {error.detail or error.public}", False)
        except ValueError as error:
            yield Finding(self._where(name), f"{name}: {error}", False)

    def _single(self, name: str, control: str, value: str) -> Finding:
        target = self._ours(f"control/{control}")
        why = kept(target, value)
        actions = () if why else (Write(target, f"{value}\n"),)
        return Finding(self._where(name), why or f"{name}: {target}: {value}", not why, actions)

    def _text(self, name: str) -> str:
        """The value, or the first line of the file that it names; raises Temporary, ValueError."""
        value = self._known.value(name)
        return text_of(value).split("\n", 1)[0].strip() if value.startswith("/") else value

    def _origin(self) -> str:
        return self._text("myorigin")

    def _line(self, name: str) -> Iterator[Finding]:
        control = {"myhostname": "me", "myorigin": "defaulthost", "message_size_limit": "databytes"}[name]
        if self._known.line(name) or name == "myhostname":
            yield self._single(name, control, self._text(name))

    def rows(self, name: str, spec: str) -> Iterator[tuple[str, str, str]]:
        """Place, key and value of a table; raises ValueError for one whose text is nowhere."""
        kind, _, path = spec.removeprefix("proxy:").partition(":")
        if kind not in _TEXT_TABLES or not path.startswith("/"):
            raise ValueError(f"{spec}: not a table with a text")
        try:
            for line, key, value in table_rows(text_of(path)):
                yield f"{path}:{line}", key, value
        except BadSetting as error:
            raise ValueError(f"{path}:{error}") from error

    def domains(self, name: str) -> Iterator[tuple[str, str]]:
        """Place and word of a list of domains, with what its tables and files have."""
        for word in self._known.words(name):
            if word.startswith("/"):
                for line, text in enumerate(text_of(word).split("\n"), 1):
                    if text.strip() and not text.lstrip().startswith("#"):
                        yield f"{word}:{line}", text.split()[0]
            elif ":" in word:
                yield from ((where, key) for where, key, _ in self.rows(name, word) if "@" not in key)
            else:
                yield self._where(name), word

    def _domains(self, name: str) -> Iterator[Finding]:
        files = ("locals", "rcpthosts") if name == "mydestination" else ("rcpthosts",)
        for where, word in self.domains(name):
            if not _DOMAIN.fullmatch(word):
                yield Finding(where, f"{name}: {word}: not a plain domain", False)
                continue
            lines: tuple[str, ...] = (word,)
            if name == "relay_domains" and not word.startswith("."):
                lines = (word, f".{word}")  # parent_domain_matches_subdomains
            actions = tuple(AddLines(self._ours(f"control/{file}"), lines) for file in files)
            said = f"{name}: {' '.join(lines)}: {', '.join(f'control/{file}' for file in files)}"
            yield Finding(where, said, True, actions)

    def _relayhost(self, name: str) -> Iterator[Finding]:
        if self._known.value(name):
            transport = Transport(self._home)
            yield transport.finding(self._where(name), "*", f"smtp:{self._known.value(name)}")

    def _transport(self, name: str) -> Iterator[Finding]:
        transport = Transport(self._home)
        for spec in self._known.words(name):
            try:
                for where, key, value in self.rows(name, spec):
                    yield transport.finding(where, key, value)
            except ValueError as error:
                yield Finding(self._where(name), f"{name}: {error}", False)

    def _aliases(self, name: str) -> Iterator[Finding]:
        aliases = Aliases(self._home, self._origin())
        for spec in self._known.words(name):
            kind, _, path = spec.removeprefix("proxy:").partition(":")
            if kind not in _TEXT_TABLES or not path.startswith("/"):
                yield Finding(self._where(name), f"{name}: {spec}: not a table with a text", False)
            else:
                yield from aliases.findings(path)
        yield from aliases.compiled()

    def _virtual(self, name: str) -> Iterator[Finding]:
        specs = self._known.words(name)
        if not specs:
            return
        virtual = Virtual(self._home, self._origin())
        for where, word in self.domains("virtual_alias_domains"):
            if _DOMAIN.fullmatch(word) and "." in word:
                yield virtual.domain(where, word)
        for spec in specs:
            try:
                for where, key, value in self.rows(name, spec):
                    yield from virtual.row(where, key, value)
            except ValueError as error:
                yield Finding(self._where(name), f"{name}: {error}", False)
        yield from virtual.compiled(self._where(name))

    def _with_virtual(self, name: str) -> Iterator[Finding]:
        """Said with virtual_alias_maps."""
        return iter(())

    _CARRIED: Final[dict[str, Callable[["Postfix", str], Iterator[Finding]]]] = {
        "myhostname": _line,
        "myorigin": _line,
        "message_size_limit": _line,
        "mydestination": _domains,
        "relay_domains": _domains,
        "transport_maps": _transport,
        "relayhost": _relayhost,
        "virtual_alias_maps": _virtual,  # first: its line of .qmail-default passes on what it does not know
        "alias_maps": _aliases,
        "virtual_alias_domains": _with_virtual,
    }

    # the queue

    def _queue_path(self, name: str) -> str:
        return os.path.join(self._known.value("queue_directory"), name)

    def runs(self) -> str:
        """Why the queue may change under our hands; empty if it does not."""
        return "its master runs" if is_locked(self._queue_path("pid/master.pid")) else ""

    def rules(self) -> Rules:
        return Rules(self._origin().encode(), frozenset(), frozenset(), {})

    def queue(self) -> Iterator[Source | Finding]:
        """What a master that runs no more has left: also in active/, and failures in bounce/ that were not told."""
        bounces = {os.path.basename(path): path for path in self._files("bounce")}
        for queue, kind in _QUEUES.items():
            for path in self._files(queue):
                name = os.path.basename(path)
                if os.stat(path, follow_symlinks=False).st_mode & 0o100:
                    yield Source(kind, name, (path, bounces[name]) if name in bounces else (path,))
                else:
                    yield Finding(path, "message: it was being written; nobody was told that it is there", True)
        for queue, why in _LEFT.items():
            yield from (Finding(path, why, False) for path in self._files(queue))

    def _files(self, queue: str) -> Iterator[str]:
        for folder, _, names in os.walk(self._queue_path(queue)):
            yield from (os.path.join(folder, name) for name in sorted(names))
