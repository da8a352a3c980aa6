"""TLS with a Postfix at the other end: as who receives from us, and as who sends to us."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.black.test_remote_dane import OTHER
from tests.black.test_remote_sts import StsWorld, answer, policy
from tests.harness.certificates import tlsa
from tests.harness.postfix import Postfix
from tests.harness.suite import DOMAIN, HOST, Suite
from tests.harness.waiting import wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("postfix", "posttls-finger")]
RECEIVER = """\
mydestination = x.test
local_recipient_maps =
local_transport = discard:
smtpd_recipient_restrictions = permit_auth_destination, reject
smtpd_tls_security_level = {level}
smtpd_tls_loglevel = 1
smtpd_tls_chain_files = {certificate}
"""
SENDER = """\
mydestination =
relayhost = [127.0.0.1]:{port}
smtp_tls_security_level = encrypt
smtp_tls_loglevel = 1
"""


class Receiver:
    """A Postfix that is mx.x.test, with a certificate of an authority that the world trusts."""

    def __init__(self, folder: Path, level: str = "may") -> None:
        self.world = StsWorld(folder)
        home = Path(tempfile.mkdtemp(prefix="qm-postfix-", dir="/tmp"))
        home.chmod(0o755)
        self.folder = home
        certificate = home / "chain.pem"
        shutil.copy(self.world.certificate, certificate)
        more = RECEIVER.format(level=level, certificate=certificate)
        self.postfix = Postfix(home / "postfix", more, listen=self.world.port).start()
        self.world.home.control("smtproutes", f"::{self.world.port}\n")

    def log(self) -> str:
        path = self.postfix.home / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        self.postfix.stop()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path_factory.mktemp("receiver"))
    yield receiver
    receiver.stop()


@contextmanager
def _policy(receiver: Receiver, text: str) -> Iterator[None]:
    receiver.world.policy(text)
    try:
        yield
    finally:
        receiver.world.policy("#")


@pytest.mark.parametrize(
    "line, words",
    [("x.test:may", b""), ("x.test:encrypt", b"tlspolicy"), ("x.test:verify mx.x.test", b"tlspolicy")],
)
def test_policies(receiver: Receiver, line: str, words: bytes) -> None:
    """Postfix takes mail under each policy, and says that TLS 1.3 was made."""
    before = receiver.log().count("TLS connection established from")
    with _policy(receiver, line):
        result = receiver.world.deliver(TLSA={"answer": []})
    assert (result.letter, words in result.text) == (b"K", True), result.text
    assert b"TLSv1.3" in result.text
    wait_for(lambda: receiver.log().count("TLS connection established from") > before, "Postfix's line")


def test_a_name_that_it_does_not_have(receiver: Receiver) -> None:
    """A certificate for another name than the policy's carries nothing."""
    with _policy(receiver, "x.test:verify other.test"):
        result = receiver.world.deliver(TLSA={"answer": []})
    assert (result.letter, result.status) == (b"Z", b"4.7.5"), result.text


def test_dane(receiver: Receiver) -> None:
    """A TLSA record of Postfix's key vouches for it; one of another key defers the message."""
    record = tlsa(receiver.world.certificate, 3, 1, 1)
    assert b"DANE" in receiver.world.deliver(record).text
    assert receiver.world.deliver(OTHER).letter == b"Z"


def test_mta_sts(receiver: Receiver) -> None:
    """A policy that names it in enforce mode is met; one that names another defers the message."""
    with receiver.world.https(answer(policy())):
        assert b"MTA-STS" in receiver.world.send().text
    for path in (receiver.world.home.folder / "sts").iterdir():
        path.unlink()
    with receiver.world.https(answer(policy("enforce", "other.x.test"))):
        assert receiver.world.send().letter == b"Z"
    for path in (receiver.world.home.folder / "sts").iterdir():
        path.unlink()


def test_postfix_sends_to_us(make_suite: Callable[[], Suite]) -> None:
    """Postfix's smtp(8), that must encrypt, finds what it needs, and a second message comes by a new session."""
    suite = make_suite().start()
    home = Path(tempfile.mkdtemp(prefix="qm-postfix-", dir="/tmp"))
    home.chmod(0o755)
    postfix = Postfix(home / "postfix", SENDER.format(port=suite.smtp_port)).start()
    try:
        for count in (1, 2):
            message = b"Subject: x\n\n" + b"y" * 70 + b"\n"
            postfix.send(message * 1000 if count == 2 else message, "-f", "bob@elsewhere.example", f"ann@{DOMAIN}")
            mail = suite.wait_for_mail(count)[-1]
            assert re.search(rb"with ESMTPS \(TLSv1\.3 ", mail)
        assert "TLS connection established to 127.0.0.1" in (postfix.home / "maillog").read_text()
    finally:
        postfix.stop()
        shutil.rmtree(home)


@pytest.mark.parametrize("service, options", [("smtp", ()), ("submits", ("-w",))])
def test_posttls_finger(suite: Suite, service: str, options: tuple[str, ...]) -> None:
    """Postfix's own probe makes TLS 1.3, by STARTTLS and from the first byte."""
    argv = ["posttls-finger", "-c", *options, "-l", "encrypt", f"[{HOST}]:{suite.port(service)}"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert re.search(rb"TLS connection established to .*: TLSv1\.3 with cipher", said), said
