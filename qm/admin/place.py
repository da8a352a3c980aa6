"""Where things are: the home that a subcommand is about, the copy that it runs from, the system's own places."""

import os
import re
from collections.abc import Callable
from typing import Final, TypeVar

import click

from qm.unix import chain
from qm.unix.program import DEFAULT_HOME

SOURCE: Final = os.path.dirname(chain.BIN)  # a checkout, or the lib/ of an installed home
MAN: Final = "/usr/local/share/man"
UNITS: Final = "/etc/systemd/system"
SKELETON: Final = "/etc/skel"
SENDMAIL: Final = ("/usr/sbin/sendmail", "/usr/lib/sendmail")
_HOME: Final = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")  # it becomes part of scripts and units
_Function = TypeVar("_Function", bound=Callable[..., object])


def _home(context: click.Context, parameter: click.Parameter, value: str) -> str:
    path = os.path.realpath(value)
    if not _HOME.fullmatch(path):
        raise click.BadParameter("a home is a path of letters, digits, dots, dashes and underscores, below /")
    return path


def home_option(function: _Function) -> _Function:
    """--home, else QMHOME, which is by default the home that the command is in, else /var/qm."""
    default, text = os.fsdecode(DEFAULT_HOME), "where everything lies"
    return click.option("--home", default=default, envvar="QMHOME", metavar="DIR", callback=_home, help=text)(function)


def lib(home: str) -> str:
    return os.path.join(home, "lib")


def unit_name(home: str) -> str:
    """The systemd unit of *home*; never one that the system has."""
    return "qm.service" if home == os.fsdecode(DEFAULT_HOME) else f"qm-{os.path.basename(home)}.service"
