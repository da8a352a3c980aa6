"""qm install: make a mail system of this machine, as far as it is not one.

What is there stays: an administrator's control files, services, rules.  What is not is made, in the order of the plan,
which --dry-run shows.
"""

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import click

from qm.admin import accounts, place, texts, unfinished
from qm.admin.accounts import Names
from qm.admin.action import Action, Folder, Link, Write, be_alone, carry_out, read
from qm.admin.code import MANIFEST, InstallCode, tidy
from qm.admin.home import AliasMaildir, Certificate, CompileRules, Directory, QueueFolders
from qm.admin.screen import show
from qm.disk import layout, safety
from qm.errors import OK, Permanent, Temporary
from qm.quickstart.home import rc_script
from qm.supervise import LOCK
from qm.unix import owner, privs
from qm.unix.interfaces import own_addresses
from qm.wire.hostcontrols import LABEL, full_name

_ADDRESS: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+=-]{{0,63}}(@{LABEL}(\.{LABEL})*)?")
_PREFIX: Final = re.compile(r"[a-z_][a-z0-9_-]{0,20}")
_PAGE: Final = re.compile(r"[a-z0-9-]+\.[1-8]")
_MAILDIR: Final = ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur")


class Order(NamedTuple):
    """What was asked for."""

    host: str
    home: str
    names: Names
    root: str  # who gets root's mail; empty: nothing has been said
    skeleton: bool

    def path(self, name: str) -> str:
        return os.path.join(self.home, name)


def plan(order: Order) -> Iterator[Action]:
    """Everything that makes a mail system, in order; carried out as far as it is not done."""
    yield from accounts.plan(order.names, order.home)
    roots = [entry for entry in layout.folders() if entry.owners[0] == "root"]
    yield from (Directory(entry, order.home) for entry in roots)
    yield from accounts.plan_roles(order.names, order.home)  # who the others belong to
    yield from (Directory(entry, order.home) for entry in layout.folders() if entry not in roots)
    yield QueueFolders(order.home)
    yield InstallCode(place.SOURCE, place.lib(order.home))
    yield from tidy(place.lib(order.home))
    yield Link(order.path("bin"), "lib/bin", ours="lib")
    yield from _configuration(order)
    yield Write(order.path("rc"), rc_script(order.home), 0o755, keep=False)
    yield Write(order.path("services"), texts.services(order.host, order.names))
    yield Write(order.path("tcp.smtp"), texts.RULES)
    yield CompileRules(order.path("tcp.smtp"), order.path("tcp.smtp.cdb"))
    yield from _system(order)


def _configuration(order: Order) -> Iterator[Action]:
    for name, value in texts.control_files(order.host).items():
        yield Write(order.path(f"control/{name}"), f"{value}\n")
    for name in sorted(os.listdir(os.path.join(place.SOURCE, "control"))):
        yield Write(order.path(f"control/{name}"), read(os.path.join(place.SOURCE, "control", name)) or "")
    yield Certificate(order.path("control/servercert.pem"), order.host)
    yield AliasMaildir(order.home)
    for name, text in texts.aliases(order.root).items():
        said = bool(order.root) and name == ".qmail-root"
        yield Write(order.path(f"alias/{name}"), text, keep=not said)


def _system(order: Order) -> Iterator[Action]:
    """Outside of the home."""
    manual = os.path.join(place.SOURCE, "docs", "man")
    for name in sorted(filter(_PAGE.fullmatch, os.listdir(manual))):
        target = os.path.join(place.lib(order.home), "docs", "man", name)
        yield Link(os.path.join(place.MAN, f"man{name.rpartition('.')[2]}", name), target, ours=order.home)
    if os.path.isdir(place.UNITS):
        template = read(os.path.join(place.SOURCE, "packaging", "qm.service")) or ""
        yield Write(os.path.join(place.UNITS, place.unit_name(order.home)), texts.unit(template, order.home))
    if order.skeleton:
        yield Folder(place.SKELETON, 0o755)
        yield from (Folder(os.path.join(place.SKELETON, name), 0o700) for name in _MAILDIR)
        yield Write(os.path.join(place.SKELETON, ".qmail"), texts.MAILDIR)


def refuse(order: Order) -> None:
    """Raise Permanent, Temporary for what must not be, before anything is done."""
    me = read(order.path("control/me"))
    if me is not None and me.partition("\n")[0].strip().lower() != order.host:
        why = f"another host needs another --home; or change {order.path('control/me')}"
        raise Permanent(f"{order.home} is another host's", detail=why)
    strange = _strange(order.home)
    if strange:
        raise Permanent(f"{order.home} is not qm's", detail=f"it has {strange}; choose another --home")
    inside = os.path.realpath(order.home) + "/"
    for danger in safety.dangers(order.home):
        if danger.fatal and not f"{danger.path}/".startswith(inside):  # inside, all is set right
            raise Temporary("this home would not be safe", detail=f"{danger.path}: {danger.text}")
    accounts.refuse_strangers(order.names)


def _strange(home: str) -> str:
    """A name in *home* that is none of ours: other software's directories are never touched."""
    if os.path.exists(os.path.join(place.lib(home), MANIFEST)) or not os.path.lexists(home):
        return ""
    ours = {entry.path.partition("/")[0] for entry in layout.PLACES} | {"home", "login", "lib.new", "lib.old"}
    if os.path.islink(os.path.join(home, "bin")):  # a crash may have left it alone
        ours.add("bin")
    names = (name for name in sorted(os.listdir(home)) if name not in ours and not name.startswith("tcp."))
    return next(names, "")


def _host(context: click.Context, parameter: click.Parameter, value: str) -> str:
    host = full_name(value)
    if host is None:
        raise click.BadParameter(f"{value} is not a full host name, as mail.example.org")
    return host


def _prefix(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _PREFIX.fullmatch(value):
        raise click.BadParameter("user names begin with a lower-case letter, and have letters, digits, - and _")
    return value


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not _ADDRESS.fullmatch(value):
        raise click.BadParameter(f"{value} is neither a user's name nor an address")
    return value


def _show_next_steps(order: Order) -> None:
    unit = place.unit_name(order.home)
    steps = texts.next_steps(
        order.host,
        order.home,
        texts.public_addresses(own_addresses()),
        has_unit=unit if os.path.isdir("/run/systemd/system") else "",
        root=order.root or (read(order.path("alias/.qmail-root")) or texts.MAILDIR).removesuffix(texts.MAILDIR),
        has_sendmail=os.path.exists(os.path.join(place.SOURCE, "bin", "sendmail")),
    )
    show(steps)


@click.command("install", short_help="make a mail system of this machine")
@click.argument("host", callback=_host)
@place.home_option
@click.option("--postmaster", default="", metavar="ADDRESS", callback=_address, help="who gets root's mail")
@click.option("--prefix-users", default=accounts.PREFIX, metavar="NAME", callback=_prefix,
              help="how the programs' users begin (qmail: qmaild, qmailq ...)")  # fmt: skip
@click.option("--skel", is_flag=True, help="new users get a Maildir: into /etc/skel")
@click.option("--dry-run", is_flag=True, help="show every action, and do none")
def command(host: str, home: str, postmaster: str, prefix_users: str, skel: bool, dry_run: bool) -> int:
    """Make a mail system of this machine, whose name is HOST.  Done again, it changes nothing."""
    order = Order(host, home, Names(prefix_users), postmaster, skel)
    if not (dry_run or privs.is_root()):
        raise Permanent("only root can install", detail="--dry-run shows what would be done")
    if not dry_run:
        be_alone()
    refuse(order)
    os.umask(0o022)
    count = carry_out(plan(order), show, dry_run=dry_run, before=lambda: unfinished.begin(home, "install"))
    if dry_run:
        show(f"{count} actions; nothing has been done" if count else f"{home} is installed; nothing is left to do")
        return OK
    unfinished.end(home)
    show(f"{home} is installed" if count else f"{home} is installed; nothing was left to do")
    if count and owner.find(order.path(LOCK)) is not None:
        show(f"What runs there does not know yet: {home}/rc restart", "bold")
    _show_next_steps(order)
    return OK
