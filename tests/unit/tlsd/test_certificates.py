"""Which certificate is shown to whom, and what is done with files that are no good."""

import os
from pathlib import Path

import pytest

from qm.disk import selfsigned
from qm.disk.certfiles import BY_NAME, DEFAULT, name_of
from qm.tlsd.certificates import PROTOCOLS, Certificates, Unusable, load

_EMPTY = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


class Said:
    def __init__(self) -> None:
        self.alerts: list[str] = []
        self.warnings: list[str] = []
        self.certificates = Certificates(self.alerts.append, self.warnings.append)

    def chosen(self, name: str) -> str:
        """The file that is shown; by its end point, which no two share."""
        identity = self.certificates.choose(name)
        paths = [DEFAULT, *(f"{BY_NAME}/{file}" for file in os.listdir(BY_NAME))]
        paths = [path for path in paths if os.path.exists(path)]
        return next((path for path in paths if identity and load(path, False).end_point == identity.end_point), "")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.chdir(tmp_path)
    os.makedirs(BY_NAME)
    return Said()


def test_none(said: Said) -> None:
    """Without a file there is nothing to show, and nothing to complain about."""
    assert not said.certificates.refresh()
    assert not said.certificates
    assert said.certificates.choose("x.test") is None
    assert said.alerts == said.warnings == []


def test_by_name(said: Said) -> None:
    """The exact name, then a wildcard of one label, then the default; in any case, with a last dot or without."""
    for path in (DEFAULT, f"{BY_NAME}/mx.a.test.pem", f"{BY_NAME}/_.a.test.pem"):
        selfsigned.make(path, ["x.test"])
    assert said.certificates.refresh()
    assert not said.certificates.refresh()
    assert said.chosen("MX.a.Test.") == f"{BY_NAME}/mx.a.test.pem"
    assert said.chosen("other.a.test") == f"{BY_NAME}/_.a.test.pem"
    for name in ("", "a.test", "b.other.a.test", "..", "../servercert", "\0", "x" * 300, "mx.a.test.pem"):
        assert said.chosen(name) == DEFAULT, name


def test_no_default(said: Said) -> None:
    """Then the first of the names is it."""
    for name in ("b.test", "a.test"):
        selfsigned.make(f"{BY_NAME}/{name}.pem", [name])
    said.certificates.refresh()
    assert said.chosen("") == f"{BY_NAME}/a.test.pem"
    os.unlink(f"{BY_NAME}/a.test.pem")
    assert said.certificates.refresh()
    assert said.chosen("a.test") == f"{BY_NAME}/b.test.pem"


def test_an_expired_one_is_shown(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most clients want to encrypt and no more: it is better than none, and the log says so."""
    monkeypatch.setattr(selfsigned, "DAYS", -1)
    monkeypatch.setattr(selfsigned, "_AN_HOUR", selfsigned.timedelta(days=3))
    selfsigned.make(DEFAULT, ["x.test"])
    said.certificates.refresh()
    assert said.certificates
    assert [line.partition(": ")[2][:27] for line in said.warnings] == ["the certificate has expired"]


def _write(path: str, text: bytes) -> None:
    Path(path).write_bytes(text)
    os.chmod(path, 0o600)


@pytest.mark.parametrize(
    "text", [b"", b"\0\xff", b"-----BEGIN CERTIFICATE-----\n", _EMPTY]
)  # fmt: skip
def test_a_file_that_is_no_good(said: Said, text: bytes) -> None:
    """It is not used, and said once; the last good one goes on where there was one."""
    _write(DEFAULT, text)
    assert said.certificates.refresh() and not said.certificates
    assert said.alerts[0].endswith("; it is not used")
    selfsigned.make(DEFAULT, ["x.test"])
    assert said.certificates.refresh() and said.certificates
    _write(DEFAULT, text + b"\n")
    assert said.certificates.refresh() and said.certificates
    assert not said.certificates.refresh()
    assert len(said.alerts) == 2
    assert said.alerts[1].endswith("; the last good one goes on")


def test_kinds(said: Said) -> None:
    """A FIFO holds nobody up, a directory is none; a key that others may read is not used."""
    os.mkfifo(DEFAULT)
    with pytest.raises(Unusable, match="no file"):
        load(DEFAULT, False)
    os.unlink(DEFAULT)
    os.mkdir(DEFAULT)
    with pytest.raises(Unusable):
        load(DEFAULT, False)
    os.rmdir(DEFAULT)
    selfsigned.make(DEFAULT, ["x.test"])
    os.chmod(DEFAULT, 0o640)
    with pytest.raises(Unusable, match="chmod 600"):
        load(DEFAULT, False)


def test_each_protocol_has_a_context(said: Said) -> None:
    """TLS 1.2 or newer, no tickets, ephemeral keys."""
    selfsigned.make(DEFAULT, ["x.test"])
    contexts = load(DEFAULT, False).contexts
    assert set(contexts) == set(PROTOCOLS)
    for context in contexts.values():
        assert context.minimum_version.name == "TLSv1_2"
        assert context.num_tickets == 0
        names = [cipher["name"] for cipher in context.get_ciphers() if not cipher["name"].startswith("TLS_")]
        assert not [name for name in names if "CAMELLIA" in name or "ARIA" in name or name.endswith("-SHA")]
        assert "GCM" in names[0]
        assert all("ECDHE" in cipher["name"] or cipher["name"].startswith("TLS_") for cipher in context.get_ciphers())


def test_names_of_files() -> None:
    """What a file's certificate is for, for people."""
    assert name_of(DEFAULT, "me.test") == "me.test"
    assert name_of(f"{BY_NAME}/_.a.test.pem", "me.test") == "*.a.test"
    assert name_of(f"{BY_NAME}/b.test.pem", "me.test") == "b.test"
