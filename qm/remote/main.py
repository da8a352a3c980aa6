"""remote: hand a message to another host by SMTP (qmail-remote).

Usage:   qm-remote host sender recipient ...
Reads:   fd 0 (the message), control/{dnsservers,dnstrusted,ehloignore,helohost,ipfamily,lmtproutes,me,moreipme,notipme,
         remoteaddresses,remotemessages,smtproutes,stsport,timeoutconnect,timeoutdatadone,timeoutdatainit,timeoutdatasend,
         timeoutdns,timeoutgreeting,timeouthelo,timeoutmail,timeoutrcpt,timeoutremote,timeouttls,tlspolicy,
         tlsroots}, sts/*, /etc/resolv.conf
Writes:  sts/*, fd 1 (reports), fd 2 (log), the network
As:      qmailr, as a worker of rspawn; the command: whoever calls it
Exits:   0 always; what became of the message is in the reports
See:     qm-remote(8), qmail.md section 14; docs/INTERNALS.md 1.6.2
"""

import os
import shutil
import stat
import sys
from collections.abc import Callable
from typing import Final

from qm import errors
from qm.errors import QmError
from qm.remote import tls
from qm.remote.settings import Config
from qm.remote.worker import Worker
from qm.unix import log
from qm.unix.program import Argv, Env, enter_home, unforeseen
from qm.wire import queueid, smtproute
from qm.wire.delivery import Addressee, Delivery, Result
from qm.wire.remotereport import print_out
from qm.wire.smtproute import Destination

NAME: Final = b"qm-remote"
_BUG: Final = Result(b"Z", b"System trouble here. (#4.3.0)\n", b"4.3.0")


def entrance() -> Callable[[Destination], Worker]:
    """For rspawn: make ready, once; what it gives is called in each fresh worker."""
    config = Config(lambda text: log.alert(NAME, text))
    tls.unverified()
    return lambda destination: Worker(config)


def _message() -> int:
    """A descriptor of the message on fd 0, from where that stands."""
    if stat.S_ISREG(os.fstat(0).st_mode) and os.lseek(0, 0, os.SEEK_CUR) == 0:
        return 0
    copy = os.memfd_create("message", os.MFD_CLOEXEC)
    with open(0, "rb", closefd=False) as source, open(copy, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)
    return copy


def _deliver(argv: Argv, env: Env) -> list[Result]:
    enter_home(env)
    host, sender, *recipients = argv[1:]
    config = Config(lambda text: log.alert(NAME, text))
    destination = smtproute.destination(config.current().routes, host)
    worker = Worker(config)
    addressees = tuple(Addressee(place, address) for place, address in enumerate(recipients))
    delivery = Delivery(0, queueid.make(0, 0), b"", sender, addressees)
    try:
        return list(worker.deliver(destination, delivery, [_message()]).results)
    finally:
        worker.close()


def main(argv: Argv, env: Env) -> int:
    """Not decorated: whatever happens is a report, and the exit code is 0 (qmail.md section 14)."""
    if len(argv) < 4:
        results = [Result(b"D", b"qm-remote was invoked improperly. (#5.3.5)\n", b"5.3.5")]
    else:
        try:
            results = _deliver(argv, env)
        except QmError as error:
            log.fatal(NAME, str(error))
            results = [Result(b"Z", b"%b (#4.3.0)\n" % error.public.encode("ascii", "backslashreplace"), b"4.3.0")]
        except Exception as error:  # the unforeseen is temporary
            unforeseen(NAME, error)
            results = [_BUG]
    sys.stdout.buffer.write(print_out(results))
    sys.stdout.buffer.flush()
    return errors.OK
