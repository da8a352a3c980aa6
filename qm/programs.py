"""Which command is which module: the one table of our programs.

A module is imported only when its program is asked for, so that a program that users start stays lean.
"""

from typing import Final

PROGRAMS: Final[dict[str, str]] = {
    "checkpassword": "qm.checkpassword",
    "maildirmake": "qm.maildirmake",
    "qm-local": "qm.local.main",
    "qm-log": "qm.logger",
    "qm-lspawn": "qm.lspawn",
    "qm-newu": "qm.newu",
    "qm-passwd": "qm.passwd",
    "qm-pop3d": "qm.pop3d.main",
    "qm-popup": "qm.popup.main",
    "qm-queue": "qm.queue.main",
    "qm-queued": "qm.queue.service",
    "qm-rc": "qm.supervise.rc",
    "qm-remote": "qm.remote.main",
    "qm-rspawn": "qm.rspawn.main",
    "qm-send": "qm.send.main",
    "qm-showctl": "qm.showctl",
    "qm-smtpd": "qm.smtpd.main",
    "qm-start": "qm.start",
    "qm-supervise": "qm.supervise.main",
    "qm-userd": "qm.userd.main",
    "tcprules": "qm.tcprules",
    "tcprulescheck": "qm.tcprulescheck",
    "tcpserver": "qm.tcpserver.main",
}
