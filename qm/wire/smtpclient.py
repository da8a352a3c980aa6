"""The client's half of SMTP and LMTP, without a socket: commands out, bytes in, answers out (RFC 5321, 2920, 3030).

What is legal when stands in one table, `_LEGAL`.  Each command is answered once, in order; with PIPELINING several may
be on their way.  The text of a message does not pass through here: after a 354 the driver sends it, and then says
`ended`; an LMTP server answers that once for each recipient that it took (RFC 2033 4.2).  All that a server has said of
itself is in the object, so STARTTLS (RFC 3207 4.2) is a new one.
"""

from collections import deque
from enum import Enum, auto
from typing import Final, NamedTuple

from qm.wire.replies import BadReply, Replies, Reply

GO_ON: Final = 334  # RFC 4954 4: the server waits for a line of the exchange
WORDS_MAX: Final = 200  # EHLO keywords that are looked at


class Step(Enum):
    """What a reply answers: a command of ours, or (GREETING, TEXT) something else."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    LHLO = auto()  # RFC 2033 4.1
    AUTH = auto()  # and each line of its exchange
    STARTTLS = auto()
    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    TEXT = auto()  # the message after DATA
    CHUNK = auto()  # a BDAT that is not the last
    LAST_CHUNK = auto()
    QUIT = auto()


class Extensions(NamedTuple):
    """What the server offers (RFC 5321 4.1.1.1)."""

    pipelining: bool = False  # RFC 2920
    eight_bit: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    chunking: bool = False  # RFC 3030
    dsn: bool = False  # RFC 3461
    starttls: bool = False  # RFC 3207
    size: bool = False  # RFC 1870
    size_max: int = 0  # bytes; 0: not said
    auth: tuple[bytes, ...] = ()  # RFC 4954; mechanisms, in upper case


class Answer(NamedTuple):
    step: Step
    reply: Reply


class State(Enum):
    """Where we are once the commands on their way have arrived."""

    HELLO = auto()  # the server has not been told who we are
    AUTH = auto()  # and its exchange
    IDLE = auto()
    MAIL = auto()
    RCPT = auto()
    TEXT = auto()  # DATA has been said
    CHUNKS = auto()
    OVER = auto()


_LEGAL: Final = {
    (State.HELLO, Step.EHLO): State.IDLE,
    (State.HELLO, Step.HELO): State.IDLE,
    (State.HELLO, Step.LHLO): State.IDLE,
    (State.IDLE, Step.EHLO): State.IDLE,
    (State.IDLE, Step.HELO): State.IDLE,
    (State.IDLE, Step.LHLO): State.IDLE,
    (State.IDLE, Step.AUTH): State.AUTH,
    (State.AUTH, Step.AUTH): State.AUTH,
    (State.IDLE, Step.STARTTLS): State.IDLE,
    (State.IDLE, Step.MAIL): State.MAIL,
    (State.MAIL, Step.RCPT): State.RCPT,
    (State.RCPT, Step.RCPT): State.RCPT,
    (State.RCPT, Step.DATA): State.TEXT,
    (State.TEXT, Step.TEXT): State.IDLE,
    (State.RCPT, Step.CHUNK): State.CHUNKS,
    (State.CHUNKS, Step.CHUNK): State.CHUNKS,
    (State.RCPT, Step.LAST_CHUNK): State.IDLE,
    (State.CHUNKS, Step.LAST_CHUNK): State.IDLE,
    **{(state, Step.RSET): State.IDLE for state in (State.IDLE, State.MAIL, State.RCPT, State.TEXT, State.CHUNKS)},
    **{(state, Step.QUIT): State.OVER for state in State if state is not State.OVER},
}

_SWITCHES: Final = {
    b"PIPELINING": "pipelining",
    b"8BITMIME": "eight_bit",
    b"SMTPUTF8": "smtputf8",
    b"CHUNKING": "chunking",
    b"DSN": "dsn",
    b"STARTTLS": "starttls",
}


def parse_extensions(reply: Reply, ignored: frozenset[bytes] = frozenset()) -> Extensions:
    """What an answer to EHLO offers, but for what is *ignored*, in upper case: keywords, and ``AUTH=mechanism``."""
    on: dict[str, bool] = {}
    size_max = 0
    auth: tuple[bytes, ...] = ()
    for line in reply.raw.splitlines()[1:WORDS_MAX]:
        keyword, *parameters = line[4:].upper().split() or [b""]
        if keyword in ignored:
            continue
        if keyword in _SWITCHES:
            on[_SWITCHES[keyword]] = True
        elif keyword == b"SIZE":
            on["size"] = True
            if parameters and parameters[0].isdigit() and len(parameters[0]) <= 20:  # RFC 1870 4
                size_max = int(parameters[0])
        elif keyword == b"AUTH":
            auth = tuple(name for name in parameters if b"AUTH=" + name not in ignored)
    return Extensions(**on, size_max=size_max, auth=auth)


class Client:
    """One session; the greeting is the first answer."""

    __slots__ = ("_awaited", "_ignored", "_out", "_replies", "extensions", "state")

    def __init__(self, ignored: frozenset[bytes] = frozenset(), *, greeted: bool = False) -> None:
        """*greeted*: behind STARTTLS, where nobody greets again."""
        self.extensions = Extensions()
        self.state = State.HELLO
        self._ignored = ignored
        self._out: list[bytes] = []
        self._replies = Replies()
        self._awaited = deque([] if greeted else [Step.GREETING])

    # The driver's side

    def outgoing(self) -> bytes:
        """What to send now; the driver sends it before it waits."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> None:
        self._replies.receive(data)

    @property
    def awaited(self) -> Step | None:
        """What is answered next, if anything is."""
        return self._awaited[0] if self._awaited else None

    @property
    def unread(self) -> bool:
        """Whether more has come than was answered to us."""
        return self._replies.waiting

    def next_answer(self) -> Answer | None:
        """The next answer, None if it has not come; raises BadReply, also for a reply to nothing."""
        reply = self._replies.next()
        if reply is None:
            return None
        if not self._awaited:
            raise BadReply("it speaks without being asked")
        step = self._awaited.popleft()
        if step in (Step.EHLO, Step.LHLO):
            self.extensions = parse_extensions(reply, self._ignored) if reply.ok else Extensions()
        elif step is Step.AUTH and reply.code != GO_ON:
            self.state = State.IDLE
        return Answer(step, reply)

    # Commands

    def _say(self, step: Step, line: bytes) -> None:
        self.state = _LEGAL[self.state, step]  # a KeyError is a bug of ours
        self._awaited.append(step)
        if line:
            self._out.append(line)

    def ehlo(self, name: bytes) -> None:
        self._say(Step.EHLO, b"EHLO %b\r\n" % name)

    def helo(self, name: bytes) -> None:
        self._say(Step.HELO, b"HELO %b\r\n" % name)

    def lhlo(self, name: bytes) -> None:
        self._say(Step.LHLO, b"LHLO %b\r\n" % name)

    def auth(self, mechanism: bytes, initial: bytes | None) -> None:
        """*initial* is the response in base64, if there is one (RFC 4954 4)."""
        self._say(Step.AUTH, b"AUTH %b%b\r\n" % (mechanism, b"" if initial is None else b" " + initial))

    def respond(self, line: bytes) -> None:
        """Answer a 334; a ``*`` gives the exchange up."""
        self._say(Step.AUTH, line + b"\r\n")

    def starttls(self) -> None:
        """After a 220 this object has done its part: what follows is for a new one, *greeted* (RFC 3207 4.2)."""
        self._say(Step.STARTTLS, b"STARTTLS\r\n")

    def rset(self) -> None:
        self._say(Step.RSET, b"RSET\r\n")

    def mail(self, path: bytes, parameters: bytes) -> None:
        """*parameters* each begin with a blank."""
        self._say(Step.MAIL, b"MAIL FROM:<%b>%b\r\n" % (path, parameters))

    def rcpt(self, path: bytes, parameters: bytes) -> None:
        self._say(Step.RCPT, b"RCPT TO:<%b>%b\r\n" % (path, parameters))

    def data(self) -> None:
        self._say(Step.DATA, b"DATA\r\n")

    def ended(self, answers: int = 1) -> None:
        """The driver has sent the text and the dot after it; so many answers are awaited."""
        self.state = _LEGAL[self.state, Step.TEXT]
        self._awaited.extend([Step.TEXT] * answers)

    def bdat(self, octets: int, *, last: bool) -> None:
        """The driver sends that many bytes of text right after this."""
        step = Step.LAST_CHUNK if last else Step.CHUNK
        self._say(step, b"BDAT %d%b\r\n" % (octets, b" LAST" if last else b""))

    def quit(self) -> None:
        self._say(Step.QUIT, b"QUIT\r\n")
