"""How many logins may fail."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.userd.budget import DELAY_MAX_S, KNOWN_S, Attempt, Budget, Limits, network
from qm.wire.userquery import AskLogin, Later, Login, LoginAnswer, Method, Refused

LIMITS = Limits(5, 20, 1000, 2)
ANN = Login(b"ann", 1, 1, b"/h", b"/s", b"ann")
WRONG = Refused(b"wrong")
GUESSES = count()
HOME, AWAY = b"192.0.2.1", b"198.51.100.7"


def budget(limits: Limits = LIMITS, keys_max: int = 1000) -> Budget:
    return Budget(b"k" * 32, limits, keys_max)


def attempt(
    tried: Budget,
    now_s: float,
    address: bytes = AWAY,
    name: bytes = b"ann",
    answer: LoginAnswer = WRONG,
    secret: bytes = b"",
) -> LoginAnswer:
    """What the peer gets at last; each secret is another unless one is given."""
    secret = secret or b"guess %d" % next(GUESSES)
    begun = tried.begin(AskLogin(Method.PASSWORD, name, secret, b"", address), now_s)
    return begun if isinstance(begun, Refused) else tried.settle(begun, answer, now_s)


def unseen(answer: LoginAnswer) -> bool:
    return isinstance(answer, Refused) and answer.unchecked


def test_an_address_has_so_many() -> None:
    """Within the limit failures are looked at; then the address is refused unseen, whatever the name."""
    tried = budget()
    assert not any(unseen(attempt(tried, 0.0, name=b"%d" % number)) for number in range(5))
    assert unseen(attempt(tried, 0.0, name=b"other"))
    assert unseen(attempt(tried, 0.0, answer=ANN)), "the password is not looked at"
    assert not unseen(attempt(tried, 0.0, address=HOME))


def test_time_pays() -> None:
    """Each failure is forgotten in its share of the time; after all of it the whole budget is there again."""
    tried = budget()
    for _ in range(6):
        attempt(tried, 0.0)
    assert unseen(attempt(tried, 199.0))
    assert not unseen(attempt(tried, 200.0))
    assert unseen(attempt(tried, 200.0))
    assert not any(unseen(attempt(tried, 2000.0, name=b"x")) for _ in range(5))


def test_the_log_says_why() -> None:
    """A refusal names the limit, its time and its control file."""
    tried = budget()
    answer = [attempt(tried, 0.0) for _ in range(6)][-1]
    assert isinstance(answer, Refused)
    assert answer.why == b"5 failed logins in 1000 s are the most for this address (authfailaddress)"


def test_an_account_has_so_many() -> None:
    """Failures from everywhere count against the account; then only addresses that it is known at are looked at."""
    tried = budget()
    assert attempt(tried, 0.0, address=HOME, answer=ANN) == ANN
    answers = [attempt(tried, 1.0, address=b"203.0.113.%d" % number) for number in range(21)]
    assert [unseen(answer) for answer in answers] == [False] * 20 + [True]
    assert isinstance(answers[-1], Refused)
    assert b"authfailaccount" in answers[-1].why
    assert unseen(attempt(tried, 1.0, address=b"203.0.113.99", answer=ANN))
    assert attempt(tried, 1.0, address=HOME, answer=ANN) == ANN, "the user survives it"
    assert not unseen(attempt(tried, 1.0, name=b"bob"))


def test_a_known_address_has_a_budget_of_its_own() -> None:
    """Who shares the user's address neither locks him out nor may guess without end."""
    tried = budget()
    attempt(tried, 0.0, address=HOME, answer=ANN)
    for number in range(9):
        attempt(tried, 0.0, address=HOME, name=b"%d" % number)
    assert unseen(attempt(tried, 0.0, address=HOME, name=b"bob"))
    assert [unseen(attempt(tried, 0.0, address=HOME)) for _ in range(6)] == [False] * 5 + [True]


def test_known_addresses_age() -> None:
    """An address that an account has not logged in from for a month is a stranger's."""
    tried = budget()
    attempt(tried, 0.0, address=HOME, answer=ANN)
    later_s = KNOWN_S + 1
    for number in range(20):
        attempt(tried, later_s, address=b"203.0.113.%d" % number)
    assert unseen(attempt(tried, later_s, address=HOME, answer=ANN))


def test_attempts_that_are_under_way_count() -> None:
    """Many attempts at once are no way round the limit."""
    tried = budget()
    begun = [tried.begin(AskLogin(Method.PASSWORD, b"ann", b"%d" % n, b"", AWAY), 0.0) for n in range(50)]
    assert sum(isinstance(one, Attempt) for one in begun) == 5


@pytest.mark.parametrize("answer", [ANN, Later(b"trouble")])
def test_what_is_no_failure_costs_nothing(answer: LoginAnswer) -> None:
    """Neither a right password nor our own trouble counts."""
    tried = budget()
    assert not any(unseen(attempt(tried, 0.0, answer=answer)) for _ in range(100))


def test_the_same_wrong_password() -> None:
    """A device that knows an old password fails for ever, and locks nobody out; it waits each time."""
    tried = budget()
    answers = [attempt(tried, 0.0, secret=b"old") for _ in range(100)]
    assert not any(map(unseen, answers))
    assert all(isinstance(answer, Refused) and answer.delay_s >= 2 for answer in answers)


def test_a_proof_is_never_the_same() -> None:
    """What is no password counts each time."""
    tried = budget()
    found = []
    for _ in range(6):
        begun = tried.begin(AskLogin(Method.SCRAM_SHA_256, b"ann", b"proof", b"message", AWAY), 0.0)
        found.append(isinstance(begun, Refused) or tried.settle(begun, WRONG, 0.0) is None)
    assert found == [False] * 5 + [True]


def test_delays() -> None:
    """The answer waits longer with each failure of an address, up to a bound; another's first waits least."""
    tried = budget(Limits(10, 0, 1000, 2))
    delays = [answer.delay_s for _ in range(8) if isinstance(answer := attempt(tried, 0.0), Refused)]
    assert delays == [2, 4, 8, 16, DELAY_MAX_S, DELAY_MAX_S, DELAY_MAX_S, DELAY_MAX_S]
    other = attempt(tried, 0.0, address=HOME)
    assert isinstance(other, Refused)
    assert other.delay_s == 2


def test_an_ipv6_network_is_one() -> None:
    """Whoever has a /64 has 2^64 addresses, and one budget."""
    tried = budget()
    answers = [attempt(tried, 0.0, address=b"2001:db8::%x" % number, name=b"%d" % number) for number in range(6)]
    assert unseen(answers[-1])
    assert not unseen(attempt(tried, 0.0, address=b"2001:db8:0:1::1"))


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (b"192.0.2.1", b"\xc0\0\2\1"),
        (b"::ffff:192.0.2.1", b"\xc0\0\2\1"),
        (b"2001:db8:1:2:3:4:5:6", b"\x20\x01\x0d\xb8\0\1\0\2"),
        (b"fe80::1%eth0", b"\xfe\x80\0\0\0\0\0\0"),
        (b"127.0.0.1", b"lo"),
        (b"::1", b"lo"),
        (b"::ffff:127.0.0.1", b"lo"),
        (b"", b""),
        (b"unknown", b""),
        (b"\xff", b""),
    ],
)
def test_networks(address: bytes, key: bytes) -> None:
    """An IPv4 address however it is written, an IPv6 /64; this machine; nobody knows."""
    assert network(address) == key


@pytest.mark.parametrize("address", [b"127.0.0.1", b"::1", b""])
def test_this_machine(address: bytes) -> None:
    """A webmail's strangers do not lock its users out, but one account at a time has its limit there too."""
    tried = budget()
    assert not any(unseen(attempt(tried, 0.0, address=address, name=b"%d" % number)) for number in range(100))
    assert unseen([attempt(tried, 0.0, address=address) for _ in range(21)][-1])


def test_a_user_of_a_webmail_survives() -> None:
    """Strangers elsewhere do not lock out an account that has logged in on this machine."""
    tried = budget()
    attempt(tried, 0.0, address=b"127.0.0.1", answer=ANN)
    for number in range(30):
        attempt(tried, 1.0, address=b"203.0.113.%d" % number)
    assert attempt(tried, 1.0, address=b"127.0.0.1", answer=ANN) == ANN


def test_no_limits() -> None:
    """0 is no limit."""
    tried = budget(Limits(0, 0, 1000, 0))
    answers = [attempt(tried, 0.0) for _ in range(200)]
    assert not any(map(unseen, answers))
    assert all(isinstance(answer, Refused) and answer.delay_s == 0 for answer in answers)
    assert not any(unseen(attempt(budget(Limits(5, 5, 0, 0)), 0.0)) for _ in range(20))


def test_forget() -> None:
    """What failed is forgiven; where accounts are known stays."""
    tried = budget()
    attempt(tried, 0.0, address=HOME, answer=ANN)
    for number in range(30):
        attempt(tried, 0.0, address=b"203.0.113.%d" % (number % 4))
    tried.forget()
    assert not unseen(attempt(tried, 0.0, address=b"203.0.113.1"))
    for number in range(30):
        attempt(tried, 0.0, address=b"203.0.113.%d" % number)
    assert attempt(tried, 0.0, address=HOME, answer=ANN) == ANN


def test_memory_has_an_end() -> None:
    """However many addresses and names come, memory stays; what owes most is forgotten last."""
    tried = budget(keys_max=100)
    for _ in range(5):
        attempt(tried, 0.0, name=b"victim")
    for number in range(5000):
        address = b"10.%d.%d.1" % divmod(number, 250)
        attempt(tried, 0.0, address=address, name=b"name%d" % number)
        attempt(tried, 0.0, address=address, name=b"name%d" % number, answer=ANN)
    assert unseen(attempt(tried, 0.0, name=b"victim"))
    sizes = [len(tried._addresses), len(tried._accounts), len(tried._known_until_s), len(tried._wrong)]
    assert max(sizes) <= 100


def test_no_secret_is_kept() -> None:
    """What is remembered of a wrong password is no password: it may be nearly the right one."""
    tried = budget()
    attempt(tried, 0.0, secret=b"hunter2hunter2")
    assert "hunter2" not in repr(tried._wrong)


@given(st.binary(max_size=300), st.binary(max_size=60), st.floats(0, 1e9))
def test_any_bytes(name: bytes, address: bytes, now_s: float) -> None:
    """Any name and address are charged and judged."""
    tried = budget(Limits(1, 1, 10, 1))
    assert not unseen(attempt(tried, now_s, address=address, name=name))
