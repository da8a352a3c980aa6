"""The passwords of users who need no account: users/passwd, the text, and users/passwd.cdb, which userd reads.

Whoever edits holds users/lock, replaces the text and then makes the cdb of it; a crash between the two leaves an older
cdb, and the next edit, or ``qm-passwd --compile``, makes it again.  Both files are their owner's alone (0600).
"""

import os
from typing import Final

from qm.disk import atomic, cdb, hashes, lock
from qm.errors import Permanent, Temporary
from qm.wire import passwdfile
from qm.wire.assign import BadLine
from qm.wire.passwdfile import Entry
from qm.wire.record import Malformed
from qm.wire.userquery import Login

DIRECTORY: Final = "users"
SIZE_MAX: Final = 64 * 1024 * 1024  # bytes of users/passwd
SECRET_MAX: Final = 511  # bytes of a password; libcrypt takes no more
_MODE: Final = 0o600


class Passwords:
    """The entries of passwd.cdb, which may change at any time."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._cdb = cdb.Cdb(f"{directory}/passwd.cdb")
        self._home = os.getcwdb()

    def lookup(self, name: bytes) -> Entry | None:
        """The entry of *name*, its home absolute; raises BadCdb."""
        self._cdb.refresh()
        key = passwdfile.canonical(name)
        value = self._cdb.lookup(key) if key is not None else None
        if key is None or value is None:
            return None
        try:
            entry = passwdfile.decode(key, value)
        except Malformed as error:
            why = f"{self._cdb.path}: a value has {error}; run qm-passwd --compile"
            raise cdb.BadCdb("cannot read a database", detail=why) from error
        return entry._replace(login=entry.login._replace(home=os.path.join(self._home, entry.login.home)))


class _File:
    """users/passwd, read whole."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/passwd"
        try:
            with open(self.path, "rb") as file:
                text = file.read(SIZE_MAX + 1)
        except FileNotFoundError:
            text = b""
        except OSError as error:
            raise Temporary("cannot read the passwords", detail=f"{self.path}: {error.strerror}") from error
        if len(text) > SIZE_MAX:
            raise Temporary("cannot read the passwords", detail=f"{self.path}: larger than {SIZE_MAX} bytes")
        try:
            self.entries = passwdfile.parse(text)
            for count, entry in self.entries.values():
                if not hashes.storable(entry.hash):
                    raise BadLine(count, "a hash of no kind that we know")
        except BadLine as error:
            raise Temporary("the passwords are broken", detail=f"{self.path}:{error}") from error
        self.lines = text.removesuffix(b"\n").split(b"\n") if text else []

    def write(self) -> None:
        text = b"".join(content + b"\n" for content in self.lines)
        atomic.replace(self.path, lambda file: file.write(text), mode=_MODE)

    def compile(self) -> None:
        items = ((name, passwdfile.encode(entry)) for name, (_, entry) in self.entries.items())
        cdb.write(self.path + ".cdb", items, mode=_MODE)


def _canonical(name: bytes) -> bytes:
    key = passwdfile.canonical(name)
    if key is None:
        raise Permanent("not a name", detail="it has blanks, colons, backslashes or control bytes, or over 255 bytes")
    return key


def login_of(name: bytes, directory: str = DIRECTORY) -> Login | None:
    """Whom *name* logs in as, as it stands in users/passwd; raises Temporary if that is broken."""
    found = _File(directory).entries.get(_canonical(name))
    return found[1].login if found else None


def put(
    name: bytes, secret: bytes, login: Login | None = None, *, apop: bool = False, directory: str = DIRECTORY
) -> None:
    """Give *name* the password *secret*, and *login* unless that is to stay as it is.

    With *apop* the password itself is stored.  When this returns, userd knows it, and no crash undoes it.
    Raises Permanent for what can be no name, password or login, Temporary for files that cannot be read or written.
    """
    key = _canonical(name)
    if not 0 < len(secret) <= SECRET_MAX or any(byte in secret for byte in b"\0\r\n"):
        raise Permanent("not a password", detail=f"1 to {SECRET_MAX} bytes, no NUL, CR or LF")
    stored = passwdfile.PLAIN + secret if apop else hashes.make(secret)
    with lock.held(f"{directory}/lock"):
        file = _File(directory)
        found = file.entries.get(key)
        login = login or (found[1].login if found else None)
        if login is None:
            raise Permanent("a new user needs a uid, a gid and a home", detail=os.fsdecode(key))
        entry = _checked(Entry(key, stored, login))
        if found:
            file.lines[found[0] - 1] = passwdfile.line(entry)
        else:
            file.lines.append(passwdfile.line(entry))
        file.entries[key] = (found[0] if found else len(file.lines)), entry
        file.write()
        file.compile()


def _checked(entry: Entry) -> Entry:
    """*entry* if it can be read back; raises Permanent."""
    try:
        if passwdfile.decode(entry.name, passwdfile.encode(entry)) == entry:
            return entry
        why = "cannot be stored"
    except Malformed as error:
        why = str(error)
    raise Permanent("cannot store this user", detail=why)


def delete(name: bytes, directory: str = DIRECTORY) -> None:
    """Forget *name*; raises Permanent if there is none of that name, Temporary for files."""
    key = _canonical(name)
    with lock.held(f"{directory}/lock"):
        file = _File(directory)
        if key not in file.entries:
            raise Permanent("no such user", detail=f"{os.fsdecode(key)} is not in {file.path}")
        count, _ = file.entries.pop(key)
        del file.lines[count - 1]
        file.write()
        file.compile()


def compile_text(directory: str = DIRECTORY) -> None:
    """Make passwd.cdb of users/passwd after somebody edited it by hand; raises Temporary, and the old cdb stays."""
    with lock.held(f"{directory}/lock"):
        _File(directory).compile()
