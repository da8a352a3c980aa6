"""Whether a home may be used at all: nobody else may be able to replace its directories, or those above, up to /.

Who can write a directory can put another control/ or queue/ into it.  A sticky bit, as /tmp has it, forbids that.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from qm.disk import layout
from qm.errors import Temporary

_GROUP_OR_OTHERS: Final = 0o022


class Danger(NamedTuple):
    path: str
    text: str
    fatal: bool  # false: it is another's, whom root may have reasons to trust


def dangers(home: str = ".") -> Iterator[Danger]:
    """What is wrong with the directories of *home*, and with those above; each once.

    Directories that we cannot look at are passed over.
    """
    seen: set[str] = set()
    for place in layout.PLACES:
        if place.kind is layout.Kind.FOLDER:
            path = os.path.realpath(os.path.join(home, place.path))
            if path not in seen:
                seen.add(path)
                yield from _judge(path, _GROUP_OR_OTHERS & ~place.mode)
            yield from _above(path, seen)


def refuse_folder(folder: str) -> None:
    """Raise Temporary for a directory, somewhere, in which another user could replace what we put there."""
    path = os.path.realpath(folder)
    found = [danger for danger in (*_judge(path, _GROUP_OR_OTHERS), *_above(path, {path})) if danger.fatal]
    owner = os.stat(path).st_uid
    if owner not in (0, os.geteuid()):
        found.append(Danger(path, f"belongs to uid {owner}", True))
    if found:
        raise Temporary("this directory is not safe", detail=f"{found[0].path}: {found[0].text}")


def _above(path: str, seen: set[str]) -> Iterator[Danger]:
    while (path := os.path.dirname(path)) not in seen:
        seen.add(path)
        yield from _judge(path, _GROUP_OR_OTHERS, is_ours=False)


def _judge(path: str, forbidden: int, is_ours: bool = True) -> Iterator[Danger]:
    """*forbidden*: bits of the mode.  In our own directories no sticky bit helps: others could add files."""
    try:
        status = os.stat(path)
    except OSError:
        return
    writable = status.st_mode & forbidden
    if not is_ours and status.st_mode & stat.S_ISVTX:
        writable = 0
    if writable & stat.S_IWOTH:
        yield Danger(path, f"everybody can write there; chmod o-w {path}", True)
    elif writable and not _is_private(status):
        yield Danger(path, f"group {status.st_gid} can write there; chmod g-w {path}", True)
    if not is_ours and status.st_uid not in (0, os.geteuid()):
        yield Danger(path, f"belongs to uid {status.st_uid}, who can replace what is in it", False)


def _is_private(status: os.stat_result) -> bool:
    """Whether the group is root's, our own, or one of its owner alone, of the same name as he (pam_umask(8))."""
    if status.st_gid in (0, os.getegid()):
        return True
    try:
        return pwd.getpwuid(status.st_uid).pw_name == grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return False


def refuse_dangers(home: str = ".") -> list[str]:
    """Raise Temporary for the first that must not be; what else there is to say, a line each."""
    lines = []
    for danger in dangers(home):
        if danger.fatal:
            raise Temporary("this home is not safe", detail=f"{danger.path}: {danger.text}")
        lines.append(f"{danger.path} {danger.text}")
    return lines
