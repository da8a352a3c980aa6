"""The manual pages: one for each program, that says what the program's contract says, in mdoc that any roff can set."""

import re
import runpy
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from qm.admin.command import SUBCOMMANDS
from qm.disk.control import TABLE
from qm.passwd import USAGE as PASSWD_USAGE
from qm.programs import PROGRAMS
from qm.supervise.rc import _COMMANDS as RC_COMMANDS
from qm.tcpserver.options import _FLAGS, _NUMBERS, _TEXTS, IPC
from tests.harness.suite import ROOT

QM_COMMANDS: Final = [
    command for module in SUBCOMMANDS for command in getattr(module.command, "commands", {"": module.command}).values()
]
QM_OPTIONS: Final = [word for command in QM_COMMANDS for option in command.params for word in option.opts]
FOLDER: Final = ROOT / "docs" / "man"
PAGES: Final = sorted(FOLDER.glob("*.[1-8]"))
PROGRAM_PAGES: Final = [path for path in PAGES if path.suffix in (".1", ".8")]
OTHERS: Final = {"biff(1)", "crypt(3)", "passwd(5)", "tai64nlocal(8)", "wait(2)"}  # of other packages
ORDER: Final = (
    "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "DIAGNOSTICS",
    "SEE ALSO", "STANDARDS",
)  # fmt: skip
OF_PROGRAMS: Final = {"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"}
OF_ALL: Final = {"NAME", "DESCRIPTION", "SEE ALSO"}
MACROS: Final = re.compile(r"[DOSN][dtshm]|Op|Ar|Fl|Cm|Ev|Pa|Xr|Pp|Bl|It|El|Bd|Ed|Dl|Ql|Sq|Pq|No|Ns")  # what we use
# Where the contract's usage line does not tell options from what is attached to them
OPTIONS: Final[dict[str, set[str]]] = {
    "ipcserver": {letter.decode() for letter in (*IPC.flags, *IPC.texts, *IPC.numbers)},
    "tcpserver": {letter.decode() for letter in (*_FLAGS, *_TEXTS, *_NUMBERS)},
    "qm": {option for option in QM_OPTIONS if option.startswith("--")},
    "qm-inject": set("aAfhHnN"),
    **{name: set("tfFbmpsiqvNRV") for name in ("sendmail", "mailq")},
    "qm-passwd": {f"--{word}" for word in re.findall(r"--([a-z]+)", PASSWD_USAGE)},
}
_FIELD: Final = re.compile(r"^([A-Z][a-z]+): +(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_TITLE: Final = re.compile(r"\b([a-z][a-z0-9-]*\([1-8]\))")


def _title(path: Path) -> str:
    return f"{path.stem}({path.suffix[1:]})"


def _contract(program: str) -> dict[str, str]:
    """The fields of a program's docstring."""
    return dict(_FIELD.findall(import_module(PROGRAMS[program]).__doc__ or ""))


def _page(program: str) -> Path:
    """The page that has the program's name; one page may have several."""
    (path,) = (path for path in PROGRAM_PAGES if f".Nm {program}\n" in _section(path, "NAME").replace(" ,\n", "\n"))
    return path


def _plain(path: Path) -> str:
    """A page's text without its macros."""
    words = [word for line in path.read_text().splitlines() for word in line.removeprefix(".").split()]
    return " ".join(word for word in words if not MACROS.fullmatch(word))


def _section(path: Path, name: str) -> str:
    return path.read_text().partition(f"\n.Sh {name}\n")[2].partition("\n.Sh ")[0] + "\n"


@pytest.fixture(params=PAGES, ids=_title)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_has_its_page(program: str) -> None:
    """A program's page has all the sections that a program needs."""
    text = _page(program).read_text()
    assert set(re.findall(r"^\.Sh (.*)$", text, re.MULTILINE)) >= OF_PROGRAMS


def test_each_page_has_its_subject() -> None:
    """There are no pages but those of programs, formats, and qm itself."""
    formats = {"dot-qmail.5", "qm-control.5", "qm-queue.5", "qm-users.5", "qm.7"}
    assert {path.stem for path in PROGRAM_PAGES} <= set(PROGRAMS)
    assert {path.name for path in PAGES} - {path.name for path in PROGRAM_PAGES} == formats


def test_sections(page: Path) -> None:
    """Sections come in the usual order; the first is the name, the last says what else to read."""
    sections = re.findall(r"^\.Sh (.*)$", page.read_text(), re.MULTILINE)
    assert sections == [name for name in ORDER if name in sections]
    assert set(sections) >= OF_ALL


def test_mdoc(page: Path) -> None:
    """A page names itself, uses the macros that we know, closes what it opens, and has short lines."""
    lines = page.read_text().splitlines()
    assert lines[1] == f".Dt {page.stem.upper()} {page.suffix[1:]}"
    used = [line.split()[0][1:] for line in lines if line.startswith(".") and not line.startswith('.\\"')]
    assert [macro for macro in used if not MACROS.fullmatch(macro)] == []
    for opened, closed in (("Bl", "El"), ("Bd", "Ed")):
        assert used.count(opened) == used.count(closed)
    assert [line for line in lines if len(line) > 80 and not line.startswith(".It")] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_references(page: Path) -> None:
    """A page that another one refers to is here, or a known one of other packages."""
    found = re.findall(r"\bXr ([a-z0-9-]+) ([1-8])", page.read_text())
    ours = {_title(path) for path in PAGES}
    assert {f"{name}({section})" for name, section in found} - ours - OTHERS == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_docstrings_refer_to_pages(program: str) -> None:
    """A program's docstring names its own page, and no page that is not here."""
    named = set(_TITLE.findall(_contract(program)["See"]))
    assert named - {_title(path) for path in PAGES} - OTHERS == set()
    assert _title(_page(program)) in named


def _accepted(program: str) -> set[str]:
    """The options of a program, a letter each, or a word after two dashes."""
    if program in OPTIONS:
        return OPTIONS[program]
    usage = _contract(program).get("Usage", "")
    words = re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", usage)
    return {*words, *"".join(re.findall(r"(?<![\w-])-([A-Za-z0-9/]+)", usage))}


@pytest.mark.parametrize("program", PROGRAMS)
def test_options(program: str) -> None:
    """Each option that the program takes is in its page, and no other."""
    text = _page(program).read_text()
    words = {f"--{word}" for word in re.findall(r"\bFl Fl ([a-z][a-z-]*)", text)}
    letters = "".join(re.findall(r"(?<!Fl )\bFl (?!Fl )([A-Za-z0-9/]+)", text))
    assert words | set(letters) == _accepted(program)


def test_commands_of_rc() -> None:
    """Each command of rc has its item in the page."""
    items = re.findall(r"^\.It Cm (\w+)$", (FOLDER / "qm-rc.8").read_text(), re.MULTILINE)
    assert items == [name.decode() for name in RC_COMMANDS]


@pytest.mark.parametrize("program", PROGRAMS)
def test_environment(program: str) -> None:
    """What the contract says of the environment is in the page."""
    names = set(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", _contract(program).get("Env", "")))
    assert {name for name in names if not re.search(rf"\b{name}\b", _plain(_page(program)))} == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_exit_codes(program: str) -> None:
    """Each exit code of the contract has its item in the page."""
    codes = set(re.findall(r"(?<![\w.])\d+(?![\w.]| s\b)", _contract(program).get("Exits", "").partition("(")[0]))
    told = _section(_page(program), "EXIT STATUS")
    assert {code for code in codes if not re.search(rf"(?:\.It |\bis ){code}\b", told)} == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_control_files(program: str) -> None:
    """Each control file that a program reads is in its page, and in qm-control(5)."""
    reads = _contract(program).get("Reads", "")
    found = re.findall(r"control/(?:\{([^}]*)\}|([a-z0-9]+))", reads, re.DOTALL)
    names = {name.strip() for group, single in found for name in (group or single).split(",")}
    plain = _plain(_page(program))
    assert {name for name in names if f"control/{name}" not in plain} == set()
    assert names <= set(re.findall(r"^\.It Pa (\w+)$", (FOLDER / "qm-control.5").read_text(), re.MULTILINE))


def test_the_page_of_control_files_is_made_of_the_table() -> None:
    """qm-control.5 is what docs/man/make.py makes of the table; run it after a change."""
    made = runpy.run_path(str(FOLDER / "make.py"))["page"]()
    assert (FOLDER / "qm-control.5").read_text() == made
    assert made.count("\n.It Pa ") == len(TABLE)


def test_groff_sets_it(page: Path) -> None:
    """groff has nothing to complain of; where there is no groff, the other tests must do."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not here")
    done = subprocess.run(
        ["groff", "-mandoc", "-Tutf8", "-ww", str(page)], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


# Where the tests of programs with options and variables of their own are.
TESTS_OF: Final = {
    "qm-inject": "unit/inject corpus/header black/test_inject.py black/test_requiretls.py",
    "sendmail": "black/test_sendmail.py",
    "qm-pw2u": "unit/test_pw2u.py",
    "qm-vacation": "unit/vacation black/test_dotqmail_programs.py",
    "preline": "black/test_dotqmail_programs.py",
    "rblsmtpd": "unit/rblsmtpd black/test_rblsmtpd.py",
    "tcp-env": "black/test_tcpenv.py",
    "tcpclient": "black/test_tcpclient.py",
    "condredirect": "black/test_dotqmail_programs.py black/test_requiretls.py",
    "maildir2mbox": "black/test_maildir2mbox.py crash/test_maildir2mbox.py",
    "qbiff": "unit/test_qbiff.py black/test_dotqmail_programs.py",
}


@pytest.mark.parametrize("program", TESTS_OF)
def test_each_option_and_variable_has_a_case(program: str) -> None:
    """Each option of the program, and each variable of its contract, stands in one of its tests."""
    places = [ROOT / "tests" / name for name in TESTS_OF[program].split()]
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    text = "\n".join(path.read_text(errors="replace") for path in files if path.suffix != ".pyc")
    said = "".join(re.findall(r"(?<![\w-])-([A-Za-z0-9/]+)", text))
    read, _, _ = _contract(program).get("Env", "").partition("sets ")
    variables = set(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", read)) - {"RFC", "QMHOME", "QMCOLD"}  # those every test has
    missing = {name for name in variables if not re.search(rf"(?<![A-Z]){name}(?![A-Z])", text)}
    assert (_accepted(program) - set(said), missing) == (set(), set())
