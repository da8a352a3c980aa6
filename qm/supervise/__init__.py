"""supervise: the parent of a mail system's services, and rc, which starts and stops it."""

from typing import Final

LOCK: Final = "run/lock"
STOP_S: Final = 30.0  # stopping takes at most this
SERVICES: Final = "services"
SERVICES_MAX: Final = 65536  # bytes of it
