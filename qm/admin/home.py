"""Actions in the home that are more than writing a file."""

import os
import shutil
from typing import NamedTuple

from qm import tcprules
from qm.disk import cdb, layout, maildir, queue, survey
from qm.errors import OK, TEMPORARY, QmError, Temporary
from qm.unix import log, privs


class Directory(NamedTuple):
    """A directory of the home's table."""

    entry: layout.Place
    home: str

    def __str__(self) -> str:
        path = os.path.normpath(os.path.join(self.home, self.entry.path))
        return f"make directory {path}, owner {self.entry.owners[0]}, mode {self.entry.mode:04o}: {self.entry.text}"

    def is_done(self) -> bool:
        return survey.is_right(self.entry, self.home)

    def do(self) -> None:
        layout.make_folder(self.entry, self.home)


class QueueFolders(NamedTuple):
    """What the queue service would make at its first start, made as its user."""

    home: str

    def __str__(self) -> str:
        return f"make the directories of {self.home}/queue, owner qmailq"

    def is_done(self) -> bool:
        made = [entry for entry in layout.PLACES if entry.made is layout.Made.START]
        return all(survey.is_right(entry, self.home) for entry in made)

    def do(self) -> None:
        if os.fork() == 0:
            code = TEMPORARY
            try:
                os.chdir(self.home)
                privs.become(privs.role("qmailq"))
                queue.make()
                code = OK
            except (QmError, OSError) as error:
                log.fatal(b"qm", str(error))
            finally:
                os._exit(code)
        if os.wait()[1]:
            raise Temporary("cannot make the queue", detail=f"{self.home}/queue")


class CompileRules(NamedTuple):
    """tcp.smtp.cdb, from tcp.smtp, after every change."""

    text: str
    compiled: str

    def __str__(self) -> str:
        return f"compile {self.text} to {self.compiled}"

    def is_done(self) -> bool:
        try:
            return os.stat(self.compiled).st_mtime_ns >= os.stat(self.text).st_mtime_ns
        except FileNotFoundError:
            return False

    def do(self) -> None:
        with open(self.text, "rb") as file:
            items = tcprules.compile_rules(file)
        cdb.write(self.compiled, items.items(), temporary=f"{self.compiled}.tmp")


class Certificate(NamedTuple):
    """One that nobody but its key vouches for, where there is none."""

    path: str
    host: str

    def __str__(self) -> str:
        return f"make a self-signed certificate for {self.host}: {self.path}"

    def is_done(self) -> bool:
        return os.path.lexists(self.path)

    def do(self) -> None:
        from qm.disk import selfsigned  # its library takes a tenth of a second

        selfsigned.make(self.path, [self.host])


class AliasMaildir(NamedTuple):
    """The mailbox of aliases that name no other place.

    It is made where only root can write, since alias/ is its user's: no link of his leads root elsewhere.
    """

    home: str

    def _path(self) -> str:
        return os.path.join(self.home, "alias", "Maildir")

    def __str__(self) -> str:
        return f"make Maildir {self._path()}, owner alias"

    def is_done(self) -> bool:
        return os.path.lexists(self._path())

    def do(self) -> None:
        new = os.path.join(self.home, "run", "Maildir.new")
        if os.path.lexists(new):
            shutil.rmtree(new)
        maildir.make(os.fsencode(new))
        ids = privs.role("alias", os.path.join(self.home, "control", "roles"))
        for path, _, _ in os.walk(new, topdown=False):
            os.chown(path, *ids)
        os.rename(new, self._path())
