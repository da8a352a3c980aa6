"""What an SMTP client may make grow, and how far: the limits of qm.wire.smtp."""

from typing import Final, NamedTuple

SKIP_MAX: Final = 2 << 20  # bytes of a command line that is too long; past it the session ends
DISCARD_MAX: Final = 64 << 20  # bytes of a refused message; past it the session ends
RESPONSE_MAX: Final = 12288  # bytes of a line of an AUTH exchange; RFC 4954 4
AUTH_MAX: Final = RESPONSE_MAX + 64  # bytes of an AUTH command with an initial response


class Limits(NamedTuple):
    line_bytes: int = 4096
    errors: int = 20  # replies of 5xx in a session; 0: no limit
    commands: int = 200  # since the last message, recipients apart; 0: no limit
