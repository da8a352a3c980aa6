"""Postfix's main.cf: parameters, with what their values refer to (postconf(5)).

Read by ourselves and not by postconf(1): a configuration may come from another machine, and nothing of it is run.  Only
the defaults of parameters that matter here are known.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_DEPTH_MAX: Final = 20  # of parameters in parameters
_VALUE_MAX: Final = 1024 * 1024  # characters
_NAME: Final = re.compile(r"([A-Za-z0-9_.-]+)\s*=\s*(.*)", re.DOTALL)
_REFERENCE: Final = re.compile(
    r"\$(?:\$|(\w+)|\{\s*(\w+)\s*\}|\(\s*(\w+)\s*\)|\{\s*(\w+)\s*([?:])\s*([^{}]*|\{[^{}]*\})\s*\})"
)
DEFAULTS: Final = {
    "mydomain": "localdomain",
    "myorigin": "$myhostname",
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
    "alias_maps": "hash:/etc/aliases",
    "queue_directory": "/var/spool/postfix",
    "relay_domains": "",
    "virtual_alias_domains": "$virtual_alias_maps",
    "virtual_alias_maps": "$virtual_maps",
    "virtual_maps": "",
}


class BadSetting(ValueError):
    """Text that main.cf cannot have; begins with the line's number."""


class Setting(NamedTuple):
    value: str  # as it is written
    line: int


def parse(text: str) -> dict[str, Setting]:
    """The last setting of each parameter; raises BadSetting."""
    found = {}
    for line, content in logical_lines(text):
        match = _NAME.fullmatch(content)
        if match is None:
            raise BadSetting(f"{line}: neither name = value nor a comment")
        found[match[1]] = Setting(match[2], line)
    return found


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with what continues them: what begins with a blank does; comments and empty lines do not count."""
    count, pieces = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        if line[:1].isspace():
            if not pieces:
                raise BadSetting(f"{number}: it begins with a blank, but there is no line before it")
        elif pieces:
            yield count, " ".join(pieces)
            pieces = []
        count = count if pieces else number
        pieces.append(content)
    if pieces:
        yield count, " ".join(pieces)


class Configuration:
    def __init__(self, settings: Mapping[str, Setting], hostname: str) -> None:
        """*hostname* is what myhostname is if main.cf does not say."""
        self.settings = settings
        self._hostname = hostname

    def line(self, name: str) -> int:
        """Where *name* is set; 0 if it is not."""
        return self.settings[name].line if name in self.settings else 0

    def value(self, name: str) -> str:
        """The value with all that it refers to; raises ValueError for one that refers to itself."""
        return self._value(name, 0)

    def _value(self, name: str, depth: int) -> str:
        if name in self.settings:
            return self._expanded(self.settings[name].value, depth)
        if name == "myhostname":
            return self._hostname
        if name == "mydomain":
            domain = self._value("myhostname", depth + 1).partition(".")[2]
            return domain or DEFAULTS["mydomain"]
        return self._expanded(DEFAULTS.get(name, ""), depth)

    def _expanded(self, text: str, depth: int) -> str:
        if depth > _DEPTH_MAX:
            raise ValueError("parameters refer to one another in a circle")

        def put(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            if match[5]:
                is_set = bool(self._value(match[4], depth + 1))
                chosen = match[6].strip().removeprefix("{").removesuffix("}").strip()
                return self._expanded(chosen, depth + 1) if is_set == (match[5] == "?") else ""
            return self._value(match[1] or match[2] or match[3], depth + 1)

        expanded = _REFERENCE.sub(put, text)
        if len(expanded) > _VALUE_MAX:
            raise ValueError("a value is too long")
        return expanded

    def words(self, name: str) -> list[str]:
        return self.value(name).replace(",", " ").split()


def table_rows(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, key in lower case and value of a postmap(1) source; raises BadSetting."""
    for line, content in logical_lines(text):
        key, _, value = content.partition(" " if "\t" not in content.split(" ", 1)[0] else "\t")
        key, value = key.strip(), value.strip()
        if not value:
            raise BadSetting(f"{line}: a key without a value")
        yield line, key.lower(), value
