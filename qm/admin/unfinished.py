"""A mark in the home for as long as a command changes it: where one is found, that command was cut short.

It is written before the first change and removed when all is on the disk, so that `qm check-install` never takes half
an installation for a whole one.
"""

import os
from typing import Final

from qm.admin.action import Write, read

_NAME: Final = "unfinished"


def begin(home: str, command: str) -> None:
    """Say that *command* is at work, once there is a home.  Raises OSError, Temporary."""
    if os.path.isdir(home):
        mark = Write(os.path.join(home, _NAME), f"qm {command}\n", keep=False)
        if not mark.is_done():
            mark.do()


def end(home: str) -> None:
    """All is done.  Raises OSError."""
    path = os.path.join(home, _NAME)
    if os.path.lexists(path):
        os.sync()
        os.unlink(path)


def found(home: str) -> str:
    """The command that was cut short; empty if none was."""
    return (read(os.path.join(home, _NAME)) or "").strip()
