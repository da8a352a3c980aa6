"""What checkpassword makes of descriptor 3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.checkpassword import Credentials, parse
from qm.errors import Permanent
from qm.wire.userquery import Method

PASSWORD, APOP = Method.PASSWORD, Method.APOP
DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"


@given(st.binary(max_size=600))
def test_any_record(record: bytes) -> None:
    """Any bytes are credentials without NUL, or refused."""
    try:
        credentials = parse(record)
    except Permanent:
        assert len(record) > 512 or record.count(b"\0") < 2
    else:
        assert record.startswith(credentials.name + b"\0" + credentials.secret + b"\0")
        assert b"\0" not in b"".join(credentials)


@pytest.mark.parametrize(
    ("record", "methods"),
    [
        (b"a\0b\0", (PASSWORD,)),
        (b"a\0b\0\0", (PASSWORD,)),
        (b"a\0b\0<1.2@h>\0", (PASSWORD,)),
        (b"a\0" + DIGEST + b"\0\0", (PASSWORD,)),
        (b"a\0" + DIGEST + b"\0<1.2@h>\0", (PASSWORD, APOP)),
        (b"a\0" + DIGEST + b"\0<1.2@h>\0PASS\0", (PASSWORD,)),
        (b"a\0" + DIGEST + b"\0<1.2@h>\0APOP\0", (APOP,)),
        (b"a\0b\0<1.2@h>\0cram-md5\0", (Method.CRAM_MD5,)),
        (b"a\0b\0<1.2@h>\0scram-sha-256\0", (Method.SCRAM_SHA_256,)),
        (b"\0b\0\0oauthbearer\0", (Method.OAUTHBEARER,)),
        (b"a\0b\0<1.2@h>\0password\0", (PASSWORD,)),
        (b"a\0b\0<1.2@h>\0Y1234\0", (PASSWORD,)),  # "more data allowed" (qmail.md 16.5)
    ],
)
def test_password_or_digest(record: bytes, methods: tuple[Method, ...]) -> None:
    """The method of our popup says what the secret is; without it only what looks like a digest is tried as one."""
    credentials = parse(record)
    assert credentials.methods() == methods
    for method in methods:
        question = credentials.question(method, b"192.0.2.1")
        assert question.address == b"192.0.2.1"
        assert question.challenge == (b"" if method is PASSWORD else credentials.timestamp)


@pytest.mark.parametrize("record", [b"root\0\0\0external\0", b"root\0x\0ts\0external\0<1>\0", b"\0\0\0external\0"])
def test_a_certificate_is_from_the_environment(record: bytes) -> None:
    """Who logs in by a certificate is who TLS says, never who descriptor 3 says: there may be fields of the peer's."""
    assert parse(record).certified(b"alice") == Credentials(b"alice", b"", b"", b"external")
    with pytest.raises(Permanent):
        parse(record).certified(b"")
    assert parse(b"a\0b\0").certified(b"alice").name == b"a"


def test_the_secret_is_in_no_repr() -> None:
    """What fails may be printed; a password may not."""
    assert "secret" not in repr(Credentials(b"a", b"secret", b"", b""))
