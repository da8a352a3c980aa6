"""Whether a certificate is for the host that we wanted (RFC 6125 6.4, RFC 9525 6.3).  Pure.

Only subjectAltName counts: a common name is no identity (RFC 9525 2).
"""

import ipaddress
from collections.abc import Iterable


def address(text: bytes) -> bytes | None:
    """An IP address, in brackets or not, as `is_for_any` has those of certificates: ``[::1]``; None for a name."""
    bare = text[1:-1] if text.startswith(b"[") and text.endswith(b"]") else text
    try:
        found = ipaddress.ip_address(bare.lower().removeprefix(b"ipv6:").decode("ascii"))
    except ValueError:
        return None
    return f"[{getattr(found, 'ipv4_mapped', None) or found}]".encode()


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
    """Whether one of the certificate's names is one of those *wanted*: ``host``, or ``.domain`` for any below it.

    A certificate's address is in brackets, as `address` has it; a name that looks like one is none.
    """
    ours = [address(name) or _lower(name) for name in wanted]
    return any(_is_for(_lower(name), want) for name in presented for want in ours if want)
