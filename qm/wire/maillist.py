"""Mailing lists in files of their own: addresses, and names of other such files, a NUL behind each (setmaillist).

In text, for setmaillist, each is a line: ``&address``, or an address that begins with a letter or a digit, or the name
of another list's file, which begins with ``.`` or ``/``.  Blanks at the end, empty lines and ``#`` lines do not count.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from qm.wire import forwarding
from qm.wire.forwarding import BadForward, Command, Kind

COMPILED: Final = b".bin"  # behind the name of a text file: the list that newinclude makes of it


def check(command: Command) -> Command:
    """Raises ValueError for what no list may say: whoever may write it need not be whom programs run as."""
    if command.kind not in (Kind.FORWARD, Kind.LIST):
        raise ValueError("a list has no programs and no mailboxes")
    return command


def parse(text: bytes) -> Iterator[Command]:
    """Raises BadForward."""
    for count, raw in enumerate(text.split(b"\n"), 1):
        line = raw.rstrip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        try:
            if not (line[:1].isalnum() or line.startswith((b"&", b".", b"/"))):
                raise ValueError("neither an address nor a list")
            yield check(forwarding.command(line))
        except ValueError as error:
            raise BadForward(f"{count}: {error}") from error


def decode(value: bytes) -> list[Command]:
    """The commands of a list's file; raises ValueError."""
    return [check(command) for command in forwarding.decode(value)]


def unparse(commands: Iterable[Command]) -> bytes:
    return b"".join([b"%b%b\n" % command for command in ((kind.value, argument) for kind, argument in commands)])
