"""Attack: learn from answers, or from how much is computed, which names exist.  Work is counted, not timed."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qm.disk import hashes, passwd
from qm.disk.control import Controls
from qm.unix.loop import Loop
from qm.userd import logins, policy
from qm.userd.logins import Logins
from qm.userd.workers import Workers
from qm.wire import scram
from qm.wire.storedsecret import Secrets
from qm.wire.userquery import AskLogin, AskScram, Login, LoginAnswer, Method, Refused, Scram

ANN = Login(b"ann", 1001, 1002, b"/home/ann", b"/bin/sh")
APP_SECRET = b"k3vd-9tqa-xw2m-hh7p-c4fz-r6ju"


def counting(monkeypatch: pytest.MonkeyPatch, module: object, *names: str) -> Counter[str]:
    """Count the calls of functions, which go on as they were."""
    counts: Counter[str] = Counter()

    def watched(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            counts[name] += 1
            return function(*arguments, **keywords)

        return call

    for name in names:
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    return counts


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one user, who has a password and an app password."""
    monkeypatch.chdir(tmp_path)
    for name in ("users", "control"):
        (tmp_path / name).mkdir()
    (tmp_path / "control/me").write_text("me.example\n")
    (tmp_path / "control/logins").write_text("passwd\n")
    (tmp_path / "control/roles").write_text("qmailp:64004:64000\n")
    monkeypatch.setattr(hashes, "TIME_COST", 1)
    monkeypatch.setattr(hashes, "MEMORY_KIB", 8)
    passwd.put(b"ann", b"secret", ANN)
    passwd.put_app(b"ann", b"phone")
    return tmp_path


class Asked:
    """The logins of userd, with its workers; *jobs* are what it gives to them."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.logins = Logins(self.loop, Controls(logins.CONTROLS), lambda text: None)
        self.jobs: list[bytes] = []

    def answer(self, question: AskLogin) -> LoginAnswer:
        answers: list[LoginAnswer] = []

        def reply(answer: LoginAnswer) -> None:
            answers.append(answer)
            self.loop.stop()

        found = self.logins.login(question, reply)
        if found is None:
            self.loop.run()
        return found if found is not None else answers[0]


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """userd's logins, watched."""
    asked = Asked()
    give = Workers.give

    def watched(workers: Workers, record: bytes, report: Callable[[bytes | None], None]) -> None:
        asked.jobs.append(record)
        give(workers, record, report)

    monkeypatch.setattr(Workers, "give", watched)
    yield asked
    asked.logins.close()


@pytest.mark.parametrize("secret", [b"wrong", APP_SECRET, b"x" * 600, "gr\u00fcn".encode()])
def test_a_password_costs_one_job(asked: Asked, secret: bytes) -> None:
    """Known or not, a name gets the same answer for the price of one job of the same shape."""
    question = AskLogin(Method.PASSWORD, b"ann", secret, b"", b"192.0.2.1")
    answers = [asked.answer(question._replace(name=name)) for name in (b"ann", b"nobody", b"bad name", b"x" * 300)]
    assert len({(one.why, one.unchecked) for one in answers if isinstance(one, Refused)}) == 1
    assert len(asked.jobs) == 4
    fields = [job.split(b"\0")[:-1] for job in asked.jobs]
    known, *unknown = fields
    assert all(one[1] == known[1] for one in unknown), "an unknown name is checked against what was checked last"
    assert all(len(one[2]) == len(known[2]) and one[3] == known[3] for one in unknown), "salt and iterations"
    assert all(one[5] == known[5] for one in unknown)


@pytest.mark.parametrize("secret", [b"wrong", APP_SECRET])
def test_a_job_costs_the_same(monkeypatch: pytest.MonkeyPatch, secret: bytes) -> None:
    """A worker makes one hash, and one PBKDF2 if the password looks like an app password: for everybody."""
    counts = counting(monkeypatch, hashes, "verify_secret", "check")
    made = counting(monkeypatch, scram, "verifier")
    stored = hashes.make(b"secret")
    salt, keys = b"s" * 16, (b"k" * 32,) * 3
    seen = []
    for case in (
        hashes.Stored(stored, stored, 4096, salt, keys),
        hashes.Stored(stored, stored, 4096, salt, ()),
        hashes.Stored(b"", stored, 4096, salt, ()),
        hashes.Stored(b"", b"", 4096, salt, ()),
        hashes.Stored(b"{PLAIN}secret", b"", 4096, salt, ()),
    ):
        counts.clear()
        made.clear()
        assert not hashes.check_any(case, secret)
        seen.append((counts["verify_secret"], counts["check"], made["verifier"]))
    assert set(seen) == {(1, 1, int(secret == APP_SECRET))}


def test_a_name_without_a_password_lets_nobody_in() -> None:
    """What an unknown name is checked against is somebody's: his password is not right for it."""
    stored = hashes.make(b"secret")
    assert not hashes.check_any(hashes.Stored(b"", stored, 4096, b"s", ()), b"secret")


def test_a_proof_costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever the name is and however many passwords he has, as many HMACs are computed."""
    counts = counting(monkeypatch, scram, "proves", "signature")
    verifier = scram.verifier(b"pencil", b"salt", 4096)
    entry = policy.Entry(b"ann", Secrets(b"$6$x$y", verifier), ANN)
    many = entry._replace(secrets=Secrets(b"", None, tuple((b"%d" % n, verifier) for n in range(16))))
    seen = []
    for who in (None, entry, many, entry._replace(secrets=Secrets(b"$6$x$y"))):
        counts.clear()
        policy.proven(who, b"A" * 43 + b"=", b"message")
        seen.append(dict(counts))
    assert seen == [{"proves": policy.VERIFIERS, "signature": policy.VERIFIERS}] * 4


def test_salts_do_not_tell(asked: Asked, home: Path) -> None:
    """A salt is as long, and stays as it is, whether the name exists, is made, or is deleted; nor does case matter."""

    def salt(name: bytes) -> Scram:
        answer = asked.logins.scram(AskScram(name))
        assert isinstance(answer, Scram)
        return answer

    before = salt(b"bob")
    assert before == salt(b"BOB")
    assert (len(before.salt), before.iterations) == (len(salt(b"ann").salt), salt(b"ann").iterations)
    passwd.put(b"bob", b"secret", ANN)
    assert salt(b"bob") == before
    passwd.delete(b"bob")
    assert salt(b"bob") == before
    assert before != salt(b"carl")


@pytest.mark.parametrize("method", [method for method in Method if method is not Method.PASSWORD])
def test_every_method_says_the_same(asked: Asked, method: Method) -> None:
    """By each method a wrong proof for somebody and one for nobody get one answer."""
    secret = b"A" * 43 + b"=" if method is Method.SCRAM_SHA_256 else b"0" * 32
    question = AskLogin(method, b"ann", secret, b"<challenge>", b"192.0.2.1")
    one, other = (asked.answer(question._replace(name=name)) for name in (b"ann", b"nobody"))
    assert isinstance(one, Refused)
    assert isinstance(other, Refused)
    assert (one.why, one.unchecked) == (other.why, other.unchecked)
