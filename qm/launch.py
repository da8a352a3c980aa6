"""How a command of bin/ becomes a program of ours.

Kept lean: users wait for it.  The launchers run Debian's /usr/bin/python3, which every user can read, isolated (-I) and
without the site module (-S, 4 ms).  Our dependencies come from the checkout's .venv; where that is of another Python,
its interpreter takes over.
"""

import gc
import os
import sys
from importlib import import_module
from types import ModuleType

TEMPORARY = 111  # as errors.TEMPORARY; Python's own exit 1 would read as permanent (qmail.md section 28)


def _fail(name: str, text: str) -> None:
    sys.stderr.write(f"{name}: fatal: {text}\n")
    sys.stderr.flush()
    os._exit(TEMPORARY)


def _dependencies(root: str, argv: list[str]) -> None:
    """Make the packages of .venv importable; becomes its interpreter if it has none for this one."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = os.path.join(root, ".venv", "lib", version, "site-packages")
    if os.path.isdir(packages):
        sys.path.append(packages)
        return
    python = os.path.join(root, ".venv", "bin", "python")
    if os.access(python, os.X_OK) and os.path.realpath(python) != os.path.realpath(sys.executable):
        os.execv(python, [python, "-IS", *argv])


def _belong(root: str) -> None:
    """The programs of an installed home are that home's, unless QMHOME says otherwise."""
    home, name = os.path.split(root)
    if name == "lib" and os.path.isdir(os.path.join(home, "control")):
        os.environb.setdefault(b"QMHOME", os.fsencode(home))


def _module(name: str, argv: list[str]) -> ModuleType:
    """The program's module; one that stays has its title from here on."""
    from qm.programs import PROGRAMS, STAYING  # not above: a Python that is too old shall get as far as saying so

    if name not in PROGRAMS:
        _fail(name, "not a program of qm")
    try:
        if name in STAYING:
            from qm.unix import title

            title.show([os.fsencode(arg) for arg in argv])
        return import_module(PROGRAMS[name])
    except ImportError as error:
        _fail(name, f"{error}; bin/quickstart installs what is missing")
        raise


def launch(root: str, argv: list[str]) -> None:
    """Run the program that argv[0] is named for, and exit with its code."""
    _dependencies(root, argv)
    _belong(root)
    name = os.path.basename(argv[0])
    if sys.version_info < (3, 11):
        _fail(name, "needs Python 3.11 or newer; bin/quickstart makes .venv with one")
    code = TEMPORARY
    gc.disable()  # modules are no garbage: to look for some among them costs 5 % of the start
    try:
        module = _module(name, argv)
        gc.freeze()
        gc.enable()
        code = module.main([os.fsencode(arg) for arg in argv], dict(os.environb))
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # who reads us has had enough
    finally:
        os._exit(code)  # nothing of ours waits for the interpreter's tidying up
