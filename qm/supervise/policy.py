"""What supervise runs, and when it runs it again.

The services file has a line for each service, its name and its command line as one would type it::

    smtp: tcpserver -H -R -c 100 127.0.0.1 2525 qm-smtpd

Words are split as a shell does it (quotes and backslashes), and nothing is expanded.  Words NAME=VALUE before the
command are the environment of this service alone::

    submit: SUBMISSION= FORCETLS= tcpserver -H -R 0 587 qm-smtpd

Lines that begin with # are comments.  The order is that of starting.  The first service is what the others need, and is
stopped after them.
"""

import re
import shlex
from itertools import takewhile
from typing import Final, NamedTuple

from qm.errors import Temporary

SERVICES_MAX: Final = 100
QUICK_S: Final = 60.0  # who lives shorter than this has died quickly
DELAY_FIRST_S: Final = 0.25
DELAY_MAX_S: Final = 60.0
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class BadServices(Temporary):
    """A services file that we will not act on; *detail* is ``services:LINE: why``."""


class Service(NamedTuple):
    name: str
    argv: tuple[bytes, ...]
    env: tuple[tuple[bytes, bytes], ...] = ()  # names and values, over what all services have


def _bad(count: int, why: str) -> BadServices:
    return BadServices("the services file is broken", detail=f"services:{count}: {why}")


def _service(count: int, line: bytes) -> Service:
    name, colon, command = line.partition(b":")
    if not colon or not _NAME.fullmatch(name.decode("latin-1")):
        raise _bad(count, "not NAME: COMMAND LINE")
    try:
        words = shlex.split(command.decode("latin-1"))
    except ValueError as error:
        raise _bad(count, str(error)) from error
    if "\0" in command.decode("latin-1"):
        raise _bad(count, "a NUL byte")
    assignments = [*takewhile(lambda match: match is not None, map(_ASSIGNMENT.fullmatch, words))]
    argv = words[len(assignments) :]
    if not argv:
        raise _bad(count, "no command line")
    env = tuple((match[1].encode("ascii"), match[2].encode("latin-1")) for match in assignments if match)
    return Service(name.decode("ascii"), tuple(word.encode("latin-1") for word in argv), env)


def parse(data: bytes) -> tuple[Service, ...]:
    """The services of a services file; raises BadServices."""
    services: dict[str, Service] = {}
    for count, line in enumerate(data.split(b"\n"), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        service = _service(count, line)
        if service.name in services or service.name == "log":
            raise _bad(count, f"a second service {service.name}")
        if len(services) == SERVICES_MAX:
            raise _bad(count, f"more than {SERVICES_MAX} services")
        services[service.name] = service
    if not services:
        raise _bad(1, "no service")
    return tuple(services.values())


def next_delay(previous_s: float, lived_s: float) -> float:
    """How long a service that has died waits for its next start, in s; *previous_s*: the last such wait, 0 if none."""
    if lived_s >= QUICK_S or not previous_s:
        return DELAY_FIRST_S
    return min(previous_s * 2, DELAY_MAX_S)
