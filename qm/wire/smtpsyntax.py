"""Command lines of SMTP to what they say (RFC 5321 4.1, 1870, 3030, 3207, 3461, 4954, 6152, 6531, 8689).

Patterns hold atomic groups: a stranger's line must not make the matcher try again and again.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from qm.wire import address
from qm.wire.smtpevent import Auth, Bdat, Command, Hello, Help, Mail, Noop, Quit, Rcpt, Reset, Start, StartTls, Vrfy
from qm.wire.smtpreply import Reply

HELO_MAX: Final = 255  # bytes; RFC 5321 4.5.3.1.2
LOGGED_MAX: Final = 200  # bytes
PATH_MAX: Final = 899  # bytes of an address, as in qmail-smtpd; leaves room below ADDRESS_MAX for RELAYCLIENT


class Refused(Exception):
    """A command that is answered *reply* whatever the rules say; *fatal*: and ends the session."""

    def __init__(self, reply: Reply, *, fatal: bool = False) -> None:
        super().__init__(reply)
        self.reply = reply
        self.fatal = fatal


# FROM: or TO:, the path in brackets or bare as old clients send it, the parameters
_ARGUMENT: Final = re.compile(
    rb"(FROM|TO):[ \t]*"
    rb"(?:<(?:@[^:<>\"]*:)?((?>(?:[^\"<>\\]|\\.|\"(?>(?:[^\"\\]|\\.)*)\")*))>|([^\t <>\"]+))"
    rb"(?: +(.*))?",
    re.IGNORECASE | re.DOTALL,
)
_PARAMETER: Final = re.compile(rb"([0-9A-Za-z][0-9A-Za-z-]*)(?:=([!-<>-~\x80-\xff]+))?")  # RFC 5321 4.1.2
_CHUNK: Final = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)  # RFC 3030 2
_AUTH: Final = re.compile(rb"([0-9A-Za-z_-]{1,20})(?: +([^ ]+))?")  # RFC 4954 8, RFC 4422 3.1
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_XTEXT: Final = rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"  # RFC 3461 4
_WHEN: Final = rb"(?:SUCCESS|FAILURE|DELAY)"

_MAIL: Final = {
    b"SIZE": re.compile(rb"[0-9]{1,20}"),  # RFC 1870 6
    b"BODY": re.compile(rb"7BIT|8BITMIME", re.IGNORECASE),  # BINARYMIME is not offered
    b"SMTPUTF8": re.compile(rb""),
    b"RET": re.compile(rb"FULL|HDRS", re.IGNORECASE),
    b"ENVID": re.compile(rb"%b{1,100}" % _XTEXT),  # RFC 3461 4.4
    b"REQUIRETLS": re.compile(rb""),  # RFC 8689 2
    b"AUTH": re.compile(rb"(?!.{501})(?:<>|%b+)" % _XTEXT),  # RFC 4954 5
}
_RCPT: Final = {
    b"NOTIFY": re.compile(rb"NEVER|%b(?:,%b){0,2}" % (_WHEN, _WHEN), re.IGNORECASE),
    # RFC 3461 4.2: 500 characters in all; RFC 6533 3: UTF-8 only in the type of that name
    b"ORCPT": re.compile(rb"(?!.{501})(?:[Uu][Tt][Ff]-8;(?:%b|[\x80-\xff])+|[0-9A-Za-z-]+;%b+)" % (_XTEXT, _XTEXT)),
}

_CONTROL_BYTE: Final = Reply(501, b"5.5.2", b"control byte in a command")
_UNKNOWN: Final = Reply(500, b"5.5.2", b"command not recognized")
_UNIMPLEMENTED: Final = Reply(502, b"5.5.1", b"command not implemented")
_FOREIGN: Final = Reply(500, b"5.5.2", b"this is SMTP")
_FOREIGN_TO_LMTP: Final = Reply(500, b"5.5.1", b"this is LMTP; say LHLO")
_NO_NAME: Final = Reply(501, b"5.5.4", b"syntax: EHLO name")
_NO_WORDS: Final = Reply(501, b"5.5.4", b"syntax: STARTTLS")
_BAD_AUTH: Final = Reply(501, b"5.5.4", b"syntax: AUTH mechanism [initial-response]")
_BAD_CHUNK: Final = Reply(501, b"5.5.4", b"syntax: BDAT octets [LAST]")
_NEEDS_UTF8: Final = Reply(553, b"5.6.7", b"an address in UTF-8 needs SMTPUTF8")  # RFC 6531 3.5


def _path(argument: bytes, keyword: bytes) -> tuple[bytes, bytes]:
    """The path without brackets and route, and the parameters."""
    match = _ARGUMENT.fullmatch(argument)
    if match is None or match[1].upper() != keyword:
        raise Refused(Reply(501, b"5.5.4", b"syntax: %b:<address>" % keyword))
    bracketed, bare = match[2], match[3]
    return bare if bracketed is None else bracketed, match[4] or b""


def _parameters(text: bytes, known: Mapping[bytes, re.Pattern[bytes]]) -> dict[bytes, bytes]:
    """Keyword to value, each checked against *known*."""
    found: dict[bytes, bytes] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise Refused(Reply(501, b"5.5.4", b"bad parameter"))
        keyword = match[1].upper()
        pattern = known.get(keyword)
        if pattern is None:
            raise Refused(Reply(555, b"5.5.4", b"unknown parameter"))
        value = match[2] or b""
        if keyword in found or not pattern.fullmatch(value):
            raise Refused(Reply(501, b"5.5.4", b"bad or repeated %b" % keyword))
        found[keyword] = value
    return found


def _address(path: bytes, status: bytes) -> bytes:
    parsed = address.parse(path) if len(path) <= PATH_MAX else None
    if parsed is None:
        raise Refused(Reply(553, status, b"not an address that I can use"))
    return parsed


def _mail(argument: bytes) -> Mail:
    path, text = _path(argument, b"FROM")
    sender = _address(path, b"5.1.7") if path else b""
    given = _parameters(text, _MAIL) if text else {}
    smtputf8 = b"SMTPUTF8" in given
    if not (smtputf8 or sender.isascii()):
        raise Refused(_NEEDS_UTF8)
    return Mail(
        sender,
        int(given.get(b"SIZE", b"0")),
        given.get(b"BODY", b"").upper() == b"8BITMIME",
        smtputf8,
        given.get(b"RET", b"").upper(),
        given.get(b"ENVID", b""),
        b"REQUIRETLS" in given,
        given.get(b"AUTH", b""),
    )


def _rcpt(argument: bytes) -> Rcpt:
    path, text = _path(argument, b"TO")
    recipient = _address(path, b"5.1.3")
    if not text:
        return Rcpt(recipient)
    given = _parameters(text, _RCPT)
    orcpt = given.get(b"ORCPT", b"")
    if not address.is_utf8(orcpt):
        raise Refused(Reply(501, b"5.5.4", b"bad ORCPT"))
    return Rcpt(recipient, given.get(b"NOTIFY", b"").upper(), orcpt)


def check_ascii(rcpt: Rcpt) -> None:
    """Refuse a recipient that only SMTPUTF8 allows."""
    if not (rcpt.recipient.isascii() and rcpt.orcpt.isascii()):
        raise Refused(_NEEDS_UTF8)


def _hello(name: bytes, extended: bool) -> Hello:
    if not name or len(name) > HELO_MAX:
        raise Refused(_NO_NAME)
    return Hello(name, extended)


def _bdat(argument: bytes) -> Bdat:
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise Refused(_BAD_CHUNK, fatal=True)  # what follows cannot be told from commands
    return Bdat(int(match[1]), match[2] is not None)


def _start_tls(argument: bytes) -> StartTls:
    if argument:
        raise Refused(_NO_WORDS)  # RFC 3207 4
    return StartTls()


def _auth(argument: bytes) -> Auth:
    match = _AUTH.fullmatch(argument)
    if match is None:
        raise Refused(_BAD_AUTH)
    return Auth(match[1], match[2])


def _always(command: Command) -> Callable[[bytes], Command]:
    return lambda argument: command


def _never(reply: Reply, *, fatal: bool = False) -> Callable[[bytes], NoReturn]:
    def refuse(argument: bytes) -> NoReturn:
        raise Refused(reply, fatal=fatal)

    return refuse


Verbs = Mapping[bytes, Callable[[bytes], Command]]
_VERBS: Final[Verbs] = {
    b"HELO": lambda argument: _hello(argument, False),
    b"EHLO": lambda argument: _hello(argument, True),
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _always(Start()),
    b"BDAT": _bdat,
    b"RSET": _always(Reset()),
    b"NOOP": _always(Noop()),
    b"HELP": _always(Help()),
    b"VRFY": _always(Vrfy()),
    b"QUIT": _always(Quit()),
    b"STARTTLS": _start_tls,
    b"AUTH": _auth,
    **dict.fromkeys(b"EXPN ETRN TURN SEND SOML SAML".split(), _never(_UNIMPLEMENTED)),
    # a web browser that somebody has aimed at us
    **dict.fromkeys(b"GET POST PUT HEAD OPTIONS CONNECT".split(), _never(_FOREIGN, fatal=True)),
}
_UNKNOWN_VERB: Final = _never(_UNKNOWN)
SMTP: Final[Verbs] = _VERBS
LMTP: Final[Verbs] = {  # RFC 2033 4.1
    **_VERBS,
    **dict.fromkeys((b"HELO", b"EHLO"), _never(_FOREIGN_TO_LMTP)),
    b"LHLO": lambda argument: _hello(argument, True),
}


def parse(line: bytes, verbs: Verbs = SMTP) -> Command:
    """What the command *line*, without its line end, says; raises Refused."""
    if _CONTROL.search(line):
        raise Refused(_CONTROL_BYTE)
    verb, _, argument = line.partition(b" ")
    return verbs.get(verb.upper(), _UNKNOWN_VERB)(argument.strip(b" "))


def loggable(line: bytes) -> bytes:
    """What a log may show of the refused *line*: nothing that may be a password."""
    verb = line.partition(b" ")[0].upper()
    if verb not in LMTP:
        return b"?"
    return verb if verb == b"AUTH" else line[:LOGGED_MAX]
