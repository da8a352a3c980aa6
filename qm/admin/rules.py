"""Rules for tcpserver as something that a plan adds: the text, and the database that is made of it."""

import io
from typing import NamedTuple

from qm import tcprules
from qm.admin.action import read
from qm.admin.findings import AddLines
from qm.disk import cdb


def compile_rules(path: str) -> None:
    """Make *path*.cdb; raises QmError, OSError."""
    cdb.write(f"{path}.cdb", tcprules.compile_rules(io.BytesIO((read(path) or "").encode())).items())


class AddRules(NamedTuple):
    """Put rules behind those of a file that has others, and compile it."""

    path: str
    rules: tuple[str, ...]

    def _lines(self) -> AddLines:
        return AddLines(self.path, (*self.rules, *(() if read(self.path) else (":allow",))))

    def __str__(self) -> str:
        return f"{self._lines()}; compile {self.path}.cdb"

    def is_done(self) -> bool:
        return self._lines().is_done()

    def do(self) -> None:
        self._lines().do()
        compile_rules(self.path)
