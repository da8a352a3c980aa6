"""qm check-install: compare the disk with what an installation should be, and name each difference."""

import os
import shlex
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

import click

from qm.admin import code, place, unfinished
from qm.admin.screen import printable, show
from qm.disk import safety, survey
from qm.errors import OK, Permanent

DIFFERS: Final = 1
_NEEDED: Final = ("rc", "services", "control/me")


class Finding(NamedTuple):
    text: str
    fatal: bool  # the programs do not start


def _missing(home: str) -> Iterator[Finding]:
    """What a command that was cut short, or a mistake, has left without."""
    command = unfinished.found(home)
    if command:
        yield Finding(f"{home}: {command} has not come to its end; run it again", False)
    for path in (os.path.join(home, name) for name in _NEEDED):
        if not os.path.lexists(path):
            yield Finding(f"{path}: missing; qm install", False)
    programs = os.path.join(home, "bin")
    if os.path.islink(programs) and not os.path.exists(programs):
        yield Finding(f"{programs}: leads to no programs; install again, from a checkout", False)


def _closed(home: str) -> Iterator[Finding]:
    """Directories above that keep users, and roles that are not forked but exec'd, from the programs in the home."""
    path = os.path.realpath(home)
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & stat.S_IXOTH:
            mend = f"chmod o+x {shlex.quote(path)}"
            yield Finding(f"{path}: others cannot search it, so they do not reach the programs; {mend}", False)


def findings(home: str) -> Iterator[Finding]:
    """Raises OSError where it cannot look."""
    yield from _missing(home)
    for danger in safety.dangers(home):
        yield Finding(f"{danger.path}: {danger.text}", danger.fatal)
    for difference in survey.differences(home):
        mend = f"; {difference.mend}" if difference.mend else ""
        yield Finding(f"{difference.path}: {difference.text}{mend}", False)
    if os.path.lexists(place.lib(home)):  # a checkout's programs are another's concern
        yield from _closed(home)
        for path, text in code.changes(place.lib(home)):
            yield Finding(f"{path}: {text}; install again, from a checkout", False)


@click.command("check-install", short_help="compare the disk with what it should be")
@place.home_option
def command(home: str) -> int:
    """Compare owners, modes and programs with what they should be; the exit code is 1 if anything differs."""
    if not os.path.isdir(os.path.join(home, "control")):
        raise Permanent(f"{home} is no mail system", detail="it has no directory control; qm install makes one")
    count = 0
    for finding in findings(home):
        count += 1
        mark, style = ("DANGER ", "bold red") if finding.fatal else ("", "yellow")
        show(mark + printable(finding.text), style)
    show(f"{home}: {count} differences" if count else f"{home}: all is as it should be")
    return DIFFERS if count else OK
