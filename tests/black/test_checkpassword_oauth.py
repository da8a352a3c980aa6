"""checkpassword-oauth, from userd: a token logs in whom it is for."""

import json
import time
from collections.abc import Iterator

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from qm.disk import passwd
from qm.unix.userclient import UserClient
from qm.wire.sasl import Fault
from qm.wire.userquery import Login
from tests.harness.barehome import BareHome, bare_home, running
from tests.harness.saslclient import Sasl, fault, name_of

KEY = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256"})


@pytest.fixture
def ask() -> Iterator[UserClient]:
    """A userd whose ann may come with a token."""
    with bare_home(None) as home:
        prepare(home)
        with running(home, "qm-userd"), UserClient(str(home.folder / "users/socket"), 40.0) as ask:
            yield ask


def prepare(home: BareHome) -> None:
    (home.folder / "keys").write_text(json.dumps(KeySet([KEY]).as_dict(private=False)))
    home.control("authfaildelay", "0\n")
    home.control("logins", "passwd\noauthbearer checkpassword-oauth keys https://id.example mail email\n")
    login = Login(b"ann", home.mailbox_uid, home.mailbox_uid, b"home/ann", b"/bin/sh")
    passwd.put(b"ann@me.example", b"secret", login, directory=str(home.folder / "users"))


def bearer(name: str = "", lasts_s: int = 300, email: str = "ann@me.example") -> bytes:
    claims = {"iss": "https://id.example", "aud": "mail", "exp": int(time.time()) + lasts_s, "email": email}
    token = jwt.encode({"alg": "ES256", "kid": "one"}, claims, KEY)
    return f"n,{f'a={name}' if name else ''},\x01auth=Bearer {token}\x01\x01".encode()


def test_tokens(ask: UserClient) -> None:
    """A good token logs in its owner, whether he names himself or not; an old one and another's do not."""
    assert name_of(Sasl(ask, b"OAUTHBEARER").say(bearer())) == b"ann@me.example"
    assert name_of(Sasl(ask, b"OAUTHBEARER").say(bearer("ann@me.example"))) == b"ann@me.example"
    for message in (bearer("bob@me.example"), bearer(lasts_s=-300), bearer(email="nobody@me.example")):
        refused = Sasl(ask, b"OAUTHBEARER")
        refused.say(message)
        assert fault(refused.say(b"\x01")) is Fault.WRONG


def test_usage() -> None:
    """Without a program to run there is nothing to do."""
    with bare_home(None) as home:
        assert home.run("checkpassword-oauth", "keys", "issuer", "audience", "claim").returncode == 2
