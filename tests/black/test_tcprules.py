"""tcprules and tcprulescheck as programs."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.tcpserver import ROOT
from tests.harness.waiting import LIMIT_S

RULES = b"""# rules of a small host
joe@127.0.0.1:allow,A="1"
127.:allow,RELAYCLIENT="",TCPLOCALHOST=/mx.example/
192.0.2.37-39:deny
10.2-3.:allow
=.example.com:allow,X="y z"
=:deny,Y="n"
:allow,RBLSMTPD="-no"
"""
# of the file that tcprules of ucspi-tcp 0.88 makes of them
UCSPI_SHA256 = "8351cb159e902524e0e4d0c91f7a55b43dee71a9527955d85631c3bf0d15d728"

Done = tuple[int, str, str]


def _run(folder: Path, *words: str, text: bytes = b"", env: dict[str, str] | None = None, umask: int = 0o022) -> Done:
    command = ["/usr/bin/python3", "-bb", "-IS", str(ROOT / "bin" / words[0]), *words[1:]]
    done = subprocess.run(
        command, input=text, cwd=folder, env=env or {}, capture_output=True, timeout=LIMIT_S, umask=umask, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def _compile(folder: Path, text: bytes) -> Done:
    return _run(folder, "tcprules", "rules.cdb", "rules.tmp", text=text)


def _check(folder: Path, **env: str) -> str:
    code, out, _ = _run(folder, "tcprulescheck", "rules.cdb", env=env)
    assert code == 0
    return out


def test_the_file_is_that_of_ucspi_tcp(tmp_path: Path) -> None:
    """Byte for byte, so that either suite reads the other's; nothing else is left, and others may read it."""
    assert _compile(tmp_path, RULES) == (0, "", "")
    assert hashlib.sha256((tmp_path / "rules.cdb").read_bytes()).hexdigest() == UCSPI_SHA256
    assert os.listdir(tmp_path) == ["rules.cdb"]
    assert (tmp_path / "rules.cdb").stat().st_mode & 0o777 == 0o644


def test_umask_is_respected(tmp_path: Path) -> None:
    """Who wants to keep rules to himself can."""
    assert _run(tmp_path, "tcprules", "rules.cdb", "rules.tmp", text=RULES, umask=0o077)[0] == 0
    assert (tmp_path / "rules.cdb").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("env", "out"),
    [
        ({}, "rule :\nset environment variable RBLSMTPD=-no\nallow connection\n"),
        (
            {"TCPREMOTEIP": "127.0.0.1"},
            "rule 127.:\nset environment variable RELAYCLIENT=\nset environment variable TCPLOCALHOST=mx.example\n"
            "allow connection\n",
        ),
        (
            {"TCPREMOTEIP": "127.0.0.1", "TCPREMOTEINFO": "joe"},
            "rule joe@127.0.0.1:\nset environment variable A=1\nallow connection\n",
        ),
        ({"TCPREMOTEIP": "192.0.2.38"}, "rule 192.0.2.38:\ndeny connection\n"),
        ({"TCPREMOTEIP": "10.3.9.9", "TCPREMOTEHOST": "x.example.com"}, "rule 10.3.:\nallow connection\n"),
        (
            {"TCPREMOTEIP": "9.9.9.9", "TCPREMOTEHOST": "a.b.example.com"},
            "rule =.example.com:\nset environment variable X=y z\nallow connection\n",
        ),
        ({"TCPREMOTEIP": "9.9.9.9", "TCPREMOTEHOST": "example.com"}, "rule =:\ndeny connection\n"),
        ({"TCPREMOTEIP": "9.9.9.9", "TCPREMOTEHOST": ""}, "rule =:\ndeny connection\n"),
    ],
)
def test_what_tcpserver_would_do(tmp_path: Path, env: dict[str, str], out: str) -> None:
    """The rule that decides, its variables if it lets in, and the verdict, as ucspi-tcp's tcprulescheck prints them."""
    _compile(tmp_path, RULES)
    assert _check(tmp_path, **env) == out


def test_without_a_rule_everyone_is_let_in(tmp_path: Path) -> None:
    """The default."""
    _compile(tmp_path, b"1.2.3.4:deny\n")
    assert _check(tmp_path) == "default:\nallow connection\n"


def test_the_first_rule_of_an_address_counts(tmp_path: Path) -> None:
    """A range may be followed by what it contains."""
    _compile(tmp_path, b"1.2.3.4:deny\n1.2.3.1-9:allow\n1.2.3.5:deny\n")
    assert _check(tmp_path, TCPREMOTEIP="1.2.3.4").endswith("deny connection\n")
    assert _check(tmp_path, TCPREMOTEIP="1.2.3.5").endswith("allow connection\n")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b":allow\n1.2.3.4:permit\n", "line 2, '1.2.3.4:permit'"),
        (b":allow\n\n# x\n1.2.3.9-2:allow\n", "line 4, '1.2.3.9-2:allow'"),
        (b':allow\n1.2.3.4:allow,A="x\n', "line 2, "),
        (b':allow\n1.2.3.4:allow,A="x\0"\n', "line 2, "),
        (b":allow\n" + b"x" * 100_000, "line 2 is longer than 65536 bytes"),
        (b":allow\n\x1b[2J\n", "line 2, '?[2J'"),
    ],
)
def test_a_bad_line_leaves_all_as_it_was(tmp_path: Path, text: bytes, where: str) -> None:
    """Exit code 100, the line named, the old rules in force, no temporary file."""
    _compile(tmp_path, RULES)
    code, _, errors = _compile(tmp_path, text)
    assert code == 100
    assert where in errors
    assert hashlib.sha256((tmp_path / "rules.cdb").read_bytes()).hexdigest() == UCSPI_SHA256
    assert os.listdir(tmp_path) == ["rules.cdb"]


def test_a_rule_that_matches_nothing_is_said(tmp_path: Path) -> None:
    """It is compiled, as ever, and the line is named: somebody meant 10. or 10.0."""
    code, _, errors = _compile(tmp_path, b":allow\n10.0.0.0/8:deny\n")
    assert code == 0
    assert errors == "tcprules: warning: line 2: 10.0.0.0/8 matches nothing; a prefix ends in a dot or colon\n"


def test_a_leftover_temporary_file_is_no_obstacle(tmp_path: Path) -> None:
    """A crash may have left one; a link of that name is not followed."""
    (tmp_path / "other").write_text("precious")
    (tmp_path / "rules.tmp").symlink_to("other")
    assert _compile(tmp_path, RULES)[0] == 0
    assert (tmp_path / "other").read_text() == "precious"


@pytest.mark.parametrize(
    "words", [("none/rules.cdb", "rules.tmp"), ("rules.cdb", "none/rules.tmp"), ("folder", "rules.tmp")]
)
def test_trouble_with_files_is_temporary(tmp_path: Path, words: tuple[str, str]) -> None:
    """Exit code 111, and nothing is left."""
    (tmp_path / "folder").mkdir()
    assert _run(tmp_path, "tcprules", *words, text=RULES)[0] == 111
    assert os.listdir(tmp_path) == ["folder"]


def test_usage_and_missing_rules(tmp_path: Path) -> None:
    """100 for a wrong command line, 111 for rules that cannot be read."""
    for words in (("tcprules",), ("tcprules", "a"), ("tcprules", "a", "b", "c"), ("tcprulescheck",)):
        code, _, errors = _run(tmp_path, *words)
        assert code == 100
        assert "usage: " in errors
    assert _run(tmp_path, "tcprulescheck", "none.cdb")[0] == 111
    (tmp_path / "bad.cdb").write_bytes(b"\xff" * 3000)
    assert _run(tmp_path, "tcprulescheck", "bad.cdb")[0] == 111


def test_ten_thousand_rules(tmp_path: Path) -> None:
    """A big file is compiled and each rule found."""
    text = b"".join(b"10.%d.%d.:allow,N=/%d/\n" % (n >> 8, n & 255, n) for n in range(10_000))
    assert _compile(tmp_path, text) == (0, "", "")
    assert "N=9999\n" in _check(tmp_path, TCPREMOTEIP=f"10.{9999 >> 8}.{9999 & 255}.7")
