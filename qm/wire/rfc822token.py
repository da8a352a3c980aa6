"""Words and marks of a header field that holds addresses, and how they are written again (qmail.md 16.1).

This is qmail's reading of RFC 822, which takes more than RFC 5322 allows.  Time is linear in the length of the text,
and `Unparsable` is all that is raised.  A token keeps the text that it was read from, so what is not rewritten comes
out with the same bytes; bytes above 127 are like letters (RFC 6532 3.2).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

# What a token is: a special stands for itself.
ATOM: Final = b"a"
QUOTED: Final = b'"'
LITERAL: Final = b"["
COMMENT: Final = b"("
WORDS: Final = frozenset((ATOM, QUOTED, LITERAL, COMMENT))
WIDTH: Final = 78  # columns of a folded line; qmail's limit of 80 counts the line end and a blank (RFC 5322 2.1.1)


class Unparsable(ValueError):
    """Text that is no list of addresses; says why."""


class Token(NamedTuple):
    kind: bytes
    value: bytes  # what it means: without quotes and backslashes, but a literal keeps its brackets
    text: bytes  # what is written for it


_SPECIALS: Final = {bytes((byte,)): Token(bytes((byte,)), bytes((byte,)), bytes((byte,))) for byte in b".,@<>:;"}
AT, DOT, COMMA = _SPECIALS[b"@"], _SPECIALS[b"."], _SPECIALS[b","]

# Atomic groups: a text without its closing quote must not make the matcher try again.
_LEXEME: Final = re.compile(
    rb"[ \t]+"
    rb"|(?P<special>[.,@<>:;])"
    rb'|(?P<atom>(?![)\]])(?>(?:[^ \t.,@<>:;("\[\\]|\\.)[^ \t.,@<>:;("\[\\]*(?:\\.[^ \t.,@<>:;("\[\\]*)*))'
    rb'|"(?P<quoted>(?>[^"\\]*(?:\\.[^"\\]*)*))"'
    rb"|(?P<literal>\[(?>[^\]\\]*(?:\\.[^\]\\]*)*)\])"
    rb"|(?P<comment>\()",
    re.DOTALL,
)
_IN_COMMENT: Final = re.compile(rb"[()]|\\.", re.DOTALL)
_BACKSLASH: Final = re.compile(rb"\\(.)", re.DOTALL)
_NO_ATOM: Final = re.compile(rb"[\x00-\x1f\x7f)\]\\]")  # an atom with one of these is written as a quoted string
_IN_QUOTED: Final = re.compile(rb'["\\]')
_OF_COMMENT: Final = re.compile(rb"[()\\]")


def unfold(text: bytes) -> bytes:
    """*text* without its line ends; a CR of its own becomes a blank."""
    return text.replace(b"\r\n", b"").replace(b"\n", b"").replace(b"\r", b" ")


def quoted(value: bytes) -> Token:
    return Token(QUOTED, value, b'"' + _IN_QUOTED.sub(rb"\\\g<0>", value) + b'"')


def comment(value: bytes) -> Token:
    return Token(COMMENT, value, b"(" + _OF_COMMENT.sub(rb"\\\g<0>", value) + b")")


def _plain(text: bytes) -> bytes:
    return _BACKSLASH.sub(rb"\1", text) if b"\\" in text else text


def _atom(text: bytes) -> Token:
    if _NO_ATOM.search(text):
        return quoted(_plain(text))
    return Token(ATOM, text, text)


def _comment_end(text: bytes, start: int) -> int:
    """Where the comment that begins at *start* is over; comments nest."""
    depth = 1
    for mark in _IN_COMMENT.finditer(text, start + 1):
        if mark[0] == b"(":
            depth += 1
        elif mark[0] == b")":
            depth -= 1
            if not depth:
                return mark.end()
    raise Unparsable("a comment has no end")


def _token(match: re.Match[bytes]) -> Token:
    kind, text = match.lastgroup, match[0]
    if kind == "atom":
        return _atom(text)
    if kind == "quoted":
        return Token(QUOTED, _plain(match["quoted"]), text)
    return Token(LITERAL, _plain(text), text)


def tokenise(text: bytes) -> list[Token]:
    """The tokens of a field's body; raises Unparsable for what is not closed, a stray ) or ], and for NUL."""
    text = unfold(text)
    if b"\0" in text:
        raise Unparsable("there is a NUL byte")
    known = dict(_SPECIALS)  # by what is written: lists repeat themselves, and objects cost
    tokens = []
    position = 0
    while position < len(text):
        match = _LEXEME.match(text, position)
        if match is None:
            raise Unparsable(f"{text[position : position + 1].decode('latin-1')} has no counterpart")
        end = match.end()
        if match.lastgroup == "comment":
            end = _comment_end(text, position)
            inner = text[position + 1 : end - 1]
            tokens.append(Token(COMMENT, _plain(inner), text[position:end]))
        elif match.lastgroup:
            token = known.get(match[0])
            if token is None:
                token = known[match[0]] = _token(match)
            tokens.append(token)
        position = end
    return tokens


def value(tokens: Iterable[Token]) -> bytes:
    """The address that *tokens* mean."""
    return b"".join([token.value for token in tokens if token.kind != COMMENT])


def _spaced(before: bytes, kind: bytes) -> bool:
    """Whether a blank goes between two tokens."""
    return before in (b":", b",") or kind == b"<" or (before in WORDS and kind in WORDS)


def written(tokens: Iterable[Token], before: bytes = b"") -> list[bytes]:
    """What is written for each of *tokens*, with the blank that goes before it; *before*: the kind of one more."""
    texts = []
    for token in tokens:
        texts.append(b" " + token.text if _spaced(before, token.kind) else token.text)
        before = token.kind
    return texts


def unparse(name: bytes, tokens: Iterable[Token]) -> bytes:
    """The field *name* with *tokens*, folded after commas, with LF at its end."""
    pieces, piece = [], [name, b":"]
    for text in written(tokens, b":"):
        piece.append(text)
        if text == b",":
            pieces.append(b"".join(piece))
            piece = []
    return _fold([*pieces, b"".join(piece)])


def _fold(pieces: Sequence[bytes]) -> bytes:
    """All but the first of *pieces* begin with a blank; continued lines begin with two."""
    lines, line = [], pieces[0]
    for piece in pieces[1:]:
        if len(line) + len(piece) <= WIDTH or not piece:
            line += piece
        else:
            lines.append(line)
            line = b" " + piece
    return b"\n".join([*lines, line]) + b"\n"
