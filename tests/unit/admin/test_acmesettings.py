"""control/acme, when a certificate is due, and how long not to ask after a failure."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm.admin import acmesettings, acmetries
from qm.admin.acmesettings import Settings, Wanted, parse, show, why_due
from qm.admin.acmetries import Try
from qm.admin.x509facts import Facts
from qm.errors import Permanent

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MAIL = Wanted("control/servercert.pem", ("a.test", "b.test"))


def _facts(*, left: int, life: int = 90, names: tuple[str, ...] = MAIL.names, self_signed: bool = False) -> Facts:
    until = NOW + timedelta(days=left)
    return Facts(names, "CN=x", self_signed, until - timedelta(days=life), until, "", "", "")


def test_what_is_shown_is_read() -> None:
    """What `get` writes is what `renew` reads."""
    wanted = (MAIL, acmesettings.of_name("c.test"))
    settings = Settings("https://x/dir", "a@b.test", True, "[::1]:80", "", wanted)
    assert parse(show(settings).encode().splitlines()) == settings
    other = Settings(webroot="/var/www")
    assert parse(show(other).encode().splitlines()) == other


@pytest.mark.parametrize(
    "line",
    ["x y", "server http://x", "server", "name a", "name a.test b.test", "default", "default ../x", "listen 80",
     "listen :0", "listen :65536", "agreed yes", "name ../../x.test", "default a.test \\x00"],
)  # fmt: skip
def test_a_broken_line(line: str) -> None:
    """It is refused by the name of its file."""
    with pytest.raises(Permanent, match="control/acme: "):
        parse([line.encode()])


@given(st.lists(st.binary(min_size=1).map(bytes.strip).filter(lambda line: line.split() != [])))
def test_any_bytes(lines: list[bytes]) -> None:
    """Any file is settings or refused."""
    try:
        parse(lines)
    except Permanent:
        pass


def test_a_file_has_one_entry() -> None:
    """The last order for a file counts."""
    again = acmesettings.of_default(["z.test"])
    assert Settings(wanted=(MAIL,)).adding([again]).wanted == (again,)


@pytest.mark.parametrize(
    "facts, days, due",
    [
        (None, None, True),
        (_facts(left=31), None, False),
        (_facts(left=29), None, True),
        (_facts(left=-1), None, True),
        (_facts(left=3, life=6), None, False),
        (_facts(left=1, life=6), None, True),
        (_facts(left=31), 40, True),
        (_facts(left=29), 10, False),
        (_facts(left=80, self_signed=True), None, True),
        (_facts(left=80, names=("a.test",)), None, True),
        (_facts(left=80, names=("c.test", *MAIL.names)), None, False),
    ],
)
def test_due(facts: Facts | None, days: int | None, due: bool) -> None:
    """In the last third of its life, or so many days before its end; at once if it is no certificate for the names."""
    assert bool(why_due(MAIL, facts, NOW, days)) is due


@pytest.mark.parametrize("failures, pause_s", [(1, 3600), (2, 7200), (5, 57600), (6, 86400), (10**9, 86400)])
def test_pauses(failures: int, pause_s: int) -> None:
    """An hour, doubled with each failure, a day at most; a clock that was set back makes it no longer."""
    tried = Try(failures, 1000)
    assert tried.wait_s(1000) == pause_s
    assert tried.wait_s(1001 + pause_s) == 0
    assert tried.wait_s(0) == pause_s


def test_the_memory_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures add up, a success forgets them, and a broken file is an empty one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    acmetries.note("control/x.pem", failed=False)
    assert not (tmp_path / acmetries.PATH).exists()
    for _ in range(3):
        acmetries.note("control/x.pem", failed=True)
    acmetries.note("control/y.pem", failed=True)
    assert {path: tried.failures for path, tried in acmetries.read().items()} == {
        "control/x.pem": 3,
        "control/y.pem": 1,
    }
    acmetries.note("control/x.pem", failed=False)
    assert list(acmetries.read()) == ["control/y.pem"]
    (tmp_path / acmetries.PATH).write_bytes(b"\xff\0 1 2\n0 0 x\n1 1\n")
    assert acmetries.read() == {}
