"""admin: install the suite and look after it, the command qm.

Usage:   qm install|check-install|cert|replace-sendmail|import|log|tls-report|uninstall [option ...]
Reads:   the home, its log, the checkout that it is run from; with import another system, its control/virtualdomains
         among it; with cert control/{acme,tlsroots}, certificates and keys
Env:     QMHOME
Writes:  with install, import and uninstall, everything that their plans show; with cert control/acme, certificates and
         keys, run/acme; fd 1
As:      root; with --dry-run and to check, whoever may look
Exits:   0 done, or all is as it should be; 1 check-install: something differs, import: something stays
         behind, log and tls-report: nothing is known, cert show: one is no good or ends soon; 2 usage; 100 refused; 111
         trouble
See:     qm(8), docs/INTERNALS.md section 1.11

In a fresh checkout it first makes .venv, as bin/quickstart does.
"""

import os
import sys
from typing import NoReturn

from qm.errors import Temporary
from qm.unix import chain
from qm.unix.program import Argv, Env, program


def _prepare_and_run_again(argv: Argv) -> NoReturn:
    """Only an administrator's own command may install something."""
    from qm.quickstart import environment

    root = os.path.dirname(chain.BIN)
    if os.path.basename(root) == "lib":
        raise Temporary("the programs are damaged", detail=f"run bin/qm install of a checkout again, over {root}")
    try:
        python = environment.prepare(root, ())
    except environment.CannotPrepare as error:
        raise Temporary("cannot make .venv", detail=str(error)) from error
    if sys.executable == python:
        raise Temporary("the programs are damaged", detail=f"{root}/.venv does not have what setup.cfg asks for")
    path = os.fsencode(os.path.join(chain.BIN, "qm"))
    os.execv(python, [os.fsencode(python), b"-IS", path, *argv[1:]])


@program(at_home=False)
def main(argv: Argv, env: Env) -> int:
    try:
        # not above: qm-supervise imports every program, and the libraries of this one are big
        from qm.admin import command
    except ImportError:
        _prepare_and_run_again(argv)
    try:
        return command.run(argv[1:])
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Temporary("it did not work", detail=f"{where}{error.strerror}") from error
