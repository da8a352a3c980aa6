"""QMTP: qm-qmtpd takes messages for many, one after another, and answers for each recipient (qmail.md 16.7)."""

import os
import re
import socket

import pytest

from tests.harness.suite import DOMAIN, HOST, Suite

ANN = b"ann@" + DOMAIN.encode()
TEXT = b"Subject: test\n\nHi\n"


def _served(suite: Suite, *words: str) -> Suite:
    """The suite with qm-qmtpd behind tcpserver; *words* are its environment."""
    suite.stop()
    suite.service("qmtp", " ".join([*words, f"tcpserver -H -R -l {DOMAIN} {HOST} 0 qm-qmtpd"]))
    suite.start()
    return suite


@pytest.fixture
def qmtp(suite: Suite) -> Suite:
    return _served(suite)


def _net(text: bytes) -> bytes:
    return b"%d:%b," % (len(text), text)


def _package(text: bytes, sender: bytes, *recipients: bytes) -> bytes:
    return _net(text) + _net(sender) + _net(b"".join(map(_net, recipients)))


def _say(suite: Suite, data: bytes) -> list[bytes]:
    """What qm-qmtpd answers to *data* and the end of it."""
    with socket.create_connection((HOST, suite.port("qmtp")), 10) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        said = b""
        while piece := peer.recv(4096):
            said += piece
    answers = []
    while said:
        length, _, rest = said.partition(b":")
        answers.append(rest[: int(length)])
        assert rest[int(length) : int(length) + 1] == b","
        said = rest[int(length) + 1 :]
    return answers


def _queued(suite: Suite) -> list[str]:
    return os.listdir(suite.home / "queue/new") + os.listdir(suite.home / "queue/cur")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"\n" + TEXT, TEXT),
        (b"\r" + TEXT.replace(b"\n", b"\r\n"), TEXT),
        (b"\rSubject: x\r\n\r\na\rb\r\r\n\n", b"Subject: x\n\na\rb\r\n\n"),
    ],
)
def test_a_message_comes_in(qmtp: Suite, text: bytes, kept: bytes) -> None:
    """With either kind of line ends, and with a Received field that says QMTP."""
    (answer,) = _say(qmtp, _package(text, b"bob@x.test", ANN))
    assert re.fullmatch(rb"Kok \d+ id [0-9a-z]+", answer)
    (mail,) = qmtp.wait_for_mail()
    assert mail.endswith(b"\n" + kept) and b"with QMTP" in mail and b"Return-Path: <bob@x.test>" in mail


def test_many_messages_on_one_connection(qmtp: Suite) -> None:
    """One after another, each with an answer for each of its recipients, in their order."""
    others = b"ann@elsewhere.test", b"no.such@" + DOMAIN.encode(), b"a\0b@c"
    package = _package(b"\n" + TEXT, b"bob@x.test", ANN, *others)
    answers = _say(qmtp, package * 5)
    assert [answer[:1] for answer in answers] == [b"K", b"D", b"D", b"D"] * 5
    assert [answer.rpartition(b"#")[2] for answer in answers[1:4]] == [b"5.7.1)", b"5.1.1)", b"5.1.3)"]
    assert len(qmtp.wait_for_mail(5)) == 5


@pytest.mark.parametrize(
    ("sender", "recipients", "status"),
    [
        (b"x" * 1100, [ANN, ANN], b"#5.1.7"),
        (b"a\0@b", [ANN], b"#5.1.7"),
        (b"a@b", [b"c@elsewhere.test"], b"#5.7.1"),
        (b"a@b", [b"x" * 1100, b""], b"#5.1.3"),
        (b"a@b", [], b""),
    ],
)
def test_nobody_is_left(qmtp: Suite, sender: bytes, recipients: list[bytes], status: bytes) -> None:
    """Without a good recipient nothing is queued; a bad sender is bad for all."""
    answers = _say(qmtp, _package(b"\n" + TEXT, sender, *recipients))
    assert len(answers) == len(recipients)
    assert all(answer[:1] == b"D" and status in answer for answer in answers)
    assert not _queued(qmtp)


def test_relayclient(suite: Suite) -> None:
    """Whom the rules let relay may send anywhere, with what they say behind each address."""
    _served(suite, "RELAYCLIENT=.via.test")
    long = b"x@" + b"y" * (1000 - len(b"x@.via.test"))
    answers = _say(suite, _package(b"\n" + TEXT, b"a@b", b"c@elsewhere.test", long + b"y", long))
    assert [answer[:1] for answer in answers] == [b"K", b"D", b"K"]
    suite.wait_for_log(r"starting delivery \d+: msg \w+ to remote c@elsewhere\.test\.via\.test")


def test_databytes(suite: Suite) -> None:
    """A message that is too large is read to its end and refused for all; the next one on the connection is not."""
    _served(suite, "DATABYTES=200000")
    large, small = (_package(b"\n" + b"x" * size, b"a@b", ANN, b"c@d.test") for size in (200_001, 200_000))
    answers = _say(suite, large + small)
    assert [answer[:1] for answer in answers] == [b"D", b"D", b"K", b"D"]
    assert b"#5.3.4" in answers[0]


def test_morercpthosts(qmtp: Suite) -> None:
    """Domains of the cdb are ours, too."""
    (qmtp.home / "control/morercpthosts").write_text(".more.test\n")
    qmtp.run("qm-newmrh")
    answers = _say(qmtp, _package(b"\n" + TEXT, b"a@b", b"c@d.More.test", b"c@more.test"))
    assert [answer[:1] for answer in answers] == [b"K", b"D"]


GOOD = _package(b"\n" + TEXT, b"a@b", ANN)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"EHLO x\r\n",
        b"\0" * 1000,
        b"0:," + GOOD,
        b"2:ab," + GOOD,
        b"999999999:\n",
        b"-1:\n,",
        GOOD[:-1],
        GOOD[:-4],
        GOOD[:10],
        GOOD[:-1] + b";",
        _net(b"\nx") + _net(b"a@b") + _net(_net(ANN) + b"9:x"),
        _net(b"\nx") + _net(b"a@b") + _net(_net(ANN)[:-1]),
        _net(b"\nx") + _net(b"a@b") + _net(b"1:a," * 100_001),
    ],
)
def test_no_qmtp(qmtp: Suite, data: bytes) -> None:
    """What is no QMTP, or ends too early, gets no answer, and nothing is queued."""
    try:
        assert _say(qmtp, data) == []
    except ConnectionResetError:
        pass  # it has not read all that was sent
    assert not _queued(qmtp)


def test_what_came_before_stays(qmtp: Suite) -> None:
    """A message that was answered is queued, whatever comes behind it."""
    assert [answer[:1] for answer in _say(qmtp, GOOD + GOOD[:-5])] == [b"K"]
    assert len(qmtp.wait_for_mail()) == 1


def test_without_a_queue(qmtp: Suite) -> None:
    """When the queue cannot take it the answer is Z, with one status."""
    (qmtp.home / "queue/socket").rename(qmtp.home / "queue/elsewhere")
    (answer,) = _say(qmtp, GOOD)
    assert re.fullmatch(rb"Z.*\(#4\.\d\.\d\)", answer), answer
