"""qm uninstall: take the programs away; mail, queue, users and configuration stay."""

import os
from collections.abc import Iterator

import click

from qm.admin import accounts, place, replace_sendmail, texts, unfinished
from qm.admin.action import Action, Remove, be_alone, carry_out, points_into, read
from qm.admin.code import MANIFEST, RemoveCode, tidy
from qm.admin.screen import show
from qm.errors import OK, Permanent
from qm.supervise import LOCK
from qm.unix import owner, privs


def plan(home: str) -> Iterator[Action]:
    """What it removes; the programs last, since they are running this."""
    yield from replace_sendmail.restoration(home)
    unit = os.path.join(place.UNITS, place.unit_name(home))
    if f"{home}/rc run" in (read(unit) or ""):
        yield Remove(unit)
    yield from (Remove(path) for path in _manual(home))
    yield from _skeleton()
    yield Remove(os.path.join(home, "rc"))
    yield Remove(os.path.join(home, "bin"))
    yield RemoveCode(place.lib(home))
    yield from tidy(place.lib(home))


def _manual(home: str) -> Iterator[str]:
    """Pages that are links into *home*."""
    for folder, _, names in os.walk(place.MAN):
        paths = [os.path.join(folder, name) for name in sorted(names)]
        yield from (path for path in paths if points_into(path, home))


def _skeleton() -> Iterator[Action]:
    """What --skel has made, if nobody has changed it."""
    instructions, maildir = os.path.join(place.SKELETON, ".qmail"), os.path.join(place.SKELETON, "Maildir")
    if read(instructions) == texts.MAILDIR:
        yield Remove(instructions)
        if not any(names for _, _, names in os.walk(maildir)):
            yield Remove(maildir, below=True)


@click.command("uninstall", short_help="take the programs away; mail and queue stay")
@place.home_option
@click.option("--dry-run", is_flag=True, help="show every action, and do none")
def command(home: str, dry_run: bool) -> int:
    """Take the programs away.  Mail, queue, users and configuration stay, and a later install finds them."""
    if not (dry_run or privs.is_root()):
        raise Permanent("only root can uninstall")
    if not dry_run:
        be_alone()
    if not (os.path.exists(os.path.join(place.lib(home), MANIFEST)) or unfinished.found(home)):
        raise Permanent(f"no programs are installed in {home}", detail="nothing was done")
    if owner.find(os.path.join(home, LOCK)) is not None:
        raise Permanent(f"the mail system in {home} runs", detail=f"first: {home}/rc stop")
    rest = "\n    ".join([*accounts.removal(home), f"rm -r {home}"])
    carry_out(plan(home), show, dry_run=dry_run, before=lambda: unfinished.begin(home, "uninstall"))
    if not dry_run:
        unfinished.end(home)
    show(f"Kept: {home} with queue, configuration, users and aliases.  To remove these too:\n    {rest}")
    return OK
