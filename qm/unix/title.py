"""What ps shows for this process: after a fork without exec, not its parent's command line."""

import os
from collections.abc import Sequence

from qm.unix import forkhooks

with forkhooks.spared():
    import setproctitle


def show(argv: Sequence[bytes]) -> None:
    """Be *argv* to ps."""
    setproctitle.setproctitle(os.fsdecode(b" ".join(argv)))
