"""What strangers send, to the whole suite: a clear answer, nothing lost, nothing let in, everybody else served.

The parsers have their own tests with any bytes; here are the real programs on a real connection, and what is in the
mailbox afterwards.  What is wrong with files instead of clients is in test_bad_files.py.
"""

import os
import random
import re
from pathlib import Path

from tests.harness.dialogue import Dialogue
from tests.harness.suite import DOMAIN, Suite

ANN = f"ann@{DOMAIN}"
BEGIN = f"EHLO client.example\r\nMAIL FROM:<bob@elsewhere.example>\r\nRCPT TO:<{ANN}>\r\n".encode()
GREETED = [220, 250, 250, 250]  # what is said to BEGIN
MEGABYTE = 1_000_000
SMALL = 40 << 20  # bytes that a process of ours has, whatever it is sent


def _subjects(suite: Suite, name: str = "ann") -> list[bytes]:
    return [line for text in suite.mail(name) for line in text.split(b"\n\n")[0].split(b"\n") if b"Subject:" in line]


def _nothing_but(suite: Suite, *subjects: bytes) -> None:
    """The suite still takes mail, there is no other mail in the mailbox than *subjects*, and nothing in the queue."""
    suite.send(ANN, b"Subject: after\r\n\r\nx\r\n")
    suite.wait_for_mail(len(subjects) + 1)
    suite.wait_until_idle()
    assert sorted(_subjects(suite)) == sorted([*(b"Subject: " + s for s in subjects), b"Subject: after"])
    _log_is_clean(suite)


def _log_is_clean(suite: Suite) -> None:
    """Printable ASCII, whatever a stranger has sent."""
    for path in suite.home.glob("log/*"):
        assert re.fullmatch(rb"[ -~\n]*", path.read_bytes())


def _peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024  # type: ignore[index]


# SMTP: commands


BAD_BYTES = [b"EHLO a\0b", b"EHLO \x1b[2Jx\x07", b"HELO \x7f", b"MAIL FROM:<a\0@b.ex>", b"NOOP \r \r", b"\0", b"\xff"]


def test_nul_control_and_8_bit_bytes_in_commands(suite: Suite) -> None:
    """They are refused with 5xx, come back neither in an answer nor in the log, and the session goes on."""
    for count, line in enumerate(BAD_BYTES):
        with Dialogue(suite.smtp_port) as client:
            client.reply()
            assert re.fullmatch(rb"5\d\d 5\.[0-9.]+ [ -~]+", client.ask(line))
            client.say(BEGIN + b"DATA\r\n")
            assert client.codes(4) == [250, 250, 250, 354]
            assert client.ask(b"Subject: %d\r\n\r\nx\r\n." % count).startswith(b"250 ")
    _nothing_but(suite, *(b"%d" % count for count in range(len(BAD_BYTES))))


def test_ehlo_with_8_bit_bytes(suite: Suite) -> None:
    """A name of bytes that RFC 6531 allows leaves our Received field valid and our log ASCII."""
    with Dialogue(suite.smtp_port) as client:
        client.say(b"EHLO \xc3\xa4 (x) [\r\n" + BEGIN.split(b"\r\n", 1)[1] + b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n")
        assert client.codes(6) == [*GREETED, 354, 250]
    (text,) = suite.wait_for_mail()
    assert text.startswith(b"Return-Path: <bob@elsewhere.example>\nDelivered-To: ") and text.isascii()
    _nothing_but(suite, b"x")


def test_nul_and_8_bit_bytes_in_a_message(suite: Suite) -> None:
    """They are data: each of the 254 bytes that are no line end arrives as it was sent."""
    body = bytes(set(range(256)) - {10, 13})
    suite.send(ANN, b"Subject: bytes\r\n\r\n" + body + b"\r\n")
    (text,) = suite.wait_for_mail()
    assert text.endswith(b"Subject: bytes\n\n" + body + b"\n")


def test_a_command_line_of_a_megabyte(suite: Suite) -> None:
    """It is one error; the next command works, and nobody has grown by it."""
    with Dialogue(suite.smtp_port) as client:
        client.say(b"x" * MEGABYTE + b"\r\n" + BEGIN)
        assert client.codes(5) == [220, 500, 250, 250, 250]
        (worker,) = client.holders(suite.pids())
        assert _peak_bytes(worker) < SMALL
        client.say(b"MAIL FROM:<" + b"a" * MEGABYTE + b"@b.example>\r\nNOOP\r\n")
        assert client.codes(2) == [500, 250]
    with Dialogue(suite.pop3_port) as client:
        client.say(b"USER " + b"a" * (MEGABYTE // 2) + b"\r\nUSER ann\r\nPASS secret\r\n")
        assert [client.line()[:4] for _ in range(4)] == [b"+OK ", b"-ERR", b"+OK", b"+OK "]
        client.say(b"RETR " + b"1" * (MEGABYTE // 2) + b"\r\nSTAT\r\n")
        assert [client.line()[:4] for _ in range(2)] == [b"-ERR", b"+OK "]
    _nothing_but(suite)


def test_an_endless_line(suite: Suite) -> None:
    """Nobody keeps it, and it ends with the connection: in SMTP, in POP3 before login and after."""
    for service, login in (("smtp", b""), ("pop3", b""), ("pop3", b"USER ann\r\nPASS secret\r\n")):
        with Dialogue(suite.port(service)) as client:
            client.say(login)
            assert all(client.line()[:3] in (b"220", b"+OK") for _ in range(1 + login.count(b"\n")))
            workers = client.holders(suite.pids())
            went = client.pour(b"x" * 65536 for _ in range(20_000))
            assert MEGABYTE <= went < 20 * MEGABYTE  # the kernel's buffers come to our limit
            assert all(_peak_bytes(pid) < SMALL for pid in workers if Path(f"/proc/{pid}").exists())
    _nothing_but(suite)


def test_a_hundred_thousand_recipients(suite: Suite) -> None:
    """As many as control/maxrecipients are taken, as many more told to come again, then the session is over."""
    suite.control("maxrecipients", "100\n")
    with Dialogue(suite.smtp_port) as client:
        client.say(BEGIN)
        assert client.codes(4) == GREETED
        (worker,) = client.holders(suite.pids())
        client.pour(f"RCPT TO:<{ANN}>\r\n".encode() * 1000 for _ in range(100))
        codes = [int(line[:3]) for line in client.rest().splitlines()]
        assert codes[: 99 + 100] == [250] * 99 + [452] * 100
        assert set(codes[99 + 100 :]) <= {552, 421} and len(codes) < 300
        assert not Path(f"/proc/{worker}").exists() or _peak_bytes(worker) < SMALL
    _nothing_but(suite)


GARBAGE = [
    b"MAIL", b"MAIL FROM", b"MAIL FROM:", b"MAIL FROM:<", b"MAIL FROM:<>>", b"MAIL FROM:<a@b", b"MAIL FROM:a b@c",
    b"MAIL FROM:<a@b>SIZE=1", b"MAIL FROM:<a@b> SIZE=x", b"MAIL FROM:<a@b> SIZE=1 SIZE=1", b"MAIL FROM:<a@b> AUTH=<>",
    b"MAIL FROM:<a@b> BODY=BINARYMIME", b"MAIL TO:<a@b>", b"MAIL FROM:<\xc3\xa4@b.example>",
    b"MAIL FROM:<a@b> RET=NONE", b"MAIL FROM:<\"a@b>", b"MAIL FROM:<a@b> SIZE=999999999999999999999",
    b"MAIL FROM:<" + b"a" * 900 + b"@b>",
]  # fmt: skip
RCPT_GARBAGE = [
    b"RCPT", b"RCPT TO:", b"RCPT TO:<>", b"RCPT TO:<@>", b"RCPT TO:<ann>", b"RCPT TO:<ann@>", b"RCPT TO:<ann@test.ex",
    b"RCPT TO:<a\\>@test.example>", b"RCPT TO:<ann@test.example> NOTIFY=NEVER,SUCCESS", b"RCPT TO:<|sh@test.example>",
    b"RCPT TO:<ann@test.example> ORCPT=x", b"RCPT TO:<ann@test.example> X=Y", b"RCPT TO:<../ann@test.example>",
    b"RCPT TO:<ann@test.example@elsewhere.example>", b"RCPT TO:<ann%elsewhere.example@test.example>",
    b"RCPT TO:<@test.example:bob@elsewhere.example>", b"RCPT TO:<ann@[127.0.0.2]>", b"RCPT TO:<~ann@test.example>",
]  # fmt: skip


def test_garbage_in_mail_and_rcpt(suite: Suite) -> None:
    """Each is refused for good with a reason, none opens a transaction or adds a recipient."""
    suite.control("maxerrors", "0\n")
    with Dialogue(suite.smtp_port) as client:
        client.reply()
        client.ask(b"EHLO c.example")
        for line in GARBAGE:
            assert re.match(rb"5\d\d 5\.", client.ask(line)), line
            assert client.ask(f"RCPT TO:<{ANN}>".encode()).startswith(b"503 "), line
        client.ask(b"MAIL FROM:<bob@elsewhere.example>")
        for line in RCPT_GARBAGE:
            assert re.match(rb"5\d\d 5\.", client.ask(line)), line
            assert client.ask(b"DATA").startswith(b"503 "), line
    _nothing_but(suite)


def test_pipelined_garbage(suite: Suite) -> None:
    """Lines of any bytes, thousands in one piece, end in a closed session; no line of them is a message."""
    chance = random.Random(20)
    begins = [b"", b"MAIL FROM:<", b"RCPT TO:<ann@", b"BDAT 7 "]
    for _ in range(10):
        lines = [chance.randbytes(chance.randrange(200)) for _ in range(2000)]
        mixed = b"".join(chance.choice(begins) + line + b"\r\n" for line in lines)
        for port in (suite.smtp_port, suite.pop3_port):
            with Dialogue(port) as client:
                client.pour([mixed])
                assert re.fullmatch(rb"([2-5]\d\d[ -][ -~]*\r\n|(\+OK|-ERR)( [ -~]*)?\r\n)+", client.rest())
    _nothing_but(suite)


def test_a_web_browser(suite: Suite) -> None:
    """An HTTP request is cut off at its first line; the SMTP in its body is not executed."""
    with Dialogue(suite.smtp_port) as client:
        client.pour([b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", BEGIN, b"DATA\r\nSubject: evil\r\n\r\nx\r\n.\r\nQUIT\r\n"])
        assert client.codes(3) == [220, 500, 0]
    _nothing_but(suite)


# SMTP: messages


def test_data_cut_off_at_every_byte(suite: Suite) -> None:
    """A client that goes before the last byte of the end leaves nothing, wherever it was."""
    text = b"DATA\r\nSubject: cut\r\n\r\n..\r\nbody\r\n.\r\n"
    for length in range(len(text)):
        with Dialogue(suite.smtp_port) as client:
            client.say(BEGIN + text[:length])
            client.finish()
            assert 250 not in client.codes(6)[4:], text[:length]
    with Dialogue(suite.smtp_port) as client:
        client.say(BEGIN + text)
        assert client.codes(6) == [*GREETED, 354, 250]
    _nothing_but(suite, b"cut")


def test_a_large_message_cut_off(suite: Suite) -> None:
    """What had come of it, in whichever process, is thrown away."""
    with Dialogue(suite.smtp_port) as client:
        client.say(BEGIN + b"DATA\r\nSubject: cut\r\n\r\n")
        client.pour(b"x" * 998 + b"\r\n" for _ in range(2000))
        suite.wait_for(lambda: os.listdir(suite.home / "queue/tmp"), "a file that grows")
    suite.wait_until_idle()
    _nothing_but(suite)


def test_a_message_of_10_gb(suite: Suite) -> None:
    """It is refused while it streams, no more of it is listened to than a little over databytes, and none is kept."""
    suite.control("databytes", f"{MEGABYTE}\n")
    with Dialogue(suite.smtp_port) as client:
        assert client.ask(b"NOOP")[:3] == b"220" and client.ask(b"EHLO x")[:3] == b"250"
        client.reply()
        assert client.ask(b"MAIL FROM:<bob@elsewhere.example> SIZE=10000000000").startswith(b"552 5.3.4 ")
        client.say(BEGIN + b"DATA\r\n")
        assert client.codes(4) == [250, 250, 250, 354]
        (worker,) = client.holders(suite.pids())
        block = (b"x" * 998 + b"\r\n") * 64
        went = client.pour(block for _ in range(10_000_000_000 // len(block)))
        assert went < 100 * MEGABYTE
        assert client.reply().startswith(b"552 5.3.4 ")
        assert _peak_bytes(worker) < SMALL
    _nothing_but(suite)


LINE_ENDS = [b"\n", b"\r", b"\r\n", b"\0\r\n", b"\r\0\n", b"\n\r", b"\r\r\n", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8"]


def _endings() -> list[bytes]:
    """What some server somewhere may take for the end of a message, but the true one."""
    pairs = [first + b"." + last for first in LINE_ENDS for last in LINE_ENDS]
    return [ending for ending in pairs if b"\r\n.\r\n" not in ending]


KNOWN = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n"]  # attacks


def _smuggle(suite: Suite, number: int, ending: bytes, cut: int) -> bool:
    """Send one message with another hidden behind *ending*, in two segments cut there; whether it was taken, as one."""
    text = b"Subject: %d\r\n\r\nbody" % number + ending + BEGIN + b"DATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
    cut += text.index(ending)
    with Dialogue(suite.smtp_port) as client:
        client.say(BEGIN + b"DATA\r\n")
        assert client.codes(5) == [*GREETED, 354]
        client.say_in_segments([text[:cut], text[cut:]] if cut else [text])
        client.pour([b"QUIT\r\n"])
        answers = client.rest().splitlines()
    if answers == [b"554 5.6.0 bare CR or LF in the message"]:
        return False
    assert [line[:3] for line in answers] == [b"250", b"221"], (ending, cut)  # it ended with the hidden one's dot
    return True


def test_smuggling(suite: Suite) -> None:
    """Nothing else ends a message: in one segment and in two it is one message afterwards, or none and a closed door.

    In particular the commands that stand behind the ending, and the message behind those, are never executed.
    """
    taken = []
    for number, ending in enumerate(_endings()):
        cuts = range(len(ending) + 1) if ending in KNOWN else [0]
        outcomes = {_smuggle(suite, number, ending, cut) for cut in cuts}
        assert len(outcomes) == 1, ending
        bare = re.search(rb"\r(?!\n)|(?<!\r)\n", ending)
        assert outcomes == {bare is None}, ending
        taken += [b"%d" % number] * len(cuts) if outcomes == {True} else []
    assert 10 < len(taken) < 100
    _nothing_but(suite, *taken)
    assert all(text.count(b"Subject: smuggled") <= 1 for text in suite.mail())


# clients that do not play along


TIMEOUTS = ("timeoutsmtpd", "timeoutdata", "timeoutpop3d")


def test_a_client_that_says_nothing(suite: Suite) -> None:
    """It is left after the time-out: before and in a message, before and after login; nothing is removed or queued.

    Others are served meanwhile.
    """
    suite.send(ANN, b"Subject: kept\r\n\r\nx\r\n")
    suite.wait_for_mail()
    for name in TIMEOUTS:
        suite.control(name, "1\n")
    beginnings = [b"", BEGIN, BEGIN + b"DATA\r\n", BEGIN + b"DATA\r\nSubject: x\r\n"]
    smtp = [Dialogue(suite.smtp_port) for _ in beginnings]
    pop3 = [Dialogue(suite.pop3_port) for _ in range(2)]
    for client, text in zip(smtp, beginnings, strict=True):
        client.say(text)
    pop3[1].say(b"USER ann\r\nPASS secret\r\nDELE 1\r\n")
    suite.send(ANN, b"Subject: meanwhile\r\n\r\nx\r\n")
    for client in smtp:
        assert client.rest().splitlines()[-1].startswith(b"421 4.4.2 ")
    assert [client.rest().count(b"+OK") for client in pop3] == [1, 4]
    for client in smtp + pop3:
        client.socket.close()
    for name in TIMEOUTS:
        suite.control(name, None)
    _nothing_but(suite, b"kept", b"meanwhile")


def test_a_client_that_never_reads(suite: Suite) -> None:
    """It is left after the time-out with what it has asked for; nobody grows, nothing is removed, others are served."""
    suite.send(ANN, b"Subject: large\r\n\r\n" + (b"x" * 998 + b"\r\n") * 3000)
    suite.wait_for_mail()
    for name in TIMEOUTS:
        suite.control(name, "1\n")
    suite.control("maxcommands", "0\n")
    ports = suite.pop3_port, suite.smtp_port
    with Dialogue(ports[0], receive_buffer=4096) as deaf, Dialogue(ports[1], receive_buffer=4096) as other:
        deaf.say(b"USER ann\r\nPASS secret\r\nDELE 1\r\nRSET\r\n" + b"RETR 1\r\n" * 10 + b"DELE 1\r\nQUIT\r\n")
        assert other.reply().startswith(b"220 ")
        (smtpd,) = other.holders(suite.pids())
        other.pour(b"HELP\r\n" * 10_000 for _ in range(1000))
        assert _peak_bytes(smtpd) < SMALL
        suite.wait_for_log(r"qm-pop3d: \d+ end user=ann ip=127\.0\.0\.1 how=timeout retrieved=\d+ removed=0 left=1 ")
        suite.wait_for_log(r"qm-smtpd: \d+ end how=timeout")
    for name in TIMEOUTS:
        suite.control(name, None)
    _nothing_but(suite, b"large")


# POP3


def test_nonsense_for_dele_and_the_others(suite: Suite) -> None:
    """What is no message's number is answered -ERR and deletes nothing, however it is written."""
    for number in range(2):
        suite.send(ANN, b"Subject: %d\r\n\r\nx\r\n" % number)
    suite.wait_for_mail(2)
    numbers = [b"", b" ", b" 0", b" 3", b" -1", b" +1", b" 1.0", b" 1 2", b" 0x1", b" one", b" 99999999999999999999"]
    numbers += [b" 1\0", b" \xc2\xb9", b" \xd9\xa1", b" 1_0", b"\t1", b" " + b"9" * 490, b" 1;DELE 2"]
    with Dialogue(suite.pop3_port) as client:
        client.say(b"USER ann\r\nPASS secret\r\n")
        assert [client.line()[:3] for _ in range(3)] == [b"+OK"] * 3
        for number in numbers:
            assert client.ask(b"DELE" + number).startswith(b"-ERR "), number
            if len(number) > 1:
                assert client.ask(b"RETR" + number).startswith(b"-ERR "), number
        assert client.ask(b"DELE 1") == b"+OK"
        for command in (b"DELE 1", b"RETR 1", b"LIST 1", b"UIDL 1", b"TOP 1 1"):
            assert client.ask(command).startswith(b"-ERR "), command
        assert client.ask(b"QUIT").startswith(b"+OK")
    _nothing_but(suite, b"1")


def test_retr_while_another_program_deletes(suite: Suite) -> None:
    """A message that vanishes while it is sent arrives whole; afterwards it is an error, and the rest is there."""
    body = b"".join(b"%070d\r\n" % number for number in range(100_000))
    suite.send(ANN, b"Subject: 1\r\n\r\n" + body)
    suite.wait_for_mail()
    suite.send(ANN, b"Subject: 2\r\n\r\nx\r\n")
    suite.wait_for_mail(2)
    with Dialogue(suite.pop3_port, receive_buffer=4096) as client:
        client.say(b"USER ann\r\nPASS secret\r\n")
        assert [client.line()[:3] for _ in range(3)] == [b"+OK"] * 3
        sizes = [int(client.ask(b"LIST %d" % number).split()[2]) for number in (1, 2)]
        large = 1 + sizes.index(max(sizes))
        assert client.ask(b"RETR %d" % large) == b"+OK"
        max(suite.maildir().glob("new/*"), key=lambda path: path.stat().st_size).unlink()
        assert client.text().endswith(body)
        assert client.ask(b"RETR %d" % large).startswith(b"-ERR ")
        assert client.ask(b"RETR %d" % (3 - large)) == b"+OK"
        client.text()
        assert client.ask(b"DELE %d" % large) == b"+OK"
        assert client.ask(b"QUIT").startswith(b"+OK")
    _nothing_but(suite, b"2")


def test_a_looping_message(suite: Suite) -> None:
    """A message with more than control/maxhops Received fields is refused for good."""
    with Dialogue(suite.smtp_port) as client:
        client.say(BEGIN + b"DATA\r\n" + b"Received: x\r\n" * 100 + b"\r\nx\r\n.\r\n")
        assert client.codes(6) == [*GREETED, 354, 554]
    _nothing_but(suite)
