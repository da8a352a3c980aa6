"""Make qm-control.5 of the table of control files in qm/disk/control.py; a house test compares the two.

Usage: .venv/bin/python docs/man/make.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
from qm.disk.control import ME, TABLE, Control, Kind  # noqa: E402
from qm.programs import PROGRAMS  # noqa: E402

PAGE = Path(__file__).with_name("qm-control.5")
LIMIT = 78  # columns of a line

HEAD = r""".Dd November 24, 2026
.Dt QM-CONTROL 5
.Os
.\" Made by make.py of qm/disk/control.py.
.Sh NAME
.Nm qm-control
.Nd the control files
.Sh DESCRIPTION
The files in the directory
.Pa control
say how the programs of a mail system behave.
Each has a default, which holds if it is not there; only
.Pa control/me
must be.
.Xr qm-showctl 8
prints what holds here.
.Ss Formats
.Bl -tag -width "key:value lines"
.It one line
The first line counts, without blanks at its end.
What follows is for people.
.It a number
The same, in decimal digits.
.It a list
Each line is an entry, without blanks at its end.
Empty lines and lines that begin with # are skipped.
.It key:value lines
The same; of a key that comes again the last line counts.
Capital letters of a key count as small ones, and the colons of an address in
brackets are its own.
.El
.Pp
A file that is there but has no entry is an empty list: an empty
.Pa control/locals
means that nothing is local.
.Pp
A broken file (not a number, a line without a colon, a NUL byte, over 16 MiB,
writable by everybody) is named in the log, with its line.
A program that starts with one does not serve; one that runs keeps the last
good value.
.Ss When a change counts
qm-smtpd and qm-popup: at the next connection.
qm-userd: within a second.
qm-remote: at the next delivery.
qm-inject, and whatever else is run once: at the next run.
qm-send, qm-queued, qm-log, and what qm-rspawn itself reads: at SIGHUP, as
.Ql rc reload
of
.Xr qm-rc 8
sends it.
.Pa control/roles :
at a start.
.Sh FILES
.Bl -tag -width Ds
"""

TAIL = """.El
.Sh SEE ALSO
.Xr qm 7 ,
.Xr qm-rc 8 ,
.Xr qm-showctl 8
"""


def _default(control: Control) -> str:
    if control.default is None:
        return "nothing"
    if isinstance(control.default, int):
        return f"{control.default} {control.unit}".strip()
    return "what control/me says" if control.default == ME else control.default.decode("ascii")


def _folded(sentence: str) -> str:
    """*sentence* in lines of at most LIMIT columns, none of which roff takes for a request."""
    lines = [""]
    for word in sentence.replace("\\", "\\e").split():
        if lines[-1] and len(lines[-1]) + len(word) >= LIMIT:
            lines.append("")
        if not lines[-1] and word[0] in ".'":
            word = f"\\&{word}"
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return "\n".join([*lines, ""])


def _entry(control: Control) -> str:
    readers = ", ".join(f"qm-{name}" if f"qm-{name}" in PROGRAMS else name for name in control.readers.split(", "))
    what = {Kind.LINE: "One line", Kind.INT: "A number", Kind.LIST: "A list", Kind.TABLE: "key:value lines"}
    return (
        f".It Pa {control.name}\n"
        + _folded(control.text)
        + _folded(f"{what[control.kind]}; default: {_default(control)}.")
        + _folded(f"Read by {readers}.")
    )


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_entry(TABLE[name]) for name in sorted(TABLE)) + TAIL


if __name__ == "__main__":
    PAGE.write_text(page())
