"""The control files that follow from a host's name (qmail.md section 19, config and config-fast)."""

import re
from collections.abc import Mapping
from typing import Final

LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(\.{LABEL})+")


def full_name(text: str) -> str | None:
    """*text* as the name of a host, in lower case and without its last dot; None if it is no full name."""
    host = text.lower().removesuffix(".")
    return host if _HOST.fullmatch(host) else None


def single_lines(host: str) -> Mapping[str, str]:
    """Control files that say one thing."""
    labels = host.split(".")
    return {
        "me": host,
        "defaultdomain": ".".join(labels[1:]) if len(labels) > 2 else host,
        "plusdomain": ".".join(labels[-2:]),
    }


LISTS: Final = ("locals", "rcpthosts")  # a line for each domain that is ours
