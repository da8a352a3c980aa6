"""What ps shows for this process: a program's own command line, or a worker's job, not the command line of its parent.

Every user of the machine can read it: no address, host or name of a stranger's is in it.
"""

import os
from collections.abc import Sequence

from qm.unix import forkhooks

with forkhooks.spared():
    import setproctitle


def show(argv: Sequence[bytes]) -> None:
    """Be *argv* to ps, its program without directory."""
    name, *rest = argv
    setproctitle.setproctitle(os.fsdecode(b" ".join([os.path.basename(name), *rest])))


def job(name: bytes, text: bytes) -> None:
    """Be a process of program *name* that does what *text* says."""
    setproctitle.setproctitle(os.fsdecode(name + b": " + text))
