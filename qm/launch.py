"""How a command of bin/ becomes a program of ours.

Kept lean: users wait for it.  The Python that runs it may be the system's; our dependencies are then taken from the
checkout's .venv if it has the same version.
"""

import os
import sys
from importlib import import_module

from qm.programs import PROGRAMS


def _dependencies(root: str) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = os.path.join(root, ".venv", "lib", version, "site-packages")
    if packages not in sys.path and os.path.isdir(packages):
        sys.path.append(packages)


def launch(root: str, argv: list[str]) -> None:
    """Run the program that argv[0] names, and exit with its code."""
    if sys.version_info < (3, 11):
        sys.exit("qm needs Python 3.11 or newer")
    name = os.path.basename(argv[0])
    if name not in PROGRAMS:
        sys.exit(f"qm has no program {name}")
    _dependencies(root)
    module = import_module(PROGRAMS[name])
    code = module.main([os.fsencode(arg) for arg in argv], dict(os.environb))
    sys.stdout.flush()
    os._exit(code)  # nothing of ours waits for the interpreter's tidying up
