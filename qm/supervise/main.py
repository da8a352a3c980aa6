"""supervise: the parent of a mail system's services; starts them, starts again what dies, stops them in order.

Usage:   qm-supervise
Reads:   services, a line for each service: NAME: [VARIABLE=VALUE ...] COMMAND LINE
Env:     QMHOME, QMREADY (a descriptor that gets a line "ready NAME PORT" or "died NAME CODE" for each service, and
         "all" when all serve), NOTIFY_SOCKET (a service manager's, which is told too)
Writes:  run/lock, run/status; fd 2 is the services' log/, by qm-log
As:      root, or the owner of a private system; reads nothing from the network, and its services drop what they do not
         need
Exits:   0 after SIGTERM, within 30 s; 111 no services, already running, or others can write the home
See:     qm-supervise(8), qm-rc(8), docs/INTERNALS.md section 1.10

The programs that stay are imported here, once, and every service is forked from here: so they share their memory, and a
restart costs 2 ms. SIGHUP is passed on to all services, SIGALRM (try all mail now) to qm-start or qm-send.  The
services file is read at start only.
"""

import os
from importlib import import_module

from qm import errors
from qm.disk.safety import refuse_dangers
from qm.programs import PROGRAMS, RESIDENT
from qm.supervise import LOCK, SERVICES, SERVICES_MAX, status
from qm.supervise.policy import Service, parse
from qm.supervise.readiness import Readiness
from qm.supervise.session import NAME, Supervisor
from qm.unix import forkhooks, log, owner, program, title
from qm.unix.loop import Loop
from qm.unix.program import Argv, Env


def _services() -> tuple[Service, ...]:
    """What the services file says, if nobody else could have written it: it is run as who we are."""
    try:
        with open(SERVICES, "rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(SERVICES_MAX)
    except OSError as error:
        raise errors.Temporary("cannot read the services", detail=f"{SERVICES}: {error.strerror}") from error
    if found.st_mode & 0o022 or found.st_uid not in (0, os.geteuid()):
        raise errors.Temporary(
            "the services are not safe", detail=f"{SERVICES}: others may write it; chown, chmod go-w"
        )
    return parse(text)


def _warm() -> None:
    """Import what will run; what cannot be imported is no reason for the others not to run."""
    with forkhooks.spared():
        for name in RESIDENT:
            try:
                import_module(PROGRAMS[name])
            except Exception as error:
                program.unforeseen(os.fsencode(name), error)


@program.program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise program.Usage("usage: qm-supervise")
    os.umask(0o022)
    warnings = refuse_dangers()
    services = _services()
    held = owner.take(LOCK)
    readiness = Readiness(env)
    title.show((NAME, os.getcwdb()))
    supervisor = Supervisor(Loop(), services, env, readiness)
    _warm()
    leftovers = status.end_leftovers()
    if leftovers:
        log.warning(NAME, f"a supervisor was killed; ended what it left: {', '.join(leftovers)}")
    for line in warnings:
        log.warning(NAME, line)
    log.info(NAME, f"starting {', '.join(service.name for service in services)}")
    supervisor.run()
    status.remove()
    os.close(held)
    return errors.OK
