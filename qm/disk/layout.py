"""The home: what is in it, whose it is, and who may do what there (qmail.md 3.3).

One table.  Who makes a home works through it, the queue service makes its part by it, and `qm check-install` compares
the disk with it.  Without root everything belongs to the one who makes it.
"""

import os
import stat
from enum import Enum
from typing import Final, NamedTuple

from qm.errors import Temporary
from qm.unix import privs
from qm.unix.privs import Ids

ROOT: Final = Ids(0, 0)


class Kind(Enum):
    FOLDER = stat.S_IFDIR
    FILE = stat.S_IFREG
    FIFO = stat.S_IFIFO
    SOCKET = stat.S_IFSOCK


class Made(Enum):
    """When it comes into being."""

    INSTALL = "by who makes the home"
    START = "by the queue service, as its owner"
    USE = "by the programs, or the administrator; the mode of a file is the most that it may be"


class Place(NamedTuple):
    path: str  # from the home; a last part with * is every such name
    kind: Kind
    made: Made
    owners: tuple[str, ...]  # roles, or root; the first is who gets it
    mode: int
    text: str


D, F, P, S = Kind.FOLDER, Kind.FILE, Kind.FIFO, Kind.SOCKET
INSTALL, START, USE = Made.INSTALL, Made.START, Made.USE
R, Q = ("root",), ("qmailq",)

PLACES: Final = (
    Place(".", D, INSTALL, R, 0o755, "the home"),
    Place("rc", F, USE, R, 0o755, "starts and stops the programs"),
    Place("unfinished", F, USE, R, 0o644, "the command that changes the home, or was cut short"),
    Place("services", F, USE, R, 0o644, "what rc starts"),
    Place("imported", F, USE, R, 0o600, "messages that qm import has taken from another system"),
    Place("tcp.*", F, USE, R, 0o644, "rules for tcpserver"),
    Place("control", D, INSTALL, R, 0o755, "control files"),
    Place("control/*", F, USE, R, 0o644, "a control file"),
    Place("control/smtpauth", F, USE, R, 0o600, "logins at relays, with their passwords"),
    Place("control/acme.key", F, USE, R, 0o600, "by which an ACME server knows us"),
    Place("control/servercert.pem", F, USE, R, 0o600, "the certificate, and its key"),
    Place("control/servercerts", D, USE, R, 0o755, "certificates by name"),
    Place("control/servercerts/*", F, USE, R, 0o600, "a certificate for a name, and its key"),
    Place("users", D, INSTALL, R, 0o755, "who has a mailbox, who may log in"),
    Place("users/assign", F, USE, R, 0o644, "who gets the mail of a local part"),
    Place("users/cdb", F, USE, R, 0o644, "users/assign, compiled"),
    Place("users/passwd*", F, USE, R, 0o600, "names and hashed passwords"),
    Place("users/salt", F, USE, R, 0o600, "makes the salts of SCRAM"),
    Place("users/*lock", F, USE, R, 0o600, "held by who writes, or serves"),
    Place("users/socket", S, USE, R, 0o666, "userd's door; it asks who is there"),
    Place("tls", D, INSTALL, R, 0o755, "qm-tlsd's own"),
    Place("tls/lock", F, USE, R, 0o600, "held by who serves"),
    Place("tls/socket", S, USE, R, 0o666, "qm-tlsd's door; it asks who is there"),
    Place("alias", D, INSTALL, ("alias",), 0o755, "home of the alias user, and of what has no other"),
    Place("alias/.qmail*", F, USE, ("root", "alias"), 0o644, "what happens to an alias's mail"),
    Place("alias/*.cdb", F, USE, ("root", "alias"), 0o644, "a database of aliases, for fastforward"),
    Place("run", D, INSTALL, R, 0o755, "the supervisor's lock and status"),
    Place("run/lock", F, USE, R, 0o644, "held by the supervisor"),
    Place("run/acme", F, USE, R, 0o644, "certificates that could not be renewed"),
    Place("run/acme.lock", F, USE, R, 0o600, "held by qm cert"),
    Place("run/status*", F, USE, R, 0o644, "which process is which service"),
    Place("run/rspawn", S, USE, R, 0o600, "rspawn's door, for tcpto and tcpok"),
    Place("sts", D, INSTALL, ("qmailr",), 0o700, "what other domains ask of who sends to them (MTA-STS)"),
    Place("sts/*", F, USE, ("qmailr",), 0o600, "a domain's policy"),
    Place("log", D, INSTALL, ("qmaill",), 0o750, "what the programs say"),
    Place("log/*", F, USE, ("qmaill",), 0o744, "what they have said"),
    Place("queue", D, INSTALL, Q, 0o751, "the queue; others pass through to its socket"),
    Place("queue/lock", F, USE, Q, 0o600, "held by the queue service"),
    Place("queue/socket", S, USE, Q, 0o666, "the queue's door, for every user of this machine"),
    Place("queue/trigger", P, START, Q, 0o660, "tells send what is new"),
    Place("queue/tmp", D, START, Q, 0o770, "messages that are being written"),
    Place("queue/tmp/*", F, USE, Q, 0o640, "a message that is being written"),
    Place("queue/new", D, START, Q, 0o770, "messages that send has not seen"),
    Place("queue/new/*", F, USE, Q, 0o640, "a message"),
    Place("queue/cur", D, START, Q, 0o770, "messages that send works on"),
    Place("queue/cur/*", F, USE, Q, 0o640, "a message"),
    Place("queue/state", D, START, Q, 0o770, "what happened to their recipients"),
    Place("queue/state/*", F, USE, ("qmails",), 0o640, "what happened to a message's recipients"),
    Place("queue/held", D, START, Q, 0o770, "messages that wait for the administrator"),
    Place("queue/held/*", F, USE, Q, 0o640, "a message"),
    Place("queue/import", D, USE, Q, 0o700, "messages that qm import has read, and not let go"),
    Place("queue/import/*", F, USE, Q, 0o640, "a message"),
    Place("queue/bad", D, START, Q, 0o770, "files that fail their own check"),
    Place("queue/bad/*", F, USE, Q, 0o640, "a file that failed its own check"),
)

_MODES: Final = {place.path: place.mode for place in PLACES}


def mode(path: str) -> int:
    """The mode of a path of the table."""
    return _MODES[path]


def owners(place: Place, home: str = ".") -> list[Ids]:
    """Who may own it; the first is who gets it.  Raises Temporary if a role has no user."""
    if not privs.is_root():
        return [Ids(os.getuid(), os.getgid())]
    roles = os.path.join(home, "control/roles")
    return [ROOT if name == "root" else privs.role(name, roles) for name in place.owners]


def folders() -> list[Place]:
    """What who makes a home must make, parents first."""
    return [place for place in PLACES if place.kind is Kind.FOLDER and place.made is Made.INSTALL]


def make(home: str = ".") -> None:
    """Make what is missing in *home*, and set right what is there.

    Raises Temporary that names the path.
    """
    for place in folders():
        make_folder(place, home)


def make_folder(place: Place, home: str = ".") -> None:
    """Make *place*, or set its owner and mode right, through a descriptor: no link leads us elsewhere.

    Raises Temporary that names the path.
    """
    path = os.path.normpath(os.path.join(home, place.path))
    try:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if privs.is_root():
                os.fchown(fd, *owners(place, home)[0])
            os.fchmod(fd, place.mode)
        finally:
            os.close(fd)
    except OSError as error:
        raise Temporary("cannot make the home", detail=f"{path}: {error.strerror}") from error
