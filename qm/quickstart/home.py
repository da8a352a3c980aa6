"""Make the home of a private mail system: directories, control files, services, mailboxes, aliases.

Everything here may be done again to a home that is there: what an administrator has changed stays.
As root the programs' roles are numbers of their own in control/roles; no account is made.
"""

import os
import pwd
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from qm import newu
from qm.disk import layout, maildir, passwd
from qm.errors import Temporary
from qm.unix import privs
from qm.unix.privs import Ids
from qm.wire.userquery import Login

# Debian's registry of uids has these for qmail (base-passwd's README), but for qmailt; 64010 is its group qmail, which
# shares the queue
_ROLES: Final = {"alias": 0, "qmaild": 1, "qmails": 2, "qmailr": 3, "qmailq": 5, "qmaill": 6, "qmailp": 7, "qmailt": 8}
_QUEUE_GROUP: Final = 0
_ALIAS_GROUP: Final = 4
_BASES: Final = (64010, *range(60600, 60700, 10))
# a range that neither Debian (policy 9.2.2) nor systemd (its UIDS-GIDS document) uses
_MAILBOX_IDS: Final = range(60700, 61184)
CERTIFICATE: Final = "control/servercert.pem"


class Ports(NamedTuple):
    """By the names of the services; 0: any."""

    smtp: int = 0
    pop3: int = 0
    submit: int = 0
    submits: int = 0
    pop3s: int = 0


def _taken() -> set[int]:
    accounts = pwd.getpwall()
    return {account.pw_uid for account in accounts} | {account.pw_gid for account in accounts}


def roles() -> str:
    """The lines of control/roles: numbers that no account has."""
    taken = _taken()
    base = next((base for base in _BASES if taken.isdisjoint(range(base, base + len(_ROLES) + 1))), None)
    if base is None:
        raise OSError(0, "no free numbers for the roles", "control/roles")
    groups = {**_ROLES, "qmailq": _QUEUE_GROUP, "qmails": _QUEUE_GROUP, "alias": _ALIAS_GROUP}
    lines = [f"{role}:{base + offset}:{base + groups[role]}\n" for role, offset in _ROLES.items()]
    return "".join(["# The programs' users: name:uid:gid.  No account has these numbers.\n", *lines])


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file whole, or not at all; into nothing that somebody has put there."""
    with suppress(FileNotFoundError):
        os.unlink(f"{path}.new")
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)
        file.write(text)
    os.rename(f"{path}.new", path)


def _write_new(path: str, text: str, mode: int = 0o644) -> None:
    if not os.path.lexists(path):
        write(path, text, mode)


def _copy_shipped(folder: str) -> None:
    """The defaults of the checkout, where the home has none."""
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            _write_new(os.path.join(os.path.basename(folder), name), file.read())


def make(root: str, home: str, domain: str, postmaster: str) -> None:
    """Make *home*, below which everything lies, from the checkout in *root*; it is the current directory afterwards.

    Mail for root, postmaster and mailer-daemon goes to mailbox *postmaster*, where nothing has been said about it yet.

    Raises OSError, Temporary.
    """
    os.makedirs(home, exist_ok=True)
    os.chdir(home)
    if privs.is_root():
        os.makedirs("control", 0o755, exist_ok=True)
        _write_new("control/roles", roles())
    layout.make()
    os.makedirs("home", 0o755, exist_ok=True)
    _write_new("control/me", f"{domain}\n")
    _write_new("control/locals", f"# Domains whose mail is delivered here.\n{domain}\n")
    _write_new("control/rcpthosts", f"# Domains that mail is taken for, from everywhere.\n{domain}\n")
    _write_new("control/logins", "# Who lets in: names of users/passwd, which can do SCRAM; no accounts.\npasswd\n")
    _write_new("alias/.qmail-root", f"# The administrator's mail.\n&{postmaster}\n")
    make_certificate(domain)
    for folder in ("control", "alias"):
        _copy_shipped(os.path.join(root, folder))
    write("rc", rc_script(root), 0o755)


def rc_script(root: str) -> str:
    program = shlex.quote(os.path.join(root, "bin", "qm-rc"))
    return (
        "#!/bin/sh\n"
        "# Starts and stops this mail system: rc start|stop|restart|reload|status|run\n"
        'QMHOME=$(dirname "$(readlink -f "$0")")\n'
        "export QMHOME\n"
        f'exec {program} "$@"\n'
    )


def make_certificate(domain: str) -> None:
    """One that nobody vouches for, unless there is one.  Raises Temporary."""
    if not os.path.lexists(CERTIFICATE):
        from qm.disk import selfsigned  # half of quickstart's time, and only once in a home's life

        selfsigned.make(CERTIFICATE, [domain, "localhost"])


def services(ports: Ports, domain: str, host: str = "127.0.0.1") -> str:
    """The services file; as root, smtpd has its role, and popup takes its own once it is connected."""
    smtpd = privs.role("qmaild")
    drop = f" -u {smtpd.uid} -g {smtpd.gid}" if privs.is_root() else ""
    smtp = f"tcpserver -H -R -l {domain} -b 128 -c 100{drop} {host}"
    pop3 = f"tcpserver -H -R -l {domain} -b 128 -c 40 {host}"
    popup = f"qm-popup {domain} checkpassword qm-pop3d Maildir"
    return (
        "# What rc start runs, a line each: NAME: COMMAND LINE.  Change it, then rc restart.\n"
        "start: qm-start ./Maildir/\n"
        "tls: qm-tlsd\n"
        f"smtp: {smtp} {ports.smtp} qm-smtpd\n"
        f"submit: SUBMISSION= FORCETLS= {smtp} {ports.submit} qm-smtpd\n"
        f"submits: SUBMISSION= {smtp} {ports.submits} qm-tls smtp qm-smtpd\n"
        f"pop3: {pop3} {ports.pop3} {popup}\n"
        f"pop3s: {pop3} {ports.pop3s} qm-tls pop3 {popup}\n"
    )


def _assignments() -> list[str]:
    """The lines of users/assign, without its last, the dot."""
    try:
        with open("users/assign", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    return [line for line in lines if line != "."]


def _mailbox_ids(lines: Sequence[str]) -> Ids:
    """Numbers for a new mailbox, that neither an account nor another mailbox has."""
    if not privs.is_root():
        return Ids(os.getuid(), os.getgid())
    taken = _taken() | {int(uid) for uid in re.findall(r"(?m)^[=+][^:]*:[^:]*:(\d+):", "\n".join(lines))}
    number = next((number for number in _MAILBOX_IDS if number not in taken), 0)
    if not number:
        raise OSError(0, "no free number for a mailbox", "users/assign")
    return Ids(number, number)


def _make_maildir(folder: str, ids: Ids) -> None:
    """home/NAME/Maildir for *ids*; while root works in it, it is root's."""
    os.makedirs(folder, 0o700)
    maildir.make(os.fsencode(f"{folder}/Maildir"))
    if privs.is_root():
        for path, _, _ in os.walk(folder, topdown=False):
            os.chown(path, *ids)


def add_mailbox(name: str, password: str) -> None:
    """Make mailbox *name*, or give the one that is there a new password.  Raises OSError, QmError."""
    folder = f"home/{name}"
    lines = _assignments()
    known = re.search(rf"(?m)^={re.escape(name)}:[^:]*:(\d+):(\d+):", "\n".join(lines))
    ids = Ids(int(known[1]), int(known[2])) if known else _mailbox_ids(lines)
    if not os.path.lexists(folder):
        _make_maildir(folder, ids)
    if not known:
        user = f"{name}:{ids.uid}:{ids.gid}:{folder}"
        lines += [f"={name}:{user}:::", f"+{name}-:{user}:-::"]
        write("users/assign", "\n".join([*lines, ".", ""]))
        if newu.main([b"qm-newu"], {b"QMHOME": os.getcwdb()}) != 0:
            raise Temporary("qm-newu failed")
    login = Login(name.encode(), ids.uid, ids.gid, folder.encode(), b"/bin/sh")
    passwd.put(name.encode(), password.encode(), login)
