"""passwd: give a mail user a password, in users/passwd and users/passwd.cdb.

Usage:   qm-passwd [--apop | --app LABEL | --certificate] [--stdin] [--home DIR] [--uid N] [--gid N] NAME
         qm-passwd --list NAME
         qm-passwd --revoke LABEL NAME
         qm-passwd --delete NAME
         qm-passwd --compile
Reads:   the terminal, or fd 0 with --stdin (one line): never an argument, which ps would show; users/passwd, users/cdb,
         users/salt, control/{me,envnoathost,locals,percenthack,roles,virtualdomains}
Writes:  users/passwd, users/passwd.cdb, users/salt (once); fd 1 (a new app password; the list); fd 2 (what is wrong)
As:      the owner of users/
Exits:   0 done, and userd knows it; 100 usage, no such user; 111 trouble
See:     qm-passwd(8); qm.wire.passwdfile for the file's format

A new user's uid, gid and home are those of the mailbox that mail for NAME goes to, unless the options tell them; a home
that is not absolute lies below qm's.  --apop stores the password itself, which APOP and CRAM-MD5 need, and which
whoever reads users/passwd can use.  --app makes one more password, for one program or device, and shows it once.
"""

import getopt
import getpass
import os
import warnings
from typing import Final

from qm import errors
from qm.disk import passwd
from qm.disk.control import Controls
from qm.disk.users import Directory
from qm.errors import Permanent
from qm.unix import privs
from qm.unix.program import Argv, Env, Usage, program
from qm.wire import route
from qm.wire.assign import ID_MAX
from qm.wire.userquery import Login

USAGE: Final = (
    "usage: qm-passwd [--apop | --app LABEL | --certificate] [--stdin] [--home DIR] [--uid N] [--gid N] NAME"
    " | --list NAME | --revoke LABEL NAME | --delete NAME | --compile"
)
SHELL: Final = b"/bin/sh"  # SHELL of a user without an account
_FLAGS: Final = ("apop", "certificate", "compile", "delete", "list", "stdin")
_VALUES: Final = ("app=", "gid=", "home=", "revoke=", "uid=")
_ALONE: Final = ("compile", "delete", "list", "revoke")
_NO_SECRET: Final = ("app", "certificate")  # none is read

Options = dict[str, str]


def _parse(argv: Argv) -> tuple[Options, list[bytes]]:
    try:
        options, names = getopt.getopt([os.fsdecode(arg) for arg in argv[1:]], "", [*_FLAGS, *_VALUES])
    except getopt.GetoptError as error:
        raise Usage(USAGE, detail=error.msg) from error
    given = {name.removeprefix("--"): value for name, value in options}
    secrets = [name for name in (*_NO_SECRET, "apop") if name in given]
    if len(names) != ("compile" not in given) or (given.keys() & set(_ALONE) and len(given) > 1) or len(secrets) > 1:
        raise Usage(USAGE)
    if "stdin" in given and given.keys() & set(_NO_SECRET):
        raise Usage(USAGE)
    return given, [os.fsencode(name) for name in names]


def _secret(from_stdin: bool) -> bytes:
    """The password, typed twice or read once."""
    if from_stdin:
        with os.fdopen(0, "rb", closefd=False) as file:
            return file.readline(passwd.SECRET_MAX + 3).removesuffix(b"\n").removesuffix(b"\r")
    warnings.simplefilter("error", getpass.GetPassWarning)  # it would show what is typed
    try:
        typed = getpass.getpass("New password: ")
        if typed != getpass.getpass("Again: "):
            raise Permanent("the passwords differ; nothing is changed")
    except (getpass.GetPassWarning, EOFError, OSError) as error:
        raise Permanent("there is no terminal to ask for the password", detail="use --stdin") from error
    return os.fsencode(typed)


def _number(options: Options, name: str) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= ID_MAX):
        raise Usage(USAGE, detail=f"--{name} is a number from 1 to {ID_MAX}")
    return int(text)


def _mailbox(name: bytes) -> Login | None:
    """Whom mail for *name* belongs to, if it is a user's main mailbox."""
    where = route.route(route.rules(Controls(route.CONTROLS)), name)
    if not isinstance(where, route.Local):
        return None
    user = Directory().find(where.address.rpartition(b"@")[0])
    return None if user.dash else Login(user.user, user.uid, user.gid, user.home, SHELL)


def _login(options: Options, name: bytes) -> Login | None:
    """Whom *name* shall log in as; None: as before."""
    uid, gid, home = _number(options, "uid"), _number(options, "gid"), options.get("home")
    if uid is None and gid is None and not home and passwd.login_of(name):
        return None
    if home and not privs.is_root():  # then there is one uid only
        uid, gid = uid or os.getuid(), gid or os.getgid()
    if home and uid and gid:
        return Login(name, uid, gid, os.fsencode(home), SHELL)
    login = passwd.login_of(name) or _mailbox(name)
    if login is None:
        raise Permanent("a new user who has no mailbox needs --home, --uid and --gid", detail=os.fsdecode(name))
    home = home or os.fsdecode(login.home)
    return login._replace(uid=uid or login.uid, gid=gid or login.gid, home=os.fsencode(home))


def _list(name: bytes) -> None:
    """Say on descriptor 1 what *name* has; no secret."""
    entry = passwd.entry_of(name)
    if entry is None:
        raise Permanent("no such user", detail=os.fsdecode(name))
    secrets = entry.secrets
    kind = secrets.hash[1:].partition(b"}" if secrets.plain else b"$")[0].decode("ascii", "replace")
    lines = [f"password {kind}{', SCRAM-SHA-256' if secrets.scram else ''}"] if secrets.hash else []
    lines += [f"app {os.fsdecode(label)}" for label, _ in secrets.apps]
    lines += ["certificate"] if secrets.external else []
    _say("".join(f"{line}\n" for line in lines).encode())


def _say(text: bytes) -> None:
    os.write(1, text)


def _give(options: Options, name: bytes) -> None:
    """A password, an app password, or leave to use a certificate."""
    login = _login(options, name)
    if "app" in options:
        _say(passwd.put_app(name, os.fsencode(options["app"]), login) + b"\n")
    elif "certificate" in options:
        passwd.allow_certificate(name, login)
    else:
        passwd.put(name, _secret("stdin" in options), login, apop="apop" in options)


@program()
def main(argv: Argv, env: Env) -> int:
    options, names = _parse(argv)
    os.umask(0o077)
    if "compile" in options:
        passwd.compile_text()
    elif "delete" in options:
        passwd.delete(names[0])
    elif "list" in options:
        _list(names[0])
    elif "revoke" in options:
        passwd.revoke(names[0], os.fsencode(options["revoke"]))
    else:
        _give(options, names[0])
    return errors.OK
