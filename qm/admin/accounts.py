"""The roles' groups and users (qmail.md 3.1), made by the system's own tools.

qmailq and qmails share a group, which the queue belongs to; every other role has one of its own, so that no file of one
is open to another.  (qmail puts the others into nofiles, and qmailr into the queue's group.)
"""

import grp
import os
import pwd
from collections.abc import Iterator
from typing import Final, NamedTuple

from qm.admin.action import Action, Command, Write, read
from qm.errors import Permanent, Temporary
from qm.unix import privs

PREFIX: Final = "qmail"
_PATH: Final = "control/roles"
_TEXTS: Final = {
    "alias": "qm aliases",
    "qmaild": "qm network daemons",
    "qmaill": "qm logger",
    "qmailp": "qm POP3 before login",
    "qmailq": "qm queue",
    "qmailr": "qm remote deliveries",
    "qmails": "qm send",
    "qmailt": "qm TLS",
}
_NO_SHELL: Final = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false")


class Names(NamedTuple):
    """What the roles are called on this machine."""

    prefix: str

    def user(self, role: str) -> str:
        if self.prefix == PREFIX:
            return role
        return self.prefix + role.removeprefix(PREFIX)

    def group(self, role: str) -> str:
        return self.prefix if role in ("qmailq", "qmails") else self.user(role)


class Roles(NamedTuple):
    """Write control/roles, which says the numbers of roles that do not have the names of their accounts."""

    names: Names
    home: str

    def _path(self) -> str:
        return os.path.join(self.home, _PATH)

    def __str__(self) -> str:
        return f"write {self._path()}: the roles are users {self.names.prefix}..."

    def is_done(self) -> bool:
        return os.path.lexists(self._path())

    def do(self) -> None:
        lines = ["# The programs' users: name:uid:gid.\n"]
        for role in privs.ROLES:
            account = pwd.getpwnam(self.names.user(role))
            lines.append(f"{role}:{account.pw_uid}:{account.pw_gid}\n")
        Write(self._path(), "".join(lines)).do()


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def refuse_strangers(names: Names) -> None:
    """Raise Permanent if a name that we would use is somebody else's already: another qmail's, say."""
    users = []
    for role in privs.ROLES:
        name, group = names.user(role), names.group(role)
        found = _account(name)
        if found is None:
            continue
        own = _group(group)
        if found.pw_uid == 0 or own is None or own.gr_gid != found.pw_gid or own.gr_gid == 0:
            why = f"its uid is {found.pw_uid}, its group {privs.group(found.pw_gid)}, not {group}"
            raise Permanent(f"user {name} is not ours", detail=f"{why}; choose other names with --prefix-users")
        users.append(found.pw_uid)
    if len(set(users)) < len(users):
        raise Permanent("two of our users have one uid", detail="choose other names with --prefix-users")


def _add_group(name: str) -> Command:
    return Command(("groupadd", "--system", name), lambda: _group(name) is not None)


def _add_user(role: str, names: Names, home: str) -> Command:
    name = names.user(role)
    folder = os.path.join(home, "alias") if role == "alias" else home
    words = (
        *("useradd", "--system", "--no-create-home", "--home-dir", folder, "--shell", _no_shell()),
        *("--gid", names.group(role), "--comment", _TEXTS[role], name),
    )
    return Command(words, lambda: _account(name) is not None)


def _no_shell() -> str:
    return next((path for path in _NO_SHELL if os.path.exists(path)), _NO_SHELL[-1])


def plan(names: Names, home: str) -> Iterator[Action]:
    """Groups and users that are missing; none where control/roles has said who the roles are."""
    if names.prefix == PREFIX and read(os.path.join(home, _PATH)) is not None:
        return
    for group in dict.fromkeys(names.group(role) for role in privs.ROLES):
        yield _add_group(group)
    for role in privs.ROLES:
        yield _add_user(role, names, home)


def plan_roles(names: Names, home: str) -> Iterator[Action]:
    """After the directory control/ is there."""
    if names.prefix != PREFIX:
        yield Roles(names, home)


def removal(home: str) -> list[str]:
    """The command lines that remove them, for an administrator who wants nothing kept."""
    lines, groups = [], []
    for role in privs.ROLES:
        try:
            ids = privs.role(role, os.path.join(home, _PATH))
            lines.append(f"userdel {pwd.getpwuid(ids.uid).pw_name}")
            groups.append(grp.getgrgid(ids.gid).gr_name)
        except (Temporary, KeyError):
            continue  # a role that has no account
    shared = sorted({name for name in groups if f"userdel {name}" not in lines})  # userdel removes a user's own
    return lines + [f"groupdel {name}" for name in shared]
