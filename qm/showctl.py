"""showctl: print every control file with what it means here, and what is wrong with it (qmail-showctl).

Usage:   qm-showctl
Reads:   control/*
Writes:  fd 1
As:      whoever may read the control files
Exits:   0; 111 a file is broken, cannot be read, or has not been compiled
See:     qm-showctl(8), qm-control(5)

What the programs would refuse is told with file and line; files that no program reads are named: a misspelt one is a
setting that does not count.
"""

import os
import sys
from collections.abc import Iterator
from typing import Final

from qm import errors
from qm.disk.control import ME, TABLE, BadControl, Control, Controls, Kind
from qm.unix.log import clean
from qm.unix.program import Argv, Env, Usage, home, program

DIRECTORY: Final = "control"
SHOWN_MAX: Final = 20  # entries of a list
# what lies beside the control files of the table: compiled, or with keys
_OTHERS: Final = frozenset({"morercpthosts.cdb", "servercert.pem", "servercerts", "clientca.pem", "acme.key"})


def _values(controls: Controls, control: Control) -> list[bytes]:
    """The effective entries; raises BadControl where the default is control/me and that is missing."""
    if control.kind is Kind.INT:
        return [b"%d" % controls.number(control.name)]
    if control.kind is Kind.LIST and control.secret:
        return [b"an entry that is not shown"] * len(controls.lines(control.name))
    if control.kind is Kind.LIST:
        return list(controls.lines(control.name))
    if control.kind is Kind.TABLE:
        return [b"%b:%b" % pair for pair in controls.table(control.name).items()]
    value = controls.me() if control.name == "me" else controls.line(control.name)
    return [value] if value else []


def _default(control: Control) -> str:
    if control.default is None:
        return "nothing"
    if isinstance(control.default, int):
        return f"{control.default} {control.unit}".strip()
    return "what control/me says" if control.default == ME else control.default.decode("ascii")


def _show(control: Control) -> Iterator[str]:
    """Lines about one control file; raises BadControl."""
    controls = Controls((control.name,))
    values = [clean(value).decode("ascii") for value in _values(controls, control)]
    present = controls.present(control.name)
    said = "" if present else "   (default)"
    shown = values[:SHOWN_MAX] or ["nothing"]
    unit = f" {control.unit}" if control.unit and values else ""
    yield f"{control.name}: {shown[0]}{unit}{said}"
    yield from (f"{' ' * len(control.name)}  {value}" for value in shown[1:])
    if len(values) > SHOWN_MAX:
        yield f"{' ' * len(control.name)}  and {len(values) - SHOWN_MAX} more"
    yield f"    {control.text}  Read by {control.readers}; without the file: {_default(control)}."


def _unknown() -> list[str]:
    return sorted(name for name in os.listdir(DIRECTORY) if name not in TABLE and name not in _OTHERS)


def _unsafe_folder() -> str | None:
    mode = os.stat(DIRECTORY).st_mode
    return f"{DIRECTORY}: writable by everybody; chmod o-w" if mode & 0o002 else None


def _age_ns(name: str) -> int | None:
    try:
        return os.stat(f"{DIRECTORY}/{name}").st_mtime_ns
    except FileNotFoundError:
        return None


def _compiled() -> tuple[str, bool] | None:
    """What there is to say of morercpthosts.cdb, and whether it is wrong: smtpd reads that, and not the text."""
    text, cdb = _age_ns("morercpthosts"), _age_ns("morercpthosts.cdb")
    if text is None:
        known = f"{DIRECTORY}/morercpthosts, of which it was made, is missing"
        return None if cdb is None else (f"morercpthosts.cdb: {known}", False)
    if cdb is None:
        return f"morercpthosts.cdb: WRONG: {DIRECTORY}/morercpthosts.cdb is missing; run qm-newmrh", True
    if cdb < text:
        older = f"{DIRECTORY}/morercpthosts.cdb is older than {DIRECTORY}/morercpthosts"
        return f"morercpthosts.cdb: WRONG: {older}; run qm-newmrh", True
    return None


def _report() -> Iterator[tuple[str, bool]]:
    """Lines, and whether each tells something wrong."""
    for control in TABLE.values():
        try:
            yield from ((line, False) for line in _show(control))
        except BadControl as error:
            yield f"{control.name}: WRONG: {error.detail}", True
            yield f"    {control.text}  Read by {control.readers}.", False
    compiled = _compiled()
    if compiled is not None:
        yield compiled
    unsafe = _unsafe_folder()
    if unsafe:
        yield f"WRONG: {unsafe}", True
    for name in _unknown():
        yield f"{clean(os.fsencode(name)).decode('ascii')}: no program of ours reads this file", False


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-showctl")
    sys.stdout.write(f"home: {os.fsdecode(home(env))}\n\n")
    wrong = False
    try:
        for line, is_wrong in _report():
            sys.stdout.write(f"{line}\n")
            wrong = wrong or is_wrong
    except OSError as error:
        raise errors.Temporary("cannot read the control files", detail=f"{error.filename}: {error.strerror}") from error
    return errors.TEMPORARY if wrong else errors.OK
