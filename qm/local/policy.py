"""What a delivery is, and what follows from it: pure decisions of qmail.md section 13."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from qm.errors import OK, PERMANENT, PROGRAM_PERMANENT, TEMPORARY
from qm.wire import date
from qm.wire.address import quote
from qm.wire.dotqmail import Kind
from qm.wire.envelope import TLS_WORDS

REPORT_MAX: Final = 3000  # bytes of a report's text, as qmail-lspawn
DOUBLE_BOUNCE: Final = b"#@[]"  # its sender; what it is forwarded by must not bounce to an owner
STOP: Final = 99  # a program's: leave the rest of the file
_VERP: Final = b"-@[]"  # send expands it, once a recipient
_BLANKS: Final = bytes.maketrans(b" \t\n", b"---")
_LETTER: Final = {OK: b"K", PERMANENT: b"D", TEMPORARY: b"Z"}


class Job(NamedTuple):
    """One recipient of one message; the first eight are qmail-local's arguments."""

    user: bytes
    home: bytes
    local: bytes
    dash: bytes
    ext: bytes
    domain: bytes
    sender: bytes
    default_delivery: bytes
    id: bytes
    number: int  # of the recipient in its message
    flags: bytes = b""  # of qm.wire.delivery.FLAGS

    @property
    def address(self) -> bytes:
        return self.local + b"@" + self.domain

    @property
    def possible_duplicate(self) -> bool:
        return b"d" in self.flags


class Outcome(NamedTuple):
    code: int  # of qmail-local: 0, 100, 111
    text: bytes

    @property
    def report(self) -> bytes:
        """As lspawn has it: a letter and the text."""
        return _LETTER[self.code] + self.text


def delivered_to(job: Job) -> bytes:
    return b"Delivered-To: " + job.address.replace(b"\n", b"_") + b"\n"


def return_path(job: Job) -> bytes:
    return b"Return-Path: <" + quote(job.sender).replace(b"\n", b"_") + b">\n"


def from_line(job: Job, now_s: int) -> bytes:
    """The From_ line of an mbox."""
    sender = job.sender.translate(_BLANKS) or b"MAILER-DAEMON"
    return b"From " + sender + b" " + date.mbox_from(now_s) + b"\n"


def new_sender(job: Job, *, owner: bool, owner_default: bool) -> bytes:
    """Who gets the bounces of what is forwarded; *owner* and *owner_default*: those files are there (qmail.md 13.4)."""
    if not owner or not wants_owner(job):
        return job.sender
    if owner_default:
        return job.local + b"-owner-@" + job.domain + _VERP
    return job.local + b"-owner@" + job.domain


def wants_owner(job: Job) -> bool:
    """Whether a mailing list's owner may take the sender's place."""
    return job.sender not in (b"", DOUBLE_BOUNCE)


def loops(message: Iterable[bytes], line: bytes) -> bool:
    """Whether the header of *message*, in pieces, has *line*; bounded memory, and no more is read than the header."""
    before = b"\n"  # the end of the last piece, so that nothing is missed across the cut
    wanted = b"\n" + line
    for piece in message:
        text = before + piece
        end = text.find(b"\n\n")
        if text.find(wanted, 0, len(text) if end < 0 else end + 1) >= 0:
            return True
        if end >= 0:
            return False
        before = text[-len(line) :]
    return False


class Verdict(Enum):
    """What a program's exit code means."""

    CONTINUE = OK
    STOP = STOP
    PERMANENT = PERMANENT
    TEMPORARY = TEMPORARY


def judge(code: int) -> Verdict:
    """*code*: the exit code; negative: a signal's number."""
    if code == OK:
        return Verdict.CONTINUE
    if code == STOP:
        return Verdict.STOP
    return Verdict.PERMANENT if code in PROGRAM_PERMANENT else Verdict.TEMPORARY


def complaint(code: int, output: bytes) -> str:
    """What a report says of a program that failed; nothing if *output* says it."""
    if code < 0:
        return f"A program was killed by signal {-code}."
    return "" if output.strip() else f"A program ended with exit code {code} and said nothing."


def _after_dashes(ext: bytes, count: int) -> bytes:
    """What stands behind the dash number *count*; empty if there are fewer."""
    return ext.split(b"-", count)[count] if ext.count(b"-") >= count else b""


def _less_labels(domain: bytes, count: int) -> bytes:
    """*domain* without its last *count* labels, the first of which stays."""
    return domain.rsplit(b".", count)[0]


def environment(
    job: Job, inherited: Mapping[bytes, bytes], *, default: bytes | None, sender: bytes, now_s: int
) -> dict[bytes, bytes]:
    """What a program gets (qmail.md 13.5).  *default*: DEFAULT, if a default file matched; *sender*: NEWSENDER."""
    env = {key: value for key, value in inherited.items() if key != b"DEFAULT"}
    env.update(
        {
            b"HOST": job.domain,
            b"HOME": job.home,
            b"USER": job.user,
            b"LOCAL": job.local,
            b"RECIPIENT": job.address,
            b"DTLINE": delivered_to(job),
            b"SENDER": job.sender,
            b"RPLINE": return_path(job),
            b"UFLINE": from_line(job, now_s),
            b"EXT": job.ext,
            b"NEWSENDER": sender,
        }
    )
    for count in (1, 2, 3):
        env[b"EXT%d" % (count + 1)] = _after_dashes(job.ext, count)
        env[b"HOST%d" % (count + 1)] = _less_labels(job.domain, count)
    if default is not None:
        env[b"DEFAULT"] = default
    env.pop(b"QMTLS", None)
    for flag, word in TLS_WORDS.items():
        if flag in job.flags:
            env[b"QMTLS"] = word
    return env


def summary(done: Mapping[Kind, int]) -> bytes:
    """``did F+W+P``: files, forwards, programs."""
    files = done[Kind.MAILDIR] + done[Kind.MBOX]
    return b"did %d+%d+%d\n" % (files, done[Kind.FORWARD], done[Kind.PROGRAM])
