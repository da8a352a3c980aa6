"""A home compared with the table of qm.disk.layout: each difference, and how to mend it."""

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from qm.disk import layout
from qm.disk.layout import Kind, Made, Place
from qm.errors import Temporary
from qm.unix import privs
from qm.unix.privs import Ids

_NAMES: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}
_OWN: Final = frozenset(place.path for place in layout.PLACES)  # what has a row of its own, or is a pattern


class Difference(NamedTuple):
    path: str
    text: str
    mend: str  # a command line, or what else helps; may be empty


def differences(home: str = ".") -> Iterator[Difference]:
    """What in *home* is not as the table says.  Raises OSError where it cannot look."""
    known: dict[tuple[str, ...], list[Ids] | Difference] = {}
    for place in layout.PLACES:
        owners = known.get(place.owners)
        if owners is None:
            owners = known[place.owners] = _owners(place, home)
            if isinstance(owners, Difference):
                yield owners
        if isinstance(owners, list):
            for path in _paths(place, home):
                yield from _compare(place, path, owners)


def is_right(place: Place, home: str = ".") -> bool:
    """Whether nothing about *place* differs."""
    owners = _owners(place, home)
    if isinstance(owners, Difference):
        return False
    return not any(True for path in _paths(place, home) for _ in _compare(place, path, owners))


def _owners(place: Place, home: str) -> list[Ids] | Difference:
    try:
        return layout.owners(place, home)
    except Temporary as error:
        return Difference(home, str(error), "qm install")


def _paths(place: Place, home: str) -> list[str]:
    """What is there of *place*, and what should be; of a pattern what has no row of its own."""
    path = os.path.normpath(os.path.join(home, place.path))
    folder, pattern = os.path.split(path)
    if "*" not in pattern:
        missing_matters = place.made is not Made.USE
        return [path] if missing_matters or os.path.lexists(path) else []
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []  # said of the directory itself
    others = [name for name in names if os.path.join(os.path.dirname(place.path), name) not in _OWN]
    return [os.path.join(folder, name) for name in sorted(others) if fnmatchcase(name, pattern)]


def _compare(place: Place, path: str, owners: list[Ids]) -> Iterator[Difference]:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) and status.st_uid == owners[0].uid and place.made is Made.USE:
            with suppress(OSError):  # it leads nowhere: a link is what it is
                status = os.stat(path)  # an administrator keeps the file elsewhere
    except FileNotFoundError:
        if place.made is not Made.USE:
            yield Difference(path, "missing", "qm install" if place.made is Made.INSTALL else "rc start")
        return  # it has gone just now
    if stat.S_IFMT(status.st_mode) != place.kind.value:
        is_now, should_be = _NAMES.get(stat.S_IFMT(status.st_mode), "a device"), _NAMES[place.kind.value]
        yield Difference(path, f"{is_now}, not {should_be}", "")
        return
    yield from _compare_owner(place, path, status, owners)
    yield from _compare_mode(place, path, stat.S_IMODE(status.st_mode))


def _compare_owner(place: Place, path: str, status: os.stat_result, owners: list[Ids]) -> Iterator[Difference]:
    """A file's group does not matter: its mode gives a group no more than everybody."""
    wanted = owners[0]
    group_matters = privs.is_root() and place.kind is not Kind.FILE
    if status.st_uid not in {ids.uid for ids in owners}:
        text = f"owner {privs.account(status.st_uid)}, not {privs.account(wanted.uid)}"
        yield Difference(path, text, f"chown {privs.account(wanted.uid)} {shlex.quote(path)}")
    if group_matters and status.st_gid not in {ids.gid for ids in owners}:
        text = f"group {privs.group(status.st_gid)}, not {privs.group(wanted.gid)}"
        yield Difference(path, text, f"chgrp {privs.group(wanted.gid)} {shlex.quote(path)}")


def _compare_mode(place: Place, path: str, mode: int) -> Iterator[Difference]:
    at_most = place.kind is Kind.FILE and place.made is Made.USE
    wanted = mode & place.mode if at_most else place.mode
    if mode != wanted:
        yield Difference(path, f"mode {mode:04o}, not {wanted:04o}", f"chmod {wanted:04o} {shlex.quote(path)}")
