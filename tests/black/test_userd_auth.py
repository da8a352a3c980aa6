"""userd's questions for AUTH and submission, over its real socket (docs/INTERNALS.md 1.7)."""

import hmac
import os
import signal
from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import md5, sha256
from pathlib import Path

import pytest

from qm.disk import passwd
from qm.unix.userclient import UserClient, Verdict
from qm.wire import scram
from qm.wire.sasl import Challenge, Done, Exchange, Fault, Peer, Refusal, Step, mechanisms
from qm.wire.userquery import AskLogin, AskScram, Login, LoginAnswer, Method, Refused, Scram
from tests.harness.barehome import BareHome, Daemon, bare_home, running
from tests.harness.waiting import wait_for

BOUND = {b"tls-server-end-point": b"a certificate's hash"}
HERE, THERE = b"127.0.0.1", b"203.0.113.5"


@pytest.fixture
def home() -> Iterator[BareHome]:
    """A home whose ann has a password, an app password, and it all in users/passwd alone."""
    with bare_home(None) as home:
        assert home.run("qm-newu").returncode == 0
        home.control("authfaildelay", "0\n")
        home.control("logins", "passwd\n")
        put(home, b"ann", b"pencil")
        yield home


@pytest.fixture
def daemon(home: BareHome) -> Iterator[Daemon]:
    with running(home, "qm-userd") as daemon:
        yield daemon


@pytest.fixture
def ask(home: BareHome, daemon: Daemon) -> Iterator[UserClient]:
    with client(home) as ask:
        yield ask


def client(home: BareHome) -> UserClient:
    return UserClient(str(home.folder / "users/socket"), 20.0)


def put(home: BareHome, name: bytes, secret: bytes, *, apop: bool = False) -> None:
    login = Login(b"ann", home.mailbox_uid, home.mailbox_uid, b"home/ann", b"/bin/sh")
    passwd.put(name, secret, login, apop=apop, directory=str(home.folder / "users"))


def guess(ask: UserClient, secret: bytes, name: bytes = b"ann", address: bytes = THERE) -> LoginAnswer:
    return ask.answer(AskLogin(Method.PASSWORD, name, secret, b"", address))


def hang_up(daemon: Daemon, ask: UserClient) -> None:
    """SIGHUP, which its loop has seen at the latest in the turn of the second question after it."""
    daemon.process.send_signal(signal.SIGHUP)
    ask.exists(b"")
    ask.exists(b"")


class Sasl:
    """A client of SASL whose server is an Exchange that asks a real userd."""

    def __init__(self, ask: UserClient, mechanism: bytes, *, client: bytes = b"", address: bytes = THERE) -> None:
        stored = ask.mechanisms()
        offered = mechanisms(stored, encrypted=True, clear=False, bindings=BOUND, client=client)
        self.asked: list[AskLogin] = []
        self._ask = ask
        self._empty = b"="  # as an initial response (RFC 4954 4)
        self._nonce = os.urandom(16).hex().encode()
        self.exchange = Exchange(mechanism, Peer(address, b"mx.example", self._nonce, offered, BOUND, client))

    def say(self, line: bytes | None) -> Step:
        step = self.exchange.receive(None if line is None else b64encode(line) or self._empty)
        self._empty = b""
        while isinstance(step, AskLogin | AskScram):
            if isinstance(step, AskScram):
                step = self.exchange.answered(self._ask.answer(step))
            else:
                self.asked.append(step)
                step = self.exchange.answered(self._ask.answer(step))
        return step


def scram_login(sasl: Sasl, secret: bytes, name: bytes = b"ann", header: bytes = b"n,,", binding: bytes = b"") -> Step:
    """RFC 5802's client; it checks our signature."""
    first = b"n=%b,r=clientnonce" % name
    step = sasl.say(header + first)
    assert isinstance(step, Challenge), step
    server_first = b64decode(step.line)
    nonce, salt, iterations = (part[2:] for part in server_first.split(b","))
    final = b"c=%b,r=%b" % (b64encode(header + binding), nonce)
    message = b",".join((first, server_first, final))
    salted = scram.pbkdf2_hmac("sha256", secret, b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(sha256(client_key).digest(), message, "sha256")
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    step = sasl.say(final + b",p=" + b64encode(proof))
    if isinstance(step, Challenge):
        expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        assert b64decode(step.line) == b"v=" + b64encode(expected)
        step = sasl.say(b"")
    return step


def name_of(step: Step) -> bytes:
    assert isinstance(step, Done), step
    return step.login.name


def fault(step: Step) -> Fault:
    assert isinstance(step, Refusal), step
    return step.fault


# mechanisms


def test_scram(ask: UserClient) -> None:
    """A password of qm-passwd's logs in by SCRAM-SHA-256, in any case of the name; a wrong one and nobody do not."""
    assert name_of(scram_login(Sasl(ask, b"SCRAM-SHA-256"), b"pencil")) == b"ann"
    assert name_of(scram_login(Sasl(ask, b"SCRAM-SHA-256"), b"pencil", b"ANN")) == b"ann"
    for secret, name in ((b"pencils", b"ann"), (b"", b"ann"), (b"pencil", b"nobody")):
        assert fault(scram_login(Sasl(ask, b"SCRAM-SHA-256"), secret, name)) is Fault.WRONG


def test_scram_plus(ask: UserClient) -> None:
    """With -PLUS the client's view of the channel must be ours; -PLUS that went missing on the way is noticed."""
    header = b"p=tls-server-end-point,,"
    plus, binding = b"SCRAM-SHA-256-PLUS", BOUND[b"tls-server-end-point"]
    assert name_of(scram_login(Sasl(ask, plus), b"pencil", header=header, binding=binding)) == b"ann"
    assert fault(scram_login(Sasl(ask, plus), b"pencil", header=header, binding=b"another's")) is Fault.WRONG
    step = Sasl(ask, b"SCRAM-SHA-256").say(b"y,,n=ann,r=clientnonce")
    assert fault(step) is Fault.WRONG


def test_app_passwords(home: BareHome, ask: UserClient) -> None:
    """An app password logs in by PLAIN and by SCRAM beside the user's own, until it is revoked."""
    folder = str(home.folder / "users")
    phone, laptop = (passwd.put_app(b"ann", label, directory=folder) for label in (b"phone", b"laptop"))
    for secret in (phone, laptop, b"pencil"):
        assert name_of(scram_login(Sasl(ask, b"SCRAM-SHA-256"), secret)) == b"ann"
        assert name_of(Sasl(ask, b"PLAIN").say(b"\0ann\0" + secret)) == b"ann"
    passwd.revoke(b"ann", b"phone", folder)
    assert fault(scram_login(Sasl(ask, b"SCRAM-SHA-256"), phone)) is Fault.WRONG
    assert fault(Sasl(ask, b"PLAIN").say(b"\0ann\0" + phone)) is Fault.WRONG
    assert name_of(Sasl(ask, b"PLAIN").say(b"\0ann\0" + laptop)) == b"ann"


def test_cram_md5(home: BareHome, ask: UserClient) -> None:
    """CRAM-MD5 is offered when every password is stored as it is, and then logs in."""
    assert b"CRAM-MD5" not in ask.mechanisms()
    put(home, b"ann", b"pencil", apop=True)
    sasl = Sasl(ask, b"CRAM-MD5")
    step = sasl.say(None)
    assert isinstance(step, Challenge)
    digest = hmac.digest(b"pencil", b64decode(step.line), md5).hex().encode()
    assert name_of(sasl.say(b"ann " + digest)) == b"ann"
    again = Sasl(ask, b"CRAM-MD5")
    again.say(None)
    assert fault(again.say(b"ann " + digest)) is Fault.WRONG, "each challenge is another"


def test_external(home: BareHome, ask: UserClient) -> None:
    """A certificate's name logs in if qm-passwd --certificate has allowed it."""
    assert fault(Sasl(ask, b"EXTERNAL", client=b"ann").say(b"")) is Fault.UNKNOWN
    passwd.allow_certificate(b"ann", directory=str(home.folder / "users"))
    assert name_of(Sasl(ask, b"EXTERNAL", client=b"ann").say(b"")) == b"ann"
    assert fault(Sasl(ask, b"EXTERNAL", client=b"bob").say(b"")) is Fault.WRONG


def test_what_is_offered(home: BareHome, daemon: Daemon, ask: UserClient) -> None:
    """What serves every login; control/authmechanisms changes that to what serves some."""
    assert ask.mechanisms() == (b"LOGIN", b"PLAIN", b"SCRAM-SHA-256")
    put(home, b"bob", b"pencil", apop=True)
    assert ask.mechanisms() == (b"LOGIN", b"PLAIN", b"SCRAM-SHA-256")
    home.control("authmechanisms", "CRAM-MD5\nPLAIN\n")
    hang_up(daemon, ask)
    assert ask.mechanisms() == (b"CRAM-MD5", b"PLAIN")


def test_a_password_in_composed_letters(home: BareHome, ask: UserClient) -> None:
    """A password is the same however its letters are composed (RFC 4013)."""
    put(home, b"ann", "gru\u0308n".encode())
    assert name_of(Sasl(ask, b"PLAIN").say("\0ann\0gr\u00fcn".encode())) == b"ann"
    assert name_of(scram_login(Sasl(ask, b"SCRAM-SHA-256"), "gr\u00fcn".encode())) == b"ann"


# senders and limits


def test_senders(home: BareHome, daemon: Daemon, ask: UserClient) -> None:
    """A login writes from what is delivered to it, and from what control/authsenders allows."""
    (home.folder / "home/ann/.qmail-list").touch()
    login = guess(ask, b"pencil")
    assert isinstance(login, Login)
    for address in (b"ann@me.example", b"ann-list@me.example", b"ANN", b""):
        assert ask.sender(login, address).verdict is Verdict.YES, address
    for address in (b"ann-other@me.example", b"postmaster@me.example", b"ann@elsewhere.example", b"a\0b", b"x" * 5000):
        assert ask.sender(login, address).verdict is Verdict.NO, address
    home.control("authsenders", "ann:@elsewhere.example\n")
    hang_up(daemon, ask)
    assert ask.sender(login, b"ann@elsewhere.example").verdict is Verdict.YES
    home.control("authsenders", "ann\n")
    hang_up(daemon, ask)
    assert ask.sender(login, b"ann@elsewhere.example").verdict is Verdict.YES
    daemon.wait_for_log("control/authsenders: not login:address")


def test_limits(home: BareHome, ask: UserClient) -> None:
    """Over a limit an hour the answer is later, and the first of them says so."""
    home.control("limitrecipients", "10\n")
    login = guess(ask, b"pencil")
    assert isinstance(login, Login)
    wait_for(lambda: ask.spend(login, 11, [b"a"]).verdict is Verdict.LATER, "control/limitrecipients is taken up")
    assert ask.spend(login, 3, [b"a.example", b"b.example"]).verdict is Verdict.YES
    found = ask.spend(login, 10_000, [b"%d.example" % number for number in range(10_000)])
    assert (found.verdict, found.text, found.first) == (Verdict.LATER, b"control/limitrecipients: 10 in an hour", False)


# failures


def test_failures_from_one_address(home: BareHome, daemon: Daemon, ask: UserClient) -> None:
    """After so many failures an address is refused unseen, by every method, until SIGHUP; others are not."""
    home.control("authfailaddress", "5\n")
    hang_up(daemon, ask)
    answers = [guess(ask, b"guess%d" % number, b"name%d" % number) for number in range(6)]
    assert [isinstance(answer, Refused) and answer.unchecked for answer in answers] == [False] * 5 + [True]
    assert isinstance(guess(ask, b"pencil"), Refused)
    assert fault(scram_login(Sasl(ask, b"SCRAM-SHA-256"), b"pencil")) is Fault.LOCKED
    assert name_of(scram_login(Sasl(ask, b"SCRAM-SHA-256", address=b"198.51.100.9"), b"pencil")) == b"ann"
    hang_up(daemon, ask)
    assert isinstance(guess(ask, b"pencil"), Login)


def test_answers_are_delayed(home: BareHome, daemon: Daemon, ask: UserClient) -> None:
    """userd says how long a refusal should wait: longer with each failure of that address."""
    home.control("authfaildelay", "3\n")
    hang_up(daemon, ask)
    answers = [guess(ask, b"guess%d" % number) for number in range(3)]
    assert [answer.delay_s for answer in answers if isinstance(answer, Refused)] == [3, 6, 12]


def test_salt_is_made_once(home: BareHome) -> None:
    """What unknown names get as a salt is the same after a restart."""
    found = set()
    for _ in range(2):
        with running(home, "qm-userd"), client(home) as ask:
            found.add(ask.answer(AskScram(b"nobody")))
    assert len(found) == 1
    assert all(isinstance(answer, Scram) for answer in found)
    assert len((home.folder / "users/salt").read_bytes()) == 32


def test_a_broken_salt(home: BareHome) -> None:
    """A key that is cut off is refused at the start, with its name."""
    Path(home.folder / "users/salt").write_bytes(b"short")
    result = home.run("qm-userd")
    assert result.returncode == 111
    assert b"users/salt: not 32 bytes" in result.stderr


def test_broken_logins(home: BareHome) -> None:
    """A control/logins that makes no sense is refused at the start: nobody is let in by a guess at it."""
    home.control("logins", "passwrd\n")
    result = home.run("qm-userd")
    assert result.returncode == 111
    assert b"control/logins: not" in result.stderr
