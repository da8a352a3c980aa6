"""rspawn's workers and STARTTLS: control/tlspolicy, what is kept, what is said (RFC 3207, RFC 6125)."""

from pathlib import Path

import pytest

from qm.wire.delivery import Result
from tests.harness.rspawn import rspawn
from tests.harness.tlspeers import OFFER, PLAIN, TlsWorld, start
from tests.harness.waiting import wait_for

BOB = b"bob@x.test"


@pytest.fixture
def world(tmp_path: Path) -> TlsWorld:
    return TlsWorld(tmp_path)


def deliver(world: TlsWorld) -> Result:
    with rspawn(world.home) as spawner:
        return spawner.result(BOB)


def in_clear(lines: list[str]) -> bool:
    return any(line.startswith("MAIL") for line in lines) and "STARTTLS" not in lines


def test_tls_is_used_where_it_is_offered(world: TlsWorld) -> None:
    """Without any policy STARTTLS is used; nobody vouches for the certificate; the report tells version and cipher."""
    with world.mx(world.ca.issue("elsewhere.test")) as mx:
        result = deliver(world)
        assert mx.lines()[:3] == ["EHLO me.example", "STARTTLS", "EHLO me.example"]
        assert [shake["tls"] for shake in mx.handshakes()] == ["TLSv1.3"]
    assert result.letter == b"K"
    assert result.text.endswith(b"The connection had TLSv1.3 TLS_AES_256_GCM_SHA384, may.\n")


def test_goodbye(world: TlsWorld) -> None:
    """A session behind TLS ends with QUIT, too."""
    with world.mx() as mx:
        deliver(world)
        wait_for(lambda: "QUIT" in mx.lines(), "goodbye")


def test_what_was_said_in_clear_is_forgotten(world: TlsWorld) -> None:
    """Extensions count as they are told behind TLS (RFC 3207 4.2)."""
    offer = f"{OFFER}\r\n".replace("250 STARTTLS\r\n", "250-SIZE 1\r\n250 STARTTLS")
    with world.mx(EHLO=[offer], EHLO_TLS=["250 mx.test"]) as mx:
        assert deliver(world).letter == b"K"
        assert [line for line in mx.lines() if line.startswith("MAIL")] == ["MAIL FROM:<ann@me.example>"]


def test_a_refused_starttls_is_no_obstacle(world: TlsWorld) -> None:
    """454 to STARTTLS leaves the session in clear, where TLS is nobody's demand (RFC 3207 4)."""
    with world.mx(STARTTLS=["454 4.7.0 no certificate"]) as mx:
        result = deliver(world)
        assert mx.sessions() == 1
    assert (result.letter, b"TLS" in result.text) == (b"K", False)


def test_a_handshake_that_fails_is_followed_by_clear_text(world: TlsWorld) -> None:
    """Where TLS is nobody's demand the message goes in clear, over a new connection to the same host."""
    with world.mx(STARTTLS=["220 go ahead\r\nwhat?"]) as mx:
        result = deliver(world)
        lines = [[e["line"].strip() for e in mx.heard() if e["session"] == n and "line" in e] for n in (0, 1)]
    assert lines[0] == ["EHLO me.example", "STARTTLS"]
    assert (result.letter, in_clear(lines[1])) == (b"K", True)


@pytest.mark.parametrize("policy", ["x.test:none", ":none"])
def test_none(world: TlsWorld, policy: str) -> None:
    """A domain's own server may be kept from TLS."""
    world.policy(policy.replace("x.test", "127.0.0.1"))
    with world.mx() as mx:
        assert deliver(world).letter == b"K"
        assert in_clear(mx.lines())


def test_encrypt_asks_for_no_certificate(world: TlsWorld) -> None:
    """encrypt takes any certificate."""
    world.policy(":encrypt")
    with world.mx(world.ca.issue("elsewhere.test")):
        result = deliver(world)
    assert (result.letter, result.text[-12:]) == (b"K", b" tlspolicy.\n")


def test_verify(world: TlsWorld) -> None:
    """A certificate that our root signed, with a name of the policy, is taken; SNI says whom we want."""
    world.policy("127.0.0.1:verify .test x.test")
    with world.mx() as mx:
        result = deliver(world)
        assert mx.handshakes()[0]["sni"] is None  # an address has no name
    assert (result.letter, b"tlspolicy" in result.text) == (b"K", True)


UNTRUSTED = {
    "encrypt": ({"EHLO": [PLAIN]}, b"it does not offer STARTTLS"),
    "encrypt ": ({"STARTTLS": ["454 4.7.0 not now"]}, b"it refused STARTTLS with 454"),
}


@pytest.mark.parametrize("level", UNTRUSTED)
def test_what_is_demanded_is_not_done_without(world: TlsWorld, level: str) -> None:
    """A session that is less than the policy demands carries nothing; the message is deferred."""
    script, why = UNTRUSTED[level]
    world.policy(f":{level}")
    with world.mx(**script) as mx:
        result = deliver(world)
        assert not any(line.startswith("MAIL") for line in mx.lines())
    assert (result.letter, result.status) == (b"Z", b"4.7.5")
    assert why in result.text


def test_a_kept_session_is_used_again(world: TlsWorld) -> None:
    """Messages to one destination share a handshake; tickets that the server sends are no answers."""
    world.policy(":encrypt")
    with world.mx() as mx, rspawn(world.home) as spawner:
        assert [spawner.result(BOB).letter for _ in range(3)] == [b"K"] * 3
        assert (mx.sessions(), len(mx.handshakes())) == (1, 1)


def test_a_kept_session_must_satisfy_a_new_policy(world: TlsWorld) -> None:
    """A session that was made for less is not used when the policy has become stricter."""
    with world.mx(world.ca.issue("other.test")) as mx, rspawn(world.home) as spawner:
        world.home.control("remoteidle", "60\n")
        assert spawner.result(BOB).letter == b"K"
        world.policy(":verify x.test")

        def refused() -> bool:  # the files are looked at once a second
            return spawner.result(BOB).letter == b"Z"

        wait_for(refused, "the new policy")
        assert mx.sessions() == 2


def test_large_messages(world: TlsWorld) -> None:
    """A message of many records arrives whole."""
    text = b"Subject: large\n\n" + b"0123456789abcdef\n" * 50000
    with world.mx() as mx, rspawn(world.home) as spawner:
        assert spawner.result(BOB, text=text).letter == b"K"
        assert mx.texts() == [text.decode().replace("\n", "\r\n")]


def test_a_broken_policy_is_refused(world: TlsWorld) -> None:
    """A level that there is not keeps rspawn from starting; its name is said."""
    world.policy("x.test:secure")
    assert b"control/tlspolicy: x.test: the level is none of" in world.home.run("qm-rspawn").stderr


def test_several_addresses(world: TlsWorld, tmp_path: Path) -> None:
    """The STARTTLS that fails at one server is tried at the next."""
    world.policy(":encrypt")
    with world.mx(STARTTLS=["454 no", start(world.certificate)]) as mx, rspawn(world.home) as spawner:
        assert [spawner.result(BOB).letter for _ in range(2)] == [b"Z", b"K"]
        assert len(mx.texts()) == 1
