"""qm log: what belongs together is found, across programs, files and formats."""

import os
from pathlib import Path

import pytest

from qm.admin.logs import gather
from qm.wire.logline import in_json, in_text, label

ID, OTHER, BOUNCE = "1htq26ayfdx9m006yy", "1htq26b00000000001", "1htq26ayfdx9m006yyb"
S = 1_000_000_000
LINES = [
    "qm-smtpd: 7 connect ip=1.2.3.4 host=a relay=no",
    "qm-smtpd: 8 connect ip=5.6.7.8 host=b relay=no",
    "qm-smtpd: 7 mail from=else@x.example code=250 why=ok",
    f"qm-smtpd: 7 message id={OTHER} code=250 size=1 recipients=1 why=ok",
    "qm-smtpd: 7 mail from=bob@x.example code=250 why=ok",
    "qm-smtpd: 8 mail from=no@x.example code=250 why=ok",
    "qm-smtpd: 7 rcpt to=ann@me.example code=250 why=ok",
    f"qm-smtpd: 7 message id={ID} code=250 size=1 recipients=1 why=ok",
    f"new msg {ID}",
    f"starting delivery 1: msg {OTHER} to local jo@me.example",
    f"starting delivery 2: msg {ID} to local ann@me.example",
    f"qm-local: warning: {ID} to ann: full",
    "delivery 1: success: done",
    "delivery 2: failure: full",
    f"bounce msg {ID} qp {BOUNCE}",
    f"new msg {BOUNCE}",
    f"end msg {ID}",
    f"end msg {BOUNCE}",
    "qm-smtpd: 7 end how=quit in=1 out=2 seconds=0.1",
    "qm-smtpd: 8 end how=quit in=1 out=2 seconds=0.1",
    "delivery 2: success: of another life",
]
OF_ID = [0, 4, 6, 7, 8, 10, 11, 13, 14, 15, 16, 17, 18]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, the first in text and the second in JSON."""
    forms = [in_text] * 9 + [in_json] * len(LINES)
    texts = [form(n * S, line.encode()) + b"\n" for n, (form, line) in enumerate(zip(forms, LINES, strict=False))]
    (tmp_path / f"{label(9 * S).decode()}.s").write_bytes(b"".join(texts[:9]) + b"garbage\n")
    (tmp_path / "current").write_bytes(b"".join(texts[9:]))
    return tmp_path


def _found(folder: Path, text: str, since_ns: int = 0) -> list[int]:
    return [time_ns // S for time_ns, _ in gather(str(folder), text, since_ns)]


def test_a_message(folder: Path) -> None:
    """Its session's beginning and its own transaction, its deliveries, warnings, its report, and no other's."""
    assert _found(folder, ID) == OF_ID


def test_a_report_leads_to_its_message(folder: Path) -> None:
    """The ID of a delivery report finds what it reports on."""
    assert _found(folder, BOUNCE) == OF_ID


@pytest.mark.parametrize("address", ["bob@x.example", "ann@me.example", "ANN@me.example"])
def test_an_address(folder: Path, address: str) -> None:
    """Whoever sent it or got it, in capitals or not."""
    assert _found(folder, address) == OF_ID


@pytest.mark.parametrize("text", ["n@me.example", "ann@me.example.org", "me.exam", ".*", "(", "no@body", "", "x" * 999])
def test_what_is_not_there(folder: Path, text: str) -> None:
    """A part of an address is another; nothing is a pattern."""
    assert _found(folder, text) == []


def test_since(folder: Path) -> None:
    """What was before is left out."""
    assert _found(folder, ID, 16 * S) == [16]


def test_links_and_pipes_are_not_followed(folder: Path) -> None:
    """Only the directory's own files are read."""
    os.rename(folder / "current", folder / "elsewhere")
    (folder / "current").symlink_to(folder / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        _found(folder, ID)
