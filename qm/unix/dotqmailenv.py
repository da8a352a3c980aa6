"""What a program that a .qmail line runs knows of its delivery: the environment of qmail.md 13.5."""

from qm.errors import Permanent
from qm.unix.program import Env
from qm.wire.rfc822 import one_line


def variable(env: Env, name: bytes) -> bytes:
    """Raises Permanent if it is not set."""
    try:
        return env[name]
    except KeyError:
        raise Permanent(f"{name.decode()} is not set; run me from a .qmail file", status="3.5") from None


def line(env: Env, name: bytes) -> bytes:
    """A variable that holds one line of a header, with its line end; no more than one comes out."""
    return one_line(variable(env, name).removesuffix(b"\n"), b"_") + b"\n"
