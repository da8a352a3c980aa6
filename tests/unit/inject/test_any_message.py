"""inject on whatever comes: a whole result, or a refusal that says why."""

from hypothesis import given
from hypothesis import strategies as st

from qm.errors import Permanent
from qm.inject.options import options
from qm.inject.policy import Composer, Moment
from qm.wire.envelope import Envelope
from qm.wire.qualify import hosts
from qm.wire.rfc822 import HeaderReader

_PARTS = [
    b"To: ",
    b"Bcc: ",
    b"From: ",
    b"Return-Path: ",
    b"Resent-To: ",
    b"X: ",
    b"a@b",
    b", ",
    b"\n",
    b"\n ",
    b"<",
    b">",
    b'"',
    b"(",
    b")",
    b"\\",
    b"\r",
    b"\0",
    b"\xe4",
    b"@",
    b".",
    b"+",
    b":",
    b";",
    b"[",
    b"]",
    b"From me",
]
_MESSAGE = st.one_of(st.lists(st.sampled_from(_PARTS)).map(b"".join), st.binary(max_size=200))
_WORD = st.one_of(st.binary(max_size=20), st.lists(st.sampled_from(_PARTS), max_size=4).map(b"".join))
_NAMES = [
    b"QMAILUSER",
    b"QMAILHOST",
    b"QMAILNAME",
    b"QMAILSUSER",
    b"QMAILSHOST",
    b"QMAILINJECT",
    b"QMAILIDHOST",
    b"QMAILDEFAULTHOST",
    b"QMAILDEFAULTDOMAIN",
    b"QMAILPLUSDOMAIN",
    b"QMAILNOTIFY",
    b"QMAILRET",
    b"QMAILENVID",
]


class Names:
    """Control files that are not there, but for me."""

    def present(self, name: str) -> bool:
        return name == "me"

    def line(self, name: str) -> bytes:
        return b"me.example"


def compose(argv: list[bytes], env: dict[bytes, bytes], message: bytes) -> tuple[bytes, Envelope, bytes] | None:
    """Header, envelope and body; None for a refusal."""
    reader = HeaderReader()
    reader.feed(message)
    reader.end()
    try:
        composer = Composer(options([b"qm-inject", *argv], env), hosts(Names(), env), frozenset([b"a@b"]), Moment(0, 1))
        mail = composer.mail(reader.fields)
    except Permanent as error:
        assert str(error)
        return None
    return mail.header, mail.envelope, reader.body


@given(_MESSAGE)
def test_any_message(message: bytes) -> None:
    """Any bytes become fields and nothing but fields, and an envelope without line ends and NUL."""
    composed = compose([b"-H", b"-fa@b", b"c@d"], {}, message)
    if composed is not None:
        _check(*composed)


@given(_WORD, _WORD, st.dictionaries(st.sampled_from(_NAMES), _WORD, max_size=4))
def test_any_caller(sender: bytes, recipient: bytes, env: dict[bytes, bytes]) -> None:
    """Nothing of options and environment makes a field of its own, or gets out of the envelope."""
    composed = compose([b"-f", sender, b"--", recipient], env, b"Subject: x\n\nbody\n")
    if composed is None:
        return
    header, envelope, body = composed
    _check(header, envelope, body)
    names = [line.partition(b":")[0] for line in header.split(b"\n") if line and not line.startswith(b" ")]
    assert names == [b"Date", b"Message-ID", b"From", b"Cc", b"Subject"]
    assert body == b"\nbody\n"
    assert len(envelope.recipients) == 1


def _check(header: bytes, envelope: Envelope, body: bytes) -> None:
    reader = HeaderReader()
    reader.feed(header + b"\n")
    assert reader.over
    assert reader.body == b"\n"
    assert b"".join(field.text for field in reader.fields) == header
    names = {field.name for field in reader.fields}
    assert not names & {b"bcc", b"resent-bcc", b"return-path"}
    assert names >= {b"date", b"message-id"} or names >= {b"resent-date", b"resent-message-id"}
    assert not body or body.startswith(b"\n")
    addresses = [envelope.sender, *(recipient.address for recipient in envelope.recipients)]
    assert not any(byte in address for address in addresses for byte in b"\r\n\0")
    assert not any(byte in envelope.envid + envelope.ret for byte in b"\r\n\0 ")
