"""users/passwd, the text, as qm-passwd and the administrator edit it, and users/salt.

users/salt is a random key.  It makes the salt of each name, with and without an entry, so that a salt tells nothing.
The cdb's key "" says which mechanisms some entry, and which every entry can serve.
"""

import os
from collections.abc import Iterable
from typing import Final

from qm.disk import atomic, cdb, hashes, lock
from qm.errors import Temporary
from qm.wire import passwdfile, storedsecret
from qm.wire.assign import BadLine
from qm.wire.passwdfile import Entry

SIZE_MAX: Final = 64 * 1024 * 1024  # bytes of users/passwd
_MODE: Final = 0o600
_SALT_KEY_BYTES: Final = 32


def served(entries: Iterable[Entry]) -> bytes:
    """The value of key "": the mechanisms that some entry, and those that every entry with a password can serve."""
    found = [storedsecret.mechanisms(entry.secrets) for entry in entries]
    some: frozenset[bytes] = frozenset().union(*found)
    every = some.intersection(*(one for one in found if b"PLAIN" in one))
    return b"\0".join(b" ".join(sorted(names)) for names in (some, every))


class File:
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
                if entry.secrets.hash and not hashes.storable(entry.secrets.hash):
                    raise BadLine(count, "a hash of no kind that we know")
        except BadLine as error:
            raise Temporary("the passwords are broken", detail=f"{self.path}:{error}") from error
        self.lines = text.removesuffix(b"\n").split(b"\n") if text else []

    def set(self, entry: Entry) -> None:
        """Put *entry* in the place of the one of its name, or at the end."""
        found = self.entries.get(entry.name)
        if found:
            self.lines[found[0] - 1] = passwdfile.line(entry)
        else:
            self.lines.append(passwdfile.line(entry))
        self.entries[entry.name] = (found[0] if found else len(self.lines)), entry

    def write(self) -> None:
        text = b"".join(content + b"\n" for content in self.lines)
        atomic.replace(self.path, lambda file: file.write(text), mode=_MODE)

    def compile(self) -> None:
        entries = [entry for _, entry in self.entries.values()]
        items = [(b"", served(entries)), *((entry.name, passwdfile.encode(entry)) for entry in entries)]
        cdb.write(self.path + ".cdb", items, mode=_MODE)


def salt_key(directory: str) -> bytes:
    """The key in users/salt, which is made if it is missing; raises Temporary."""
    with lock.held(f"{directory}/lock"):
        return read_salt_key(directory)


def read_salt_key(directory: str) -> bytes:
    """As `salt_key`, for who holds users/lock."""
    path = f"{directory}/salt"
    try:
        with open(path, "rb") as file:
            key = file.read(_SALT_KEY_BYTES + 1)
    except FileNotFoundError:
        key = os.urandom(_SALT_KEY_BYTES)
        atomic.replace(path, lambda file: file.write(key), mode=_MODE)
    except OSError as error:
        raise Temporary("cannot read a key", detail=f"{path}: {error.strerror}") from error
    if len(key) != _SALT_KEY_BYTES:
        raise Temporary("cannot read a key", detail=f"{path}: not {_SALT_KEY_BYTES} bytes; remove it")
    return key
