"""main.cf with the tables that it names, master.cf, and where domains go: what an import asks a Postfix."""

import os
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from qm.admin.findings import text_of
from qm.errors import Temporary
from qm.wire.maincf import BadSetting, Configuration, parse, table_rows

_TEXT_TABLES: Final = frozenset(("btree", "cdb", "dbm", "hash", "lmdb", "sdbm", "texthash"))  # made of a text
TRANSPORTS: Final = {  # of the domains in a list; of several the first that is set
    "mydestination": ("mailbox_transport", "local_transport"),
    "relay_domains": ("relay_transport",),
    "virtual_mailbox_domains": ("virtual_transport",),
}
BY_ITSELF: Final = frozenset(("local", "relay", "virtual"))  # transports that a list's domains have by default


def is_text_table(spec: str) -> str:
    """The path of the text that a table is made of; empty if there is none."""
    kind, _, path = spec.removeprefix("proxy:").partition(":")
    return path if kind in _TEXT_TABLES and path.startswith("/") else ""


def leads_elsewhere(value: str) -> bool:
    """Whether a transport of a table takes a domain away from where it would go."""
    transport, _, hop = value.partition(":")
    return transport == "lmtp" or bool(hop and transport in ("", "smtp", "relay"))


class Settings:
    """Of the Postfix whose configuration is in *folder*."""

    def __init__(self, folder: str, hostname: str) -> None:
        """Raises Temporary."""
        self._main = os.path.join(folder, "main.cf")
        self.master = os.path.join(folder, "master.cf")
        try:
            self._known = Configuration(parse(text_of(self._main)), hostname)
        except BadSetting as error:
            raise Temporary("cannot read the other system", detail=f"{self._main}:{error}") from error
        self.services = text_of(self.master) if os.path.exists(self.master) else ""
        self.line = self._known.line
        self.value = self._known.value
        self.words = self._known.words

    @property
    def all(self) -> Iterator[tuple[str, str]]:
        """Name and value, as it is written, of what main.cf sets."""
        return ((name, setting.value) for name, setting in self._known.settings.items())

    def where(self, name: str) -> str:
        line = self.line(name)
        return f"{self._main}:{line}" if line else f"{self._main}: {name} (its default)"

    def text(self, name: str) -> str:
        """The value, or the first line of the file that it names; raises Temporary, ValueError."""
        value = self.value(name)
        return text_of(value).split("\n", 1)[0].strip() if value.startswith("/") else value

    def origin(self) -> str:
        return self.text("myorigin")

    def rows(self, name: str, spec: str) -> Iterator[tuple[str, str, str]]:
        """Place, key and value of a table; raises ValueError for one whose text is nowhere."""
        path = is_text_table(spec)
        if not path:
            raise ValueError(f"{spec}: not a table with a text")
        try:
            for line, key, value in table_rows(text_of(path)):
                yield f"{path}:{line}", key, value
        except BadSetting as error:
            raise ValueError(f"{path}:{error}") from error

    def readable(self, name: str) -> Iterator[tuple[str, str]]:
        """Place and word of a list of domains, with what those of its tables and files have that can be read."""
        for word in self.words(name):
            try:
                yield from self.meant(name, word)
            except (ValueError, Temporary):
                pass  # it is said where the list is carried over

    def meant(self, name: str, word: str) -> Iterator[tuple[str, str]]:
        """Place and word of all that one word of a list of domains stands for."""
        if word.startswith("/"):
            for line, text in enumerate(text_of(word).split("\n"), 1):
                if text.strip() and not text.lstrip().startswith("#"):
                    yield f"{word}:{line}", text.split()[0]
        elif ":" in word:
            yield from ((where, key) for where, key, _ in self.rows(name, word) if "@" not in key)
        else:
            yield self.where(name), word

    @cached_property
    def _elsewhere(self) -> frozenset[str]:
        """The keys of transport_maps that lead elsewhere, of those tables that have a text."""
        found: set[str] = set()
        for spec in self.words("transport_maps"):
            try:
                found.update(key for _, key, value in self.rows("transport_maps", spec) if leads_elsewhere(value))
            except (ValueError, Temporary):
                pass  # it is said where the tables are carried over
        return frozenset(found)

    def transport_of(self, name: str) -> str:
        """The transport of the domains of a list; empty if Postfix itself sees to them."""
        for setting in TRANSPORTS.get(name, ()):
            value = self.value(setting)
            if value:
                return "" if value.partition(":")[0] in BY_ITSELF else value
        return ""

    def is_elsewhere(self, domain: str) -> bool:
        return domain.lower() in self._elsewhere

    def local_domains(self) -> Iterator[str]:
        """Those of mydestination whose users are here."""
        if not self.route_of("mydestination"):
            words = (word.lower() for _, word in self.readable("mydestination"))
            yield from (word for word in words if not self.is_elsewhere(word))

    def route_of(self, name: str) -> str:
        """The same, if qm-remote can do it."""
        value = self.transport_of(name)
        return value if leads_elsewhere(value) else ""
