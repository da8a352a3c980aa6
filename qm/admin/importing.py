"""qm import: carry over the configuration and the queue of a qmail or a Postfix.

The other system is only read.  What cannot be carried over is said, line by line, and nothing that is here already is
replaced; what has been done before is not done again.
"""

import os
from collections.abc import Iterator

import click

from qm.admin import place, queueimport
from qm.admin.action import be_alone
from qm.admin.findings import Finding
from qm.admin.frompostfix import Postfix
from qm.admin.fromqmail import Qmail
from qm.admin.screen import show
from qm.errors import OK, Permanent, Temporary
from qm.unix import privs
from qm.unix.program import enter_home

INCOMPLETE = 1


def _apply(finding: Finding, *, dry_run: bool) -> None:
    for action in finding.actions:
        if not action.is_done():
            if not dry_run:
                action.do()
            show(f"    {action}")


def _queue(system: Qmail | Postfix, *, dry_run: bool) -> Iterator[Finding]:
    sources = []
    for found in system.queue():
        if isinstance(found, Finding):
            yield found
        else:
            sources.append(found)
    yield from queueimport.carry(sources, system.rules(), dry_run=dry_run)


def _report(findings: Iterator[Finding], *, dry_run: bool) -> int:
    """Say and do what is found; how much could not be carried over."""
    failed = 0
    for finding in findings:
        show(str(finding), "" if finding.carried else "bold")
        failed += not finding.carried
        if finding.carried:
            _apply(finding, dry_run=dry_run)
    return failed


@click.command("import", short_help="take over the configuration and queue of a qmail or a Postfix")
@click.argument("system", type=click.Choice(["qmail", "postfix"]))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, resolve_path=True))
@place.home_option
@click.option("--queue", "only_queue", is_flag=True, help="the queue only")
@click.option("--config", "only_config", is_flag=True, help="the configuration only")
@click.option("--dry-run", is_flag=True, help="show what would be carried over, and do nothing")
def command(system: str, folder: str, home: str, only_queue: bool, only_config: bool, dry_run: bool) -> int:
    """Take over a SYSTEM: a qmail whose home is FOLDER, or a Postfix that has its main.cf there.

    Nothing is changed over there.  Exit code 1 says that something could not be carried over.
    """
    if only_queue and only_config:
        raise click.UsageError("--queue and --config exclude one another")
    enter_home({b"QMHOME": os.fsencode(home)})
    if not dry_run and not privs.is_root() and os.stat(".").st_uid != os.geteuid():
        raise Permanent("only root can import into a system of root's", detail="--dry-run shows what would be done")
    if not dry_run and privs.is_root():
        be_alone()
    there = Qmail(folder, home) if system == "qmail" else Postfix(folder, home, os.uname().nodename)
    runs = there.runs()
    if runs and not (dry_run or only_config):
        raise Temporary("stop the other system first", detail=f"{runs}: both would deliver what waits")
    failed = 0 if only_queue else _report(there.findings(), dry_run=dry_run)
    failed += 0 if only_config else _report(_queue(there, dry_run=dry_run), dry_run=dry_run)
    if dry_run:
        show(f"Nothing has been done.  {failed} things cannot be carried over.")
    else:
        show(f"Done; {failed} things could not be carried over.  {folder} is as it was: do not start it again.")
    return INCOMPLETE if failed else OK
