"""MTA-STS policies on disk: sts/DOMAIN, in a directory of qmailr's (RFC 8461 3.3, 10.2).

A file is ``fetched tried id LF policy``, times in seconds since 1970, an empty policy where none could be had.  Files
are replaced whole; who reads one half written reads the old one.  Nothing is synced: a lost policy is fetched again.
"""

import os
import re
import stat
from typing import Final, NamedTuple

from qm.wire.mtasts import DOMAIN, POLICY_MAX, Policy, parse_policy

DIRECTORY: Final = "sts"
FILES_MAX: Final = 10000  # then the one that was written longest ago goes
_HEAD: Final = re.compile(rb"(\d{1,15}) (\d{1,15}) ([A-Za-z0-9]{0,32})\n")


class Entry(NamedTuple):
    fetched_s: int  # when the policy was had
    tried_s: int  # when it was last asked for
    id: bytes
    text: bytes  # of the policy; empty: none could be had

    def policy(self, now_s: float) -> Policy | None:
        """The policy, as long as it is good."""
        found = parse_policy(self.text) if self.text else None
        return found if found and self.fetched_s <= now_s < self.fetched_s + found.max_age_s else None


NOTHING: Final = Entry(0, 0, b"", b"")


def read(domain: bytes) -> Entry:
    """What is known of *domain*, in lower case; NOTHING also for what makes no sense."""
    if not DOMAIN.fullmatch(domain):
        return NOTHING
    try:
        path = os.path.join(DIRECTORY, domain.decode())
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            data = file.read(POLICY_MAX + 100) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return NOTHING
    match = _HEAD.match(data)
    return Entry(int(match[1]), int(match[2]), match[3], data[match.end() :]) if match else NOTHING


def write(domain: bytes, entry: Entry) -> None:
    """Keep *entry*; raises OSError.  Only the directory's owner writes: nobody else leaves files there."""
    if not DOMAIN.fullmatch(domain) or os.stat(DIRECTORY).st_uid != os.geteuid():
        return
    path = os.path.join(DIRECTORY, domain.decode())
    temporary = os.path.join(DIRECTORY, f".{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(b"%d %d %b\n" % entry[:3] + entry.text)
    if not os.path.lexists(path):
        _make_room()
    os.rename(temporary, path)


def _make_room() -> None:
    names = os.listdir(DIRECTORY)
    if len(names) > FILES_MAX:
        paths = [os.path.join(DIRECTORY, name) for name in names]
        os.unlink(min(paths, key=lambda path: os.lstat(path).st_mtime_ns))
