"""What the administrator sees.  Nothing from the disk is taken for markup, no line has a control byte or is cut."""

import os

from rich.console import Console
from rich.text import Text

from qm.unix import log


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        """Who reads us has had enough; what we do is done to its end nevertheless."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def printable(text: str) -> str:
    """One line: the names of files may come from somebody less trusted than who reads this."""
    return log.clean(os.fsencode(text)).decode("ascii")


def show(text: str, style: str = "") -> None:
    """A line, or several, on descriptor 1; *style* counts on a terminal."""
    screen = _Screen(highlight=False, markup=False, emoji=False)
    for line in text.split("\n"):
        screen.print(Text(printable(line), style), soft_wrap=True)
