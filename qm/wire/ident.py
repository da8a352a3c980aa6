"""The ident protocol (RFC 1413): who, says the peer's machine, is the peer."""

from typing import Final

PORT: Final = 113
ANSWER_MAX: Final = 1000  # bytes; RFC 1413 4
INFO_MAX: Final = 256  # bytes; as ucspi-tcp


def query(remote_port: int, local_port: int) -> bytes:
    return b"%d , %d\r\n" % (remote_port, local_port)


def parse(answer: bytes) -> bytes | None:
    """The user that *answer*, up to its first LF, names; None for an error or garbage.

    Blanks are left out and what is not printable ASCII is ``?``: the text goes into the environment and the log.
    """
    line, ended, _ = answer[:ANSWER_MAX].partition(b"\n")
    fields = line.translate(None, b" \t\r").split(b":", 3)
    if not ended or len(fields) < 4 or fields[1].upper() != b"USERID":
        return None
    user = fields[3][:INFO_MAX]
    return bytes(byte if 32 < byte < 127 else ord("?") for byte in user) or None
