"""Lists of addresses, as in To and From: which addresses there are, and the list with each of them rewritten.

RFC 822 lists are easy to read from right to left, and so qmail does (qmail.md 16.1): at every point the address in hand
ends where it must.  A comma that is missing between two addresses is put in, groups are known, the text before ``<`` is
kept, and comments come out behind the address that they stand in or before.
"""

from collections.abc import Callable, Iterable
from typing import Final

from qm.wire.rfc822token import (
    AT,
    ATOM,
    COMMA,
    COMMENT,
    LITERAL,
    QUOTED,
    Token,
    Unparsable,
    quoted,
    tokenise,
    value,
)

Rewrite = Callable[[list[Token]], list[Token]]  # the tokens of one address, without comments; empty: <>

_HOST: Final = frozenset((ATOM, LITERAL, b"."))
_PHRASE: Final = frozenset((COMMENT, ATOM, QUOTED, b"@", b"."))  # what may stand before <


def unchanged(tokens: list[Token]) -> list[Token]:
    return tokens


class AddressList:
    """One pass over a list of addresses.

    *found* has the tokens of each, the rightmost first; after Unparsable, of those that were met before.
    """

    def __init__(self, rewrite: Rewrite = unchanged) -> None:
        self.found: list[list[Token]] = []
        self._rewrite = rewrite
        self._rest: list[Token] = []  # still to be read, from its end
        self._out: list[Token] = []  # right to left
        self._address: list[Token] = []  # the one in hand, right to left
        self._comments: list[Token] = []  # of the one between < and >
        self._in_group = False
        self._may_join = True  # a word here belongs to the address in hand
        self._in_brackets = False  # the last address was, and nothing has separated it from what comes

    def run(self, tokens: Iterable[Token]) -> list[Token]:
        """The list with its addresses rewritten; raises Unparsable."""
        self._rest = list(tokens)
        while self._rest:
            token = self._rest.pop()
            step = self._STEPS.get(token.kind)
            if step is None:
                raise Unparsable("a < without >")
            step(self, token)
        self._flush()
        return self._out[::-1]

    def _flush(self, *, comma: bool = False) -> None:
        """The address in hand is complete; *comma*: something else follows to its left."""
        if self._address:
            self._found()
        elif not self._in_brackets:
            return
        self._in_brackets = False
        if comma:
            self._out.append(COMMA)

    def _found(self) -> None:
        address = self._rewrite(self._address[::-1])
        self.found.append(address)
        self._out += self._comments
        self._out += reversed(address)
        self._address, self._comments = [], []

    def _semicolon(self, token: Token) -> None:
        self._flush(comma=True)
        if self._in_group:
            raise Unparsable("a ; without its group")
        self._in_group = self._may_join = True
        self._out.append(token)

    def _colon(self, token: Token) -> None:
        """What stands to its left, up to a comma, is the group's name."""
        self._flush()
        if not self._in_group:
            raise Unparsable("a : without ;")
        self._in_group, self._may_join = False, True
        self._out.append(token)
        while self._rest:
            self._out.append(self._rest.pop())
            if self._out[-1].kind == b",":
                break

    def _bracketed(self, token: Token) -> None:
        self._flush(comma=True)
        self._out.append(token)
        while self._rest and self._rest[-1].kind != b"<":
            inner = self._rest.pop()
            (self._comments if inner.kind == COMMENT else self._address).append(inner)
        self._found()  # also if it is empty
        if not self._rest:
            raise Unparsable("a > without <")
        self._out.append(self._rest.pop())
        while self._rest and self._rest[-1].kind in _PHRASE:
            self._out.append(self._rest.pop())
        self._may_join, self._in_brackets = False, True

    def _word(self, token: Token) -> None:
        if not self._may_join:
            self._flush(comma=True)
        self._may_join = False
        self._address.append(token)

    def _joint(self, token: Token) -> None:
        self._may_join = True
        self._address.append(token)

    def _comma(self, token: Token) -> None:
        self._flush()
        self._may_join = True
        self._out.append(token)

    def _aside(self, token: Token) -> None:
        self._out.append(token)

    _STEPS: Final[dict[bytes, Callable[["AddressList", Token], None]]] = {
        b";": _semicolon,
        b":": _colon,
        b">": _bracketed,
        ATOM: _word,
        QUOTED: _word,
        LITERAL: _word,
        b"@": _joint,
        b".": _joint,
        b",": _comma,
        COMMENT: _aside,
    }


def addresses(body: bytes) -> list[bytes]:
    """The addresses in a field's *body*, in the order in which they are written; raises Unparsable."""
    one_pass = AddressList()
    one_pass.run(tokenise(body))
    return [value(tokens) for tokens in reversed(one_pass.found)]


def single(address: bytes) -> list[Token]:
    """The tokens of an *address* as an envelope has it (qm.wire.address).

    Raises Unparsable for a domain that is none, and for CR, LF and NUL.
    """
    if any(byte in address for byte in b"\r\n\0"):
        raise Unparsable("there is a line end or a NUL byte")
    local, at, domain = address.rpartition(b"@")
    if not at:
        return _local(address) if address else []
    tokens = tokenise(domain)
    if b"".join([token.text for token in tokens if token.kind in _HOST]) != domain:
        raise Unparsable("that is no host")
    return [*_local(local), AT, *tokens]


def _local(local: bytes) -> list[Token]:
    """As it is, if that reads as one run of words and dots; else quoted."""
    try:
        tokens = tokenise(local)
    except Unparsable:
        tokens = []
    plain = all(token.kind == (b"." if place % 2 else ATOM) for place, token in enumerate(tokens))
    if plain and len(tokens) % 2 and b"".join([token.text for token in tokens]) == local:
        return tokens
    return [quoted(local)]
