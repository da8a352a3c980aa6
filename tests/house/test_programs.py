"""What people call by name: it is a program of ours, or QUIRKS.md says what does its work."""

import re
from typing import Final

from qm.programs import PROGRAMS
from tests.harness.suite import ROOT

# qmail 1.03 and notqmail 1.09, with what builds and starts them
_QMAIL: Final = """
    bouncesaying condredirect config config-fast datemail dnsfq dnsip dnsptr elq except forward hostname idedit install
    install-big instcheck instchown instpackage ipmeprint maildir2mbox maildirmake maildirwatch mailq mailsubj
    newaliases pinq predate preline qail qbiff qmail-clean qmail-getpw qmail-inject qmail-local qmail-lspawn
    qmail-newmrh qmail-newu qmail-pop3d qmail-popup qmail-pw2u qmail-qmqpc qmail-qmqpd qmail-qmtpd qmail-qread
    qmail-qstat qmail-queue qmail-remote qmail-rspawn qmail-send qmail-showctl qmail-smtpd qmail-start qmail-tcpok
    qmail-tcpto qmail-upq qreceipt qsmhook sendmail splogger tcp-env home home+df proc proc+df binm1 binm2 binm3
"""
_UCSPI: Final = """
    addcr argv0 date@ delcr finger@ fixcrio http@ mconnect rblsmtpd recordio tcpcat tcpclient tcprules tcprulescheck
    tcpserver who@
"""
_COMPANIONS: Final = """
    checkpassword dot-forward ezmlm fastforward newinclude printforward printmaillist setforward setmaillist
    maildirqmtp maildirserial maildirsmtp serialqmtp serialsmtp
    envdir envuidgid multilog setlock setuidgid softlimit supervise svc svok svscan svstat tai64nlocal
    822date 822field 822header 822print 822received iftocc new-inject ofmipd ofmipname
"""
# sagredo-dev/qmail
_PATCHED: Final = """
    config-all convert-multilog dkim dknewkey helodnscheck ipmetest qmHandle qmail-dkim qmail-newmvrt qmail-qfilter
    qmail-todo qmailctl queue_repair rcptcheck-overlimit spawn-filter spfquery srsfilter sslserver surblfilter
    surblqueue svtools testqmail-dks update_tmprsadh vchkpw
"""
_NAMES: Final = {*_QMAIL.split(), *_UCSPI.split(), *_COMPANIONS.split(), *_PATCHED.split()}


def _absent() -> list[str]:
    """The programs that QUIRKS.md says are not here."""
    text = (ROOT / "docs" / "QUIRKS.md").read_text()
    section = text.partition("\n## Programs that are not here\n")[2].partition("\n## ")[0]
    return [name for row in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)[1:] for name in row.split(", ")]


def test_every_program_has_its_place() -> None:
    """A name is that of a program of ours, or in the list of QUIRKS.md, once, and never both."""
    ours = {name for name in _NAMES if name.replace("qmail-", "qm-") in PROGRAMS}
    assert sorted(_absent()) == sorted(_NAMES - ours)
