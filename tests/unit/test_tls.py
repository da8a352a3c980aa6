"""qm-tls: what the next program learns, and the command line."""

import pytest

from qm.tls import environment, warm
from qm.unix.program import Usage
from qm.wire.tlsjob import Facts

FACTS = Facts(b"TLSv1.3", b"TLS_AES_256_GCM_SHA384", 256, b"mx.test", b"ann@x.test", ((b"tls-exporter", b"\1\xff"),))


def test_environment() -> None:
    """ucspi-ssl's names, and the channel bindings."""
    assert environment(FACTS) == {
        b"SSL_PROTOCOL": b"TLSv1.3",
        b"SSL_CIPHER": b"TLS_AES_256_GCM_SHA384",
        b"SSL_CIPHER_USEKEYSIZE": b"256",
        b"SSL_TLS_SNI": b"mx.test",
        b"SSL_CLIENT_S_DN": b"ann@x.test",
        b"TLSBINDINGS": b"tls-exporter:01ff",
    }


def test_what_is_not_known_is_not_set() -> None:
    """Without SNI, client certificate and bindings their variables are absent, not empty."""
    assert set(environment(FACTS._replace(sni=b"", client=b"", bindings=()))) == {
        b"SSL_PROTOCOL", b"SSL_CIPHER", b"SSL_CIPHER_USEKEYSIZE",
    }  # fmt: skip


@pytest.mark.parametrize("words", [b"qm-tls", b"qm-tls smtp", b"qm-tls imap true", b"qm-tls SMTP true"])
def test_usage(words: bytes) -> None:
    """A protocol that we know, and a program."""
    with pytest.raises(Usage):
        warm(words.split(), {})
