"""The command line of qm: a group of subcommands, each in a module of its own."""

import os
from collections.abc import Sequence
from typing import Final

import click

from qm import __version__
from qm.admin import cert, check_install, importing, install, logs, replace_sendmail, tlsreport, uninstall
from qm.errors import OK, TEMPORARY

SUBCOMMANDS: Final = (install, check_install, cert, replace_sendmail, importing, logs, tlsreport, uninstall)


@click.group("qm", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def qm() -> None:
    """Install the mail suite, and look after it.  See also qm(8)."""


for _module in SUBCOMMANDS:
    qm.add_command(_module.command)


def run(argv: Sequence[bytes]) -> int:
    """The exit code of `qm argv...`; raises OSError, QmError."""
    try:
        code = qm.main([os.fsdecode(word) for word in argv], prog_name="qm", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return TEMPORARY
    return code if isinstance(code, int) else OK
