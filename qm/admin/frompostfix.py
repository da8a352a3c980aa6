"""What can be carried over from a Postfix: main.cf, the tables in text form that it names, and its queue."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Final

from qm.admin.action import Write
from qm.admin.findings import AddLines, Finding, kept
from qm.admin.postfixroutes import Transport, network_rules, socket_root
from qm.admin.postfixsettings import BY_ITSELF, TRANSPORTS, Settings, is_text_table, leads_elsewhere
from qm.admin.postfixspool import Spool
from qm.admin.postfixtables import Aliases, Virtual
from qm.admin.rules import AddRules
from qm.errors import QmError
from qm.wire.maincf import BadSetting, logical_lines
from qm.wire.route import Rules

_OF_POSTFIX: Final = frozenset(
    (
        "alias_database", "command_directory", "compatibility_level", "daemon_directory", "data_directory",
        "debug_peer_level", "debugger_command", "default_database_type", "html_directory", "inet_protocols",
        "mail_owner", "mailq_path", "maillog_file", "maillog_file_prefixes", "manpage_directory", "meta_directory",
        "mydomain", "newaliases_path", "queue_directory", "readme_directory", "sample_directory", "sendmail_path",
        "setgid_group", "shlib_directory",
    )
)  # fmt: skip
_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_BY_HAND: Final = {
    "smtp_sasl_password_maps": "passwords are not taken: write them into control/smtpauth",
    "smtpd_tls_cert_file": "put certificate and key into control/servercert.pem",
    "smtpd_tls_key_file": "put certificate and key into control/servercert.pem",
    "virtual_mailbox_maps": "make the mailboxes here, and move the mail",
}


class Postfix:
    """The Postfix whose configuration is in *folder*, for *home*."""

    def __init__(self, folder: str, home: str, hostname: str) -> None:
        self._home = home
        self._set = Settings(folder, hostname)
        spool = self._set.value("queue_directory")
        self._transport = Transport(home, socket_root(self._set.services, spool))
        self._spool = Spool(spool)
        self.runs = self._spool.runs
        self.queue = self._spool.queue

    def rules(self) -> Rules:
        """Of them an import has the host of addresses without one; raises Temporary."""
        return Rules(self._set.origin().encode(), frozenset(), frozenset(), {})

    def _ours(self, name: str) -> str:
        return os.path.join(self._home, name)

    def findings(self) -> Iterator[Finding]:
        for name, carry in self._CARRIED.items():
            found = list(self._guarded(name, carry))
            where = self._set.where(name)
            if self._set.line(name) and all(finding.where != where for finding in found):
                said = f"{len(found)} lines follow" if found else "nothing to carry over"
                yield Finding(where, f"{name}: {said}", True)
            yield from found
        for name, value in self._set.all:
            if name not in self._CARRIED:
                ours = name in _OF_POSTFIX
                said = "of Postfix only" if ours else _BY_HAND.get(name, "it is") + f" {value}"
                yield Finding(self._set.where(name), f"{name}: {said}", ours)
        yield from self._listeners()

    def _listeners(self) -> Iterator[Finding]:
        """Services of master.cf that the network reaches; raises nothing."""
        try:
            lines = list(logical_lines(self._set.services))
        except BadSetting as error:
            yield Finding(f"{self._set.master}:{error}", "cannot be read", False)
            return
        for line, content in lines:
            fields = content.split()
            if fields[1:2] == ["inet"]:
                plain = fields[7:] == ["smtpd"] and fields[0] in ("smtp", "25")
                said = "qm-smtpd is at port 25" if plain else f"see services: {' '.join([fields[0], *fields[7:]])}"
                yield Finding(f"{self._set.master}:{line}", said, plain)

    def _guarded(self, name: str, carry: Callable[["Postfix", str], Iterator[Finding]]) -> Iterator[Finding]:
        try:
            yield from carry(self, name)
        except (ValueError, QmError) as error:
            yield self._unread(name, error)

    def _unread(self, name: str, error: ValueError | QmError) -> Finding:
        why = str(error) if isinstance(error, ValueError) else error.detail or error.public
        return Finding(self._set.where(name), f"{name}: {why}", False)

    def _single(self, name: str, control: str, value: str) -> Finding:
        target = self._ours(f"control/{control}")
        why = kept(target, value)
        actions = () if why else (Write(target, f"{value}\n"),)
        return Finding(self._set.where(name), why or f"{name}: {target}: {value}", not why, actions)

    def _line(self, name: str) -> Iterator[Finding]:
        control = {"myhostname": "me", "myorigin": "defaulthost", "message_size_limit": "databytes"}[name]
        if self._set.line(name) or name == "myhostname":
            yield self._single(name, control, self._set.text(name))

    def _domains(self, name: str) -> Iterator[Finding]:
        for word in self._set.words(name):
            try:
                for where, domain in self._set.meant(name, word):
                    yield from self._listed(name, where, domain)
            except (ValueError, QmError) as error:
                yield self._unread(name, error)

    def _listed(self, name: str, where: str, word: str) -> Iterator[Finding]:
        """A word of a list of domains."""
        if not _DOMAIN.fullmatch(word):
            yield Finding(where, f"{name}: {word}: not a plain domain", False)
            return
        theirs, elsewhere = self._set.route_of(name), self._set.is_elsewhere(word)
        if theirs and not elsewhere:
            yield self._transport.finding(where, word, theirs)
            if name == "relay_domains" and not word.startswith("."):
                yield self._transport.finding(where, f".{word}", theirs)
        is_local = name == "mydestination" and not theirs and not elsewhere
        yield self._domain(name, where, word, is_local=is_local)
        if name == "mydestination" and not is_local and self._is_in_locals(word):
            said = f"{word}: control/locals has it; take it out there, or its mail stays here"
            yield Finding(where, f"{name}: {said}", False)

    def _is_in_locals(self, word: str) -> bool:
        return AddLines(self._ours("control/locals"), (word,)).is_done()

    def _domain(self, name: str, where: str, word: str, *, is_local: bool) -> Finding:
        files = ("locals", "rcpthosts") if is_local else ("rcpthosts",)
        lines: tuple[str, ...] = (word,)
        if name == "relay_domains" and not word.startswith("."):
            lines = (word, f".{word}")  # parent_domain_matches_subdomains
        actions = tuple(AddLines(self._ours(f"control/{file}"), lines) for file in files)
        said = f"{name}: {' '.join(lines)}: {', '.join(f'control/{file}' for file in files)}"
        return Finding(where, said, True, actions)

    def _mailboxes(self, name: str) -> Iterator[Finding]:
        if self._set.route_of(name):
            yield from self._domains(name)
        else:
            for word in self._set.words(name):
                where = self._set.where(name)
                yield Finding(where, f"{name}: {word}: Postfix's own mailboxes; make them here", False)

    def _class(self, name: str) -> Iterator[Finding]:
        """A transport of all domains of a list; its lines are said there."""
        value = self._set.value(name)
        kind = value.partition(":")[0]
        if value and kind not in BY_ITSELF:
            (of,) = (of for of, settings in TRANSPORTS.items() if name in settings)
            used = self._set.transport_of(of) == value and leads_elsewhere(value)
            said = f"{value}, for {of}" if used else f"{value}: qm has nothing like it"
            yield Finding(self._set.where(name), f"{name}: {said}", used)

    def _networks(self, name: str) -> Iterator[Finding]:
        if not self._set.line(name):
            return  # its default are the addresses of this machine, and tcp.smtp has the local one
        for word in self._set.words(name):
            try:
                rules = tuple(f'{network}:allow,RELAYCLIENT=""' for network in network_rules(word))
            except ValueError as error:
                yield Finding(self._set.where(name), f"{name}: {word}: {error}", False)
                continue
            path = self._ours("tcp.smtp")
            yield Finding(self._set.where(name), f"{name}: {path}: {' '.join(rules)}", True, (AddRules(path, rules),))

    def _relayhost(self, name: str) -> Iterator[Finding]:
        if self._set.value(name):
            yield self._transport.finding(self._set.where(name), "*", f"smtp:{self._set.value(name)}")

    def _transports(self, name: str) -> Iterator[Finding]:
        for spec in self._set.words(name):
            try:
                for where, key, value in self._set.rows(name, spec):
                    yield self._transport.finding(where, key, value)
            except (ValueError, QmError) as error:
                yield self._unread(name, error)

    def _aliases(self, name: str) -> Iterator[Finding]:
        aliases = Aliases(self._home, self._set.origin())
        for spec in self._set.words(name):
            path = is_text_table(spec)
            if not path:
                yield Finding(self._set.where(name), f"{name}: {spec}: not a table with a text", False)
            elif self._set.line(name) or os.path.exists(path):
                yield from aliases.findings(path)
        lmtp = self._set.value("mailbox_transport") and self._set.route_of("mydestination")
        yield from aliases.compiled([word for _, word in self._set.readable("mydestination")] if lmtp else [])

    def _virtual_domains(self, name: str) -> Iterator[tuple[str, str]]:
        """By default they are keys of the tables of virtual_alias_maps, and those without a text are said there."""
        for word in self._set.words(name):
            try:
                yield from self._set.meant(name, word)
            except ValueError:
                if self._set.line(name):
                    raise

    def _virtual(self, name: str) -> Iterator[Finding]:
        virtual = Virtual(self._home, self._set.origin(), frozenset(self._set.local_domains()))
        for where, word in self._virtual_domains("virtual_alias_domains"):
            if _DOMAIN.fullmatch(word) and "." in word:
                yield virtual.domain(where, word)
        for spec in self._set.words(name):
            try:
                for where, key, value in self._set.rows(name, spec):
                    yield from virtual.row(where, key, value)
            except (ValueError, QmError) as error:
                yield self._unread(name, error)
        yield from virtual.compiled(self._set.where(name))

    def _with_virtual(self, name: str) -> Iterator[Finding]:
        """What is no plain domain; the others are said with virtual_alias_maps."""
        for where, word in self._virtual_domains(name):
            if not _DOMAIN.fullmatch(word):
                yield Finding(where, f"{name}: {word}: not a plain domain", False)

    _CARRIED: Final[dict[str, Callable[["Postfix", str], Iterator[Finding]]]] = {
        "myhostname": _line,
        "myorigin": _line,
        "message_size_limit": _line,
        "mydestination": _domains,
        "relay_domains": _domains,
        "virtual_mailbox_domains": _mailboxes,
        "mailbox_transport": _class,
        "local_transport": _class,
        "relay_transport": _class,
        "virtual_transport": _class,
        "mynetworks": _networks,
        "transport_maps": _transports,
        "relayhost": _relayhost,
        "virtual_alias_maps": _virtual,  # first: its line of .qmail-default passes on what it does not know
        "alias_maps": _aliases,
        "virtual_alias_domains": _with_virtual,
    }
