"""docs/PICTURES.md, played: what it shows is done to a suite, and must happen.

An answer is the section below its question.  Its fenced blocks are taken in order:

    sh      commands of an administrator, run in the home
    smtp    a dialogue: lines begin with C: or S:
    pop3    the same
    log     lines that come, for each program in this order
    mail    lines of ann's newest message, in this order; "..." is for what is left out
    files   exactly what is in the queue and in ann's Maildir
    state   the one state file

An HTML comment, which readers do not see, is something that only a test can do; the test gives a function for it.  An
ID must be the same wherever it is the same in the text; other words that no two runs share match any of their kind.
"""

import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.harness.suite import HOST, ROOT, Suite
from tests.harness.waiting import LIMIT_S, wait_for

DOCUMENT: Final = ROOT / "docs" / "PICTURES.md"
_SECTION: Final = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- (.*?) -->$", re.MULTILINE | re.DOTALL)
_PROGRAM: Final = re.compile(r"(?:qm-\w+|tcpserver|checkpassword): ")
_FOLDERS: Final = ("queue/tmp", "queue/new", "queue/cur", "queue/state", "queue/bad", "home/ann/Maildir/[tnc]*")
_ID: Final = "1[0-9a-hjkmnp-tv-z]{17}"
# What differs from run to run
_VARIABLE: Final = re.compile(
    rf"(?P<id>(?<![0-9a-z]){_ID})"
    r"|(?P<number>\b\d{10}\b|(?<=:)\d{4,5}\b|(?<=[A-Z]=)\d+|(?<=size=)\d+|(?<=sent )\d+|(?<=bytes )\d+|(?<=uid )\d+"
    r"|(?<=pid )\d+|(?<=qp )\d+|(?<=smtpd: )\d+|(?<=pop3d: )\d+|(?<=out=)\d+"
    r"|(?<=tcpserver: ok )\d+|(?<=end )\d+|(?<=^S: \d )\d+|(?<=OK \d )\d+)"
    r"|(?P<decimal>(?<=seconds=)[\d.]+)"
    r"|(?P<date>[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} [\d:]{8} -0000)"
    r"|(?P<host>(?<=R\dL\d\.)[A-Za-z]\w*)"
    r"|(?P<hex>\b[0-9a-f]{16}\b)"
    r"|(?P<who>(?<=invoked )by (?:uid \d+|alias))"
)
_KINDS: Final = {
    "number": r"\d+",
    "decimal": r"[\d.]+",
    "date": r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} [\d:]{8} -0000",
    "host": r"[^,/:\s]+",
    "hex": r"[0-9a-f]{16}",
    "who": r"by (?:alias|uid \d+)",  # without root all users are one
}


def questions() -> dict[str, str]:
    """The questions and their answers, in order."""
    return dict(_SECTION.findall(DOCUMENT.read_text()))


def name_of_test(question: str) -> str:
    """What the test of *question* is called."""
    return "test_" + re.sub(r"[^a-z0-9]+", "_", question.lower().replace("'", "")).strip("_")


class Picture:
    """The answer to one question, played to a suite; *deeds* are what its comments ask for."""

    def __init__(self, suite: Suite, question: str, deeds: Mapping[str, Callable[[], object]] = {}) -> None:
        self._suite = suite
        self._deeds = deeds
        self._blocks: list[tuple[str, str, str]] = _BLOCK.findall(questions()[question])
        self._ids: dict[str, str] = {}  # of the text to those of this run

    def play(self) -> None:
        assert self._blocks, "an answer without anything to see"
        for kind, text, deed in self._blocks:
            if deed:
                self._deeds[deed]()
            else:
                getattr(self, f"_{kind}")(text.splitlines())

    # what a line of the text means

    def _matches(self, line: str, seen: str) -> bool:
        """Whether *seen* is *line*; IDs that come here for the first time are remembered."""
        names: dict[str, str] = {}

        def pattern(found: re.Match[str]) -> str:
            kind, word = found.lastgroup or "", found[0]
            if kind != "id":
                return _KINDS[kind]
            if word in self._ids:
                return self._ids[word]
            if word in names:
                return f"(?P={names[word]})"
            names[word] = f"id{len(names)}"
            return f"(?P<{names[word]}>{_ID})"

        parts, at = [], 0
        for found in _VARIABLE.finditer(line):
            parts += [re.escape(line[at : found.start()]), pattern(found)]
            at = found.end()
        match = re.fullmatch("".join([*parts, re.escape(line[at:])]), seen)
        if match is None:
            return False
        fresh = {word: match[name] for word, name in names.items()}
        if not set(fresh.values()).isdisjoint(self._ids.values()):
            return False  # another message of the text's
        self._ids.update(fresh)
        return True

    def _in_order(self, wanted: list[str], seen: list[str]) -> list[str]:
        """Those of *wanted* that are missing in *seen*: each must come after the one before."""
        rest = iter(seen)
        return [line for line in wanted if line != "..." and not any(self._matches(line, other) for other in rest)]

    # the kinds of block

    def _sh(self, lines: list[str]) -> None:
        done = subprocess.run(
            ["/bin/sh", "-eu"], input="\n".join([*lines, ""]), cwd=self._suite.home, env=self._suite.env,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), lines

    def _smtp(self, lines: list[str]) -> None:
        self._talk(lines, self._suite.smtp_port)

    def _pop3(self, lines: list[str]) -> None:
        self._talk(lines, self._suite.pop3_port)

    def _talk(self, lines: list[str], port: int) -> None:
        with socket.create_connection((HOST, port), LIMIT_S) as connection, connection.makefile("rwb") as stream:
            for line in lines:
                who, text = line[:2], line[3:]
                assert who in ("C:", "S:"), line
                if who == "C:":
                    stream.write(text.encode() + b"\r\n")
                    stream.flush()
                else:
                    seen = stream.readline().decode().removesuffix("\r\n")
                    assert self._matches(f"S: {text}", f"S: {seen}"), f"{seen!r} is not {text!r}"

    def _log(self, lines: list[str]) -> None:
        programs: dict[str, list[str]] = {}
        for line in lines:
            found = _PROGRAM.match(line)
            programs.setdefault(found[0] if found else "", []).append(line)
        for wanted in programs.values():
            wait_for(lambda wanted=wanted: not self._missing_in_log(wanted), f"{wanted}")  # type: ignore[misc]

    def _missing_in_log(self, wanted: list[str]) -> list[str]:
        before = dict(self._ids)
        missing = self._in_order(wanted, self._suite.log().splitlines())
        if missing:
            self._ids = before  # of a line of an earlier try, perhaps
        return missing

    def _mail(self, lines: list[str]) -> None:
        folder = self._suite.maildir()
        newest = max([*folder.glob("new/*"), *folder.glob("cur/*")], key=lambda path: path.name)
        assert not self._in_order(lines, newest.read_text().splitlines())

    def _files(self, lines: list[str]) -> None:
        wanted = [line for line in lines if line != "(none)"]
        wait_for(lambda: self._are_there(wanted), f"these files: {wanted}; there are {self._present()}")

    def _present(self) -> list[str]:
        home = self._suite.home
        return sorted(str(path.relative_to(home)) for folder in _FOLDERS for path in home.glob(f"{folder}/*"))

    def _are_there(self, wanted: list[str]) -> bool:
        present = self._present()
        for line in wanted:
            found = next((path for path in present if self._matches(line, path)), None)
            if found is None:
                return False
            present.remove(found)
        return not present

    def _state(self, lines: list[str]) -> None:
        (path,) = Path(self._suite.home / "queue/state").iterdir()
        assert not self._in_order(lines, path.read_text().splitlines())
        assert len(lines) == len(path.read_text().splitlines())
