"""Which domains are ours to take mail for: control/rcpthosts, and morercpthosts.cdb behind it (qmail.md 2.5, 15.4)."""

from collections.abc import Callable, Iterator

Lookup = Callable[[bytes], bool]  # whether morercpthosts.cdb has a key; may raise Temporary


def _walk(domain: bytes) -> Iterator[bytes]:
    """*domain*, then each of its ends that begins with a dot."""
    yield domain
    at = domain.find(b".")
    while at >= 0:
        yield domain[at:]
        at = domain.find(b".", at + 1)


def who_says_ours(rcpthosts: frozenset[bytes], more: Lookup, domain: bytes) -> bytes:
    """The control file and key by which *domain* is ours, or nothing; raises what *more* raises.

    *rcpthosts* is in lower case.
    """
    domain = domain.lower()
    for key in _walk(domain):
        if key in rcpthosts:
            return b"rcpthosts:" + key
    for key in _walk(domain):
        if more(key):
            return b"morercpthosts:" + key
    return b""
