"""What an address leads to, in a forwarding database: pure decisions.

Only the address that the message came for is looked up by host and by name alone; those that it leads to are looked up
as they stand, and what is not found goes to the queue, which knows users.  An address that leads back to itself goes to
the queue as well: there it is a user's, or its Delivered-To line ends the loop.
"""

from collections.abc import Callable, Iterable
from typing import Final

from qm.errors import Temporary
from qm.wire import forwarding
from qm.wire.envelope import RECIPIENTS_MAX
from qm.wire.forwarding import ADDRESS, OWNER, Command, Kind, key

DEPTH_MAX: Final = 50  # lists within aliases within lists
_NO_OWNER: Final = (b"", b"#@[]")  # senders of bounces; what those are forwarded by must not bounce to an owner

Lookup = Callable[[bytes], bytes | None]
ReadList = Callable[[bytes], Iterable[Command]]


class Expansion:
    """What is to be done for one message."""

    def __init__(self, lookup: Lookup, read_list: ReadList, sender: bytes) -> None:
        self.local: dict[Command, None] = {}  # programs and mailboxes, each once
        self.mails: dict[bytes, dict[bytes, None]] = {}  # envelope senders, and to whom they send
        self._lookup = lookup
        self._read_list = read_list
        self._sender = sender
        self._way: set[bytes] = set()  # addresses and lists that lead to the one in hand
        self._count = 0

    def run(self, address: bytes) -> bool:
        """Whether the database knows the *address*; raises Temporary for what cannot be done."""
        return any(self._target(target, address, self._sender) for target in forwarding.targets(address))

    def _target(self, target: bytes, address: bytes, sender: bytes) -> bool:
        value = self._lookup(key(target))
        if value is None:
            return False
        owner = self._lookup(key(target, OWNER))
        if owner and sender not in _NO_OWNER:
            sender = self._decoded(owner, target)[0].argument
        self._follow(key(address), self._decoded(value, target), sender)
        return True

    def _decoded(self, value: bytes, target: bytes) -> list[Command]:
        try:
            return forwarding.decode(value)
        except ValueError as error:
            shown = target.decode("utf-8", "backslashreplace")
            detail = f"{shown}: {error}; make it again from its text"
            raise Temporary("the forwarding database is broken", detail=detail) from error

    def _follow(self, name: bytes, commands: Iterable[Command], sender: bytes) -> None:
        if len(self._way) >= DEPTH_MAX:
            raise Temporary("aliases are nested too deep", detail=name.decode("utf-8", "backslashreplace"))
        self._way.add(name)
        for command in commands:
            self._count += 1
            if self._count > RECIPIENTS_MAX:
                raise Temporary(f"an alias leads to more than {RECIPIENTS_MAX} addresses")
            self._do(command, sender)
        self._way.remove(name)

    def _do(self, command: Command, sender: bytes) -> None:
        kind, argument = command
        if kind is Kind.LIST:
            if argument not in self._way:  # a list within itself adds nothing
                self._follow(argument, self._read_list(argument), sender)
        elif kind is not Kind.FORWARD:
            self.local[command] = None
        elif key(argument, ADDRESS) in self._way or not self._target(argument, argument, sender):
            self.mails.setdefault(sender, {})[argument] = None
