"""Whether a certificate is for the host that we wanted (RFC 6125 6.4, RFC 9525 6.3).  Pure.

Only subjectAltName counts: a common name is no identity (RFC 9525 2).
"""

from collections.abc import Iterable


def _is_for(presented: bytes, wanted: bytes) -> bool:
    """A * stands for one whole label, the first (RFC 6125 6.4.3)."""
    if wanted.startswith(b"."):
        return presented.removeprefix(b"*").endswith(wanted) and presented != wanted
    if presented.startswith(b"*."):
        label, dot, rest = wanted.partition(b".")
        return bool(label and dot and b"." in rest) and rest == presented[2:]
    return presented == wanted


def _lower(name: bytes) -> bytes:
    return name.lower().removesuffix(b".")


def is_for_any(presented: Iterable[bytes], wanted: Iterable[bytes]) -> bool:
    """Whether one of the certificate's names is one of those *wanted*: ``host``, or ``.domain`` for any below it."""
    ours = [_lower(name) for name in wanted]
    return any(_is_for(_lower(name), want) for name in presented for want in ours if want)
