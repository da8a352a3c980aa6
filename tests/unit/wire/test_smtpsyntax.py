"""Command lines."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.wire.smtpevent import Auth, Bdat, Command, Hello, Help, Mail, Noop, Quit, Rcpt, Reset, Start, StartTls, Vrfy
from qm.wire.smtpsyntax import Refused, check_ascii, loggable, parse

UTF8 = "jörg@exämple.org".encode()


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"EHLO mx.example", Hello(b"mx.example", True)),
        (b"helo  [192.0.2.1] ", Hello(b"[192.0.2.1]", False)),
        (b"MAIL FROM:<a@b>", Mail(b"a@b")),
        (b"mail from:<>", Mail(b"")),
        (b"MAIL FROM: <a@b> ", Mail(b"a@b")),
        (b"MAIL FROM:a@b", Mail(b"a@b")),
        (b"MAIL FROM:<@x,@y:a@b>", Mail(b"a@b")),
        (b'MAIL FROM:<"a > b"@c> SIZE=1', Mail(b"a > b@c", 1)),
        (b"MAIL FROM:<a@b> SIZE=18446744073709551615 BODY=8BITMIME", Mail(b"a@b", 2**64 - 1, True)),
        (b"MAIL FROM:<a@b> body=7bit", Mail(b"a@b")),
        (b"MAIL FROM:<a@b>  RET=hdrs   ENVID=QQ+2B314", Mail(b"a@b", 0, False, False, b"HDRS", b"QQ+2B314")),
        (b"MAIL FROM:<" + UTF8 + b"> SMTPUTF8", Mail(UTF8, 0, False, True)),
        (b"RCPT TO:<a@b>", Rcpt(b"a@b")),
        (b"RCPT TO:<Postmaster>", Rcpt(b"Postmaster")),
        (b"RCPT TO:<" + UTF8 + b">", Rcpt(UTF8)),
        (b"RCPT TO:<a@b> NOTIFY=never", Rcpt(b"a@b", b"NEVER")),
        (
            b"RCPT TO:<a@b> NOTIFY=SUCCESS,delay ORCPT=rfc822;a+3Db@c",
            Rcpt(b"a@b", b"SUCCESS,DELAY", b"rfc822;a+3Db@c"),
        ),
        (b"RCPT TO:<a@b> ORCPT=utf-8;" + UTF8, Rcpt(b"a@b", b"", b"utf-8;" + UTF8)),
        (b"DATA", Start()),
        (b"BDAT 0", Bdat(0, False)),
        (b"bdat 1000 last", Bdat(1000, True)),
        (b"RSET", Reset()),
        (b"noop whatever", Noop()),
        (b"HELP DATA", Help()),
        (b"VRFY a", Vrfy()),
        (b"quit", Quit()),
        (b"starttls", StartTls()),
        (b"AUTH PLAIN", Auth(b"PLAIN", None)),
        (b"auth scram-sha-256-plus =", Auth(b"scram-sha-256-plus", b"=")),
        (b"AUTH PLAIN AGEAYg==", Auth(b"PLAIN", b"AGEAYg==")),
        (b"MAIL FROM:<a@b> AUTH=<> REQUIRETLS", Mail(b"a@b", requiretls=True, auth=b"<>")),
        (b"MAIL FROM:<a@b> AUTH=e+3Dmc2@x", Mail(b"a@b", auth=b"e+3Dmc2@x")),
    ],
)
def test_parse(line: bytes, want: Command) -> None:
    """What a client may say, and what it means."""
    assert parse(line) == want


@pytest.mark.parametrize(
    ("line", "code", "status"),
    [
        (b"", 500, b"5.5.2"),
        (b" ", 500, b"5.5.2"),
        (b"XYZZY", 500, b"5.5.2"),
        (b"MAILFROM:<a@b>", 500, b"5.5.2"),
        (b"EXPN list", 502, b"5.5.1"),
        (b"ETRN x", 502, b"5.5.1"),
        (b"TURN", 502, b"5.5.1"),
        (b"STARTTLS now", 501, b"5.5.4"),
        (b"AUTH", 501, b"5.5.4"),
        (b"AUTH PLAIN  x  y", 501, b"5.5.4"),
        (b"AUTH PL*IN", 501, b"5.5.4"),
        (b"AUTH " + b"X" * 21, 501, b"5.5.4"),
        (b"AUTH PLAIN \0", 501, b"5.5.2"),
        (b"MAIL FROM:<a@b> REQUIRETLS=1", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> AUTH", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> AUTH=+2b", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> AUTH=" + b"x" * 501, 501, b"5.5.4"),
        (b"EHLO", 501, b"5.5.4"),
        (b"EHLO " + b"x" * 256, 501, b"5.5.4"),
        (b"EHLO a\x1b[2J", 501, b"5.5.2"),
        (b"NOOP \0", 501, b"5.5.2"),
        (b"MAIL FROM:<a\0@b>", 501, b"5.5.2"),
        (b"RCPT TO:<a@b>\rDATA", 501, b"5.5.2"),
        (b"MAIL", 501, b"5.5.4"),
        (b"MAIL FROM", 501, b"5.5.4"),
        (b"MAIL FROM:", 501, b"5.5.4"),
        (b"MAIL TO:<a@b>", 501, b"5.5.4"),
        (b"RCPT FROM:<a@b>", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b", 501, b"5.5.4"),
        (b"MAIL FROM:a@b>", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b>SIZE=1", 501, b"5.5.4"),
        (b'MAIL FROM:<"a@b>', 501, b"5.5.4"),
        (b"MAIL FROM:<a b@c>", 553, b"5.1.7"),
        (b"MAIL FROM:<a@>", 553, b"5.1.7"),
        (b"MAIL FROM:<\xff@b> SMTPUTF8", 553, b"5.1.7"),
        (b"MAIL FROM:<" + b"a" * 900 + b">", 553, b"5.1.7"),
        (b"MAIL FROM:<" + UTF8 + b">", 553, b"5.6.7"),
        (b"MAIL FROM:<a@b> SIZE=", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> SIZE", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=-1", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=" + b"1" * 21, 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=1 size=1", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> SMTPUTF8=1", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> RET=SOME", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> RET=FULL RET=HDRS", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> ENVID=a+3", 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> ENVID=" + b"a" * 101, 501, b"5.5.4"),
        (b"MAIL FROM:<a@b> NOTIFY=NEVER", 555, b"5.5.4"),
        (b"MAIL FROM:<a@b> =1", 501, b"5.5.4"),
        (b"RCPT TO:<>", 553, b"5.1.3"),
        (b"RCPT TO:<@x>", 553, b"5.1.3"),
        (b"RCPT TO:<a@b@c>", 553, b"5.1.3"),
        (b"RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", 501, b"5.5.4"),
        (b"RCPT TO:<a@b> NOTIFY=", 501, b"5.5.4"),
        (b"RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER", 501, b"5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=a@b", 501, b"5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=rfc822;" + b"a" * 494, 501, b"5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=rfc822;" + UTF8, 501, b"5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=utf-8;\xff", 501, b"5.5.4"),
        (b"RCPT TO:<a@b> SIZE=1", 555, b"5.5.4"),
    ],
)
def test_refuses(line: bytes, code: int, status: bytes) -> None:
    """What a client may not say, and what it hears."""
    with pytest.raises(Refused) as refused:
        parse(line)
    assert (refused.value.reply.code, refused.value.reply.status) == (code, status)
    assert not refused.value.fatal


@pytest.mark.parametrize(
    "line", [b"BDAT", b"BDAT x", b"BDAT -1", b"BDAT 1 LAST x", b"BDAT 1LAST", b"BDAT " + b"9" * 21]
)
def test_bdat_garbage_is_fatal(line: bytes) -> None:
    """After a BDAT without a number nobody knows where the next command begins."""
    with pytest.raises(Refused) as refused:
        parse(line)
    assert refused.value.fatal


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST /x HTTP/1.0", b"CONNECT mx:25 HTTP/1.1"])
def test_web_browsers_are_cut_off(line: bytes) -> None:
    """A page that makes a browser post SMTP commands to us does not get them executed."""
    with pytest.raises(Refused) as refused:
        parse(line)
    assert refused.value.fatal


def test_check_ascii() -> None:
    """UTF-8 in a recipient or its ORCPT needs a transaction with SMTPUTF8 (RFC 6531 3.5)."""
    check_ascii(Rcpt(b"a@b", b"", b"rfc822;a@b"))
    for rcpt in (Rcpt(UTF8), Rcpt(b"a@b", b"", b"utf-8;" + UTF8)):
        with pytest.raises(Refused):
            check_ascii(rcpt)


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"MAIL FROM:<a@b", b"MAIL FROM:<a@b"),
        (b"AUTH PLAIN AGEAYg==", b"AUTH"),
        (b"auth plain AGEAYg==", b"AUTH"),
        (b"AGEAYg==", b"?"),
        (b"", b"?"),
        (b"RCPT " + b"x" * 1000, b"RCPT " + b"x" * 195),
    ],
)
def test_loggable(line: bytes, want: bytes) -> None:
    """A refused line is logged but for what may be a password."""
    assert loggable(line) == want


ARGUMENT = st.lists(
    st.sampled_from(
        [b"FROM:", b"TO:", b"<", b">", b"@", b'"', b"\\", b" ", b"a", b".", b":", b"SIZE=1", b"=", b"\xc3\xa4"]
    )
)


@given(
    st.one_of(
        st.binary(max_size=100),
        st.tuples(st.sampled_from([b"MAIL ", b"RCPT ", b"BDAT "]), ARGUMENT.map(b"".join)).map(b"".join),
    )
)
def test_any_line(line: bytes) -> None:
    """Any line is a command or is refused; an address has no control byte and no angle bracket that was not quoted."""
    try:
        command = parse(line)
    except Refused as refused:
        assert refused.reply.code in (500, 501, 502, 553, 555)
        assert refused.reply.encode().isascii()
    else:
        if isinstance(command, Rcpt):
            assert command.recipient
            assert not any(byte < 32 for byte in command.recipient)


@pytest.mark.parametrize(
    "filler", [b"\t", b" ", b"a", b'"', b"\\", b"<", b">", b":", b"@a:", b"a.", b'""', b"+AA", b"A=1 "]
)
@pytest.mark.parametrize(
    "head", [b"MAIL FROM:", b"MAIL FROM:<", b'MAIL FROM:<"', b"RCPT TO:<@", b"RCPT TO:<a@b> ORCPT=utf-8;"]
)
@pytest.mark.parametrize("tail", [b"", b'"', b"(", b"\xff"])
def test_no_line_is_slow(head: bytes, filler: bytes, tail: bytes) -> None:
    """A line of 4096 bytes that is made to confuse the matcher does not: some milliseconds, and not a second."""
    line = head + filler * ((4096 - len(head)) // len(filler)) + tail
    started_s = time.process_time()
    try:
        parse(line)
    except Refused:
        pass
    assert time.process_time() - started_s < 1  # of CPU
