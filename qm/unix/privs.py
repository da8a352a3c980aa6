"""The one module that changes identity: groups, gid, uid, then a check that it took and cannot be undone.

Roles (qmail.md 3.1) are names of qm's own users.  control/roles gives their numbers (``qmaild:60001:60000`` a line),
so that a private system needs no accounts; without that file the accounts of those names are asked.  A process that
is not root keeps its own identity in every role.
"""

import grp
import os
import pwd
from typing import Final, NamedTuple

from qm.errors import Temporary

ROLES: Final = ("alias", "qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails", "qmailt")


class Ids(NamedTuple):
    uid: int
    gid: int


def is_root() -> bool:
    return os.geteuid() == 0


def _numbers(path: str) -> dict[str, Ids]:
    try:
        with open(path, "rb") as file:
            lines = file.read(65536).splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Temporary("cannot read the roles", detail=f"{path}: {error.strerror}") from error
    found = {}
    for count, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            name, uid, gid = line.decode("ascii").strip().split(":")
            ids = Ids(int(uid), int(gid))
        except ValueError as error:
            raise Temporary("cannot read the roles", detail=f"{path}:{count}: not name:uid:gid") from error
        if ids.uid <= 0 or ids.gid <= 0:
            raise Temporary("cannot read the roles", detail=f"{path}:{count}: a role must not be root")
        found[name] = ids
    return found


def role(name: str, path: str = "control/roles") -> Ids:
    """The numbers of role *name*; raises Temporary if nothing tells them."""
    if name not in ROLES:
        raise ValueError(f"no role {name}")
    if not is_root():
        return Ids(os.getuid(), os.getgid())
    return _appointed(name, path)


def seen(name: str) -> int:
    """As whom role *name* of the mail system in this directory runs, for any user who asks; raises Temporary."""
    owner = os.stat(".").st_uid
    return owner or _appointed(name, "control/roles").uid


def _appointed(name: str, path: str) -> Ids:
    numbers = _numbers(path)
    if name in numbers:
        return numbers[name]
    try:
        account = pwd.getpwnam(name)
    except KeyError as error:
        raise Temporary("a role has no user", detail=f"{name} is neither in {path} nor an account") from error
    return Ids(account.pw_uid, account.pw_gid)


def least(path: str = "control/roles") -> Ids:
    """Who reads a stranger's bytes in the place of root: qmaild, or 65534 (nobody) where there is no such role."""
    try:
        return role("qmaild", path)
    except Temporary:
        return Ids(65534, 65534)


def queue_gid(path: str = "control/roles") -> int:
    """The group that shares the queue: qmailq's and qmails' own, nobody else's."""
    return role("qmailq", path).gid


def become(ids: Ids) -> None:
    """Be *ids* for good, with that one group; a process that is not root must be them already.

    Raises Temporary, and the process must then end, if the change did not take or could be undone.
    """
    if not is_root():
        if ids.uid != os.geteuid():
            raise Temporary("cannot change user", detail=f"only root can become uid {ids.uid}")
        return
    if ids.uid == 0:
        raise Temporary("refusing to run as root", detail="uid 0")
    try:
        os.setgroups([ids.gid])
        os.setresgid(ids.gid, ids.gid, ids.gid)
        os.setresuid(ids.uid, ids.uid, ids.uid)
    except OSError as error:
        raise Temporary("cannot change user", detail=f"uid {ids.uid}: {error.strerror}") from error
    if os.getresuid() != (ids.uid,) * 3 or os.getresgid() != (ids.gid,) * 3 or os.getgroups() != [ids.gid]:
        raise Temporary("cannot change user", detail=f"uid {ids.uid} did not take")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise Temporary("cannot change user", detail="root could be had back")


def join(gid: int) -> None:
    """Have *gid* as the one group, and stay the user that we are; raises Temporary."""
    try:
        if is_root():
            os.setgroups([gid])
        os.setresgid(gid, gid, gid)
    except OSError as error:
        raise Temporary("cannot change group", detail=f"gid {gid}: {error.strerror}") from error


def account(uid: int) -> str:
    """A name for *uid* in a message, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group(gid: int) -> str:
    """A name for group *gid* in a message, or its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def user_id(name: str) -> int:
    """The uid of a user's name or number; raises Temporary."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise Temporary("no such user", detail=name) from error


def group_id(name: str) -> int:
    """The gid of a group's name or number; raises Temporary."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise Temporary("no such group", detail=name) from error
