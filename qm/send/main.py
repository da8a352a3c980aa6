"""send: deliver what is in the queue, try again what fails, tell senders what failed for good (qmail-send).

Reads:   fd 0 (lspawn), fd 1 (rspawn), queue/{trigger,new,cur,state}, control/{bouncefrom,bouncehost,bouncemaxbytes,
         concurrencylocal,concurrencyremote,delaywarning,doublebouncehost,doublebounceto,envnoathost,lmtproutes,
         locals,maxrcptperdelivery,me,percenthack,queuelifetime,smtproutes,virtualdomains}
Env:     QMREADY (a descriptor that gets one byte when send works); QMAILQUEUE, for reports
Writes:  fd 0, fd 1, fd 2 (log), names in queue/{new,cur,bad}, queue/state, never a message's bytes
Asks:    the queue, once for each report
As:      qmails
Exits:   0 after SIGTERM, once its deliveries have ended; 111 trouble, or a spawner was lost
See:     qm-send(8), qmail.md section 7; docs/INTERNALS.md 2

SIGALRM makes everything due now; SIGHUP reads the control files again.
"""

import gc
import os
import resource
import signal

from qm import errors
from qm.disk import queue
from qm.disk.control import Controls
from qm.send.logbook import Logbook
from qm.send.session import CONTROLS, Sender
from qm.unix import confine, privs
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env, program, ready


def _many_descriptors() -> None:
    """An open message and a delivery hold one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@program()
def main(argv: Argv, env: Env) -> int:
    privs.become(privs.role("qmails"))
    confine.gain_nothing()
    os.umask(0o027)
    _many_descriptors()
    controls = Controls(CONTROLS)
    controls.me()
    try:
        loop = Loop()
        sender = Sender(loop, controls, Logbook(), 0, 1)
    except BlockingIOError as error:
        raise errors.Temporary("cannot start", detail="another qm-send works on this queue") from error
    except OSError as error:
        raise errors.Temporary("cannot start", detail=f"{error.filename or queue.QUEUE}: {error.strerror}") from error
    loop.on_signal(signal.SIGTERM, sender.stop)
    loop.on_signal(signal.SIGALRM, sender.all_due)
    loop.on_signal(signal.SIGHUP, sender.reload)
    gc.freeze()
    ready(env)
    loop.run()
    sender.close()
    return errors.TEMPORARY if sender.failed else errors.OK
