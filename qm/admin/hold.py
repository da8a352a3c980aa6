"""qm hold: messages over a limit of their login, or imported as on hold, which wait for the administrator."""

import os
from collections.abc import Sequence

import click

from qm.admin import place
from qm.admin.screen import printable, show
from qm.disk import held, queue, queueview
from qm.disk.queuefile import Corrupt
from qm.errors import OK, TEMPORARY, Permanent
from qm.unix import log
from qm.wire import date, queueid
from qm.wire.envelope import Envelope

GONE = 1


def _text(value: bytes) -> str:
    return log.clean(value).decode("ascii")


def _valid(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> list[bytes]:
    names = [os.fsencode(word.removeprefix("#")) for word in value]
    if not all(map(queueid.valid, names)):
        raise click.BadParameter("an ID is 18 characters of 0-9 and a-z, as qm hold list shows")
    return names


@click.group("hold", short_help="what waits for the administrator")
@place.home_option
def command(home: str) -> None:
    """Messages over a limit of their login, or imported as on hold: look at them, let them go, throw them away."""
    os.chdir(home)


def _line(name: bytes, envelope: Envelope) -> str:
    born = date.rfc5322(envelope.born_ns // 1_000_000_000).decode()
    if envelope.held == held.IMPORTED:
        who = "on hold in the system that it came from"
    else:
        who = f"login {_text(envelope.login)} by {_text(envelope.held)}, at {_text(envelope.client)}"
    return f"{name.decode()}  {born}  {who}  <{_text(envelope.sender)}>, {len(envelope.recipients)} recipients"


@command.command("list")
@click.argument("login", required=False)
def list_(login: str | None) -> int:
    """A line for each message, or for those of LOGIN."""
    worst = OK
    for name in held.ids():
        try:
            envelope = held.envelope(name)
        except Corrupt as error:
            show(printable(f"{name.decode()}  is damaged: {error}"))
            worst = TEMPORARY
            continue
        if envelope is not None and login in (None, _text(envelope.login)):
            show(_line(name, envelope))
    return worst


@command.command("show")
@click.argument("names", metavar="ID", nargs=1, callback=lambda c, p, value: _valid(c, p, [value]))
def show_(names: list[bytes]) -> int:
    """The envelope of a message, and its header."""
    (name,) = names
    view = queueview.look(name, (queue.HELD,))
    if view is None:
        raise Permanent("no such message is held", detail=name.decode())
    show(_line(name, view.envelope))
    for recipient in view.envelope.recipients:
        show(f"to <{_text(recipient.address)}>")
    show("")
    for line in queueview.header(name, queue.HELD).split(b"\n"):
        show(_text(line))
    return OK


def _each(steps: tuple[held.Step, ...], names: Sequence[bytes], done: str) -> int:
    """The exit code is that of the worst."""
    worst = OK
    for name in names:
        try:
            held.run(steps, name)
        except FileNotFoundError:
            show(f"{name.decode()} is not held")
            worst = GONE
        else:
            show(f"{name.decode()} {done}")
    return worst


@command.command("release")
@click.argument("names", metavar="ID...", nargs=-1, required=True, callback=_valid)
def release(names: list[bytes]) -> int:
    """Let messages go: they are delivered as if they had just come."""
    return _each(held.RELEASE, names, "released")


@command.command("delete")
@click.argument("names", metavar="ID...", nargs=-1, required=True, callback=_valid)
def delete(names: list[bytes]) -> int:
    """Throw messages away; their senders are not told."""
    return _each(held.DELETE, names, "deleted")
