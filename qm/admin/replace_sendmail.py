"""qm replace-sendmail: let the system's sendmail command be ours, or the one again that was there before.

What was there is kept beside it.  At no moment is there no command: links take its place by rename.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

import click

from qm.admin import place
from qm.admin.action import Action, be_alone, carry_out, points_into
from qm.admin.screen import show
from qm.errors import OK, Permanent
from qm.unix import privs

KEPT: Final = ".before-qm"


class Replace(NamedTuple):
    """Make *path* a link to our sendmail, and keep what is there."""

    path: str
    home: str

    def __str__(self) -> str:
        kept = f", keep the old one as {self.path}{KEPT}" if os.path.lexists(self.path) else ""
        return f"link {self.path} to {self.home}/bin/sendmail{kept}"

    def is_done(self) -> bool:
        return points_into(self.path, self.home)

    def do(self) -> None:
        if os.path.lexists(self.path):
            with suppress(FileNotFoundError):
                os.unlink(self.path + KEPT)  # older than what a package has put there since
            os.link(self.path, self.path + KEPT, follow_symlinks=False)
        temporary = f"{self.path}.qm-new"
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join(self.home, "bin", "sendmail"), temporary)
        os.rename(temporary, self.path)


class Restore(NamedTuple):
    """Put back what `Replace` has kept."""

    path: str
    home: str

    def __str__(self) -> str:
        if os.path.lexists(self.path + KEPT):
            return f"put {self.path}{KEPT} back to {self.path}"
        return f"remove the link {self.path}"

    def is_done(self) -> bool:
        return not points_into(self.path, self.home)

    def do(self) -> None:
        if os.path.lexists(self.path + KEPT):
            os.rename(self.path + KEPT, self.path)
        else:
            os.unlink(self.path)


def paths() -> list[str]:
    """The commands; /usr/lib/sendmail only where it is not a link to the other."""
    first, *others = place.SENDMAIL
    return [first] + [path for path in others if os.path.realpath(path) != os.path.realpath(first)]


def restoration(home: str) -> Iterator[Action]:
    return (Restore(path, home) for path in place.SENDMAIL)


@click.command("replace-sendmail", short_help="let /usr/sbin/sendmail be ours")
@place.home_option
@click.option("--undo", is_flag=True, help="put back what was there before")
@click.option("--dry-run", is_flag=True, help="show every action, and do none")
def command(home: str, undo: bool, dry_run: bool) -> int:
    """Let the system's sendmail command be qm's, so that mail of local programs goes through the queue."""
    if not (dry_run or privs.is_root()):
        raise Permanent("only root can replace sendmail")
    if not dry_run:
        be_alone()
    if not undo and not os.path.exists(os.path.join(home, "bin", "sendmail")):
        raise Permanent("there is no sendmail to put there", detail=f"{home}/bin/sendmail is missing")
    plan = restoration(home) if undo else (Replace(path, home) for path in paths())
    if not carry_out(plan, show, dry_run=dry_run):
        show("nothing is left to do")
    return OK
