"""control/acme: where certificates come from, for whom, and how the server may see that the names are ours.

server URL          the directory of an ACME server
email ADDRESS       whom it may tell of trouble
agreed              to the server's terms
listen ADDRESS:PORT where to answer challenges; webroot DIR: by files of a web server instead
default NAME ...    the names of control/servercert.pem
name NAME           a certificate of its own, control/servercerts/NAME.pem
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from qm.admin.x509facts import Facts
from qm.disk import certfiles
from qm.errors import Permanent
from qm.wire.hostcontrols import full_name

SERVER: Final = "https://acme-v02.api.letsencrypt.org/directory"
LISTEN: Final = ":80"
NAMES_MAX: Final = 100  # of one certificate; what servers allow


class Wanted(NamedTuple):
    path: str
    names: tuple[str, ...]


class Settings(NamedTuple):
    server: str = SERVER
    email: str = ""
    agreed: bool = False
    listen: str = LISTEN
    webroot: str = ""
    wanted: tuple[Wanted, ...] = ()

    def adding(self, more: Iterable[Wanted]) -> "Settings":
        """With these; a file has one entry."""
        entries = {entry.path: entry for entry in (*self.wanted, *more)}
        return self._replace(wanted=tuple(entries.values()))


def of_name(name: str) -> Wanted:
    return Wanted(f"{certfiles.BY_NAME}/{name}{certfiles.SUFFIX}", (name,))


def of_default(names: Iterable[str]) -> Wanted:
    return Wanted(certfiles.DEFAULT, tuple(names))


def address(text: str) -> tuple[str, int] | None:
    """``ADDRESS:PORT``, the address in brackets if it has colons, or empty; None if *text* is none."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def _names(words: list[str]) -> tuple[str, ...]:
    names = [full_name(word) for word in words]
    good = tuple(dict.fromkeys(name for name in names if name is not None))
    if not good or None in names or len(good) > NAMES_MAX:
        raise ValueError("these are not full host names")
    return good


def _with(settings: Settings, keyword: str, words: list[str]) -> Settings:
    """Raises ValueError."""
    if keyword == "agreed" and not words:
        return settings._replace(agreed=True)
    if keyword == "default":
        return settings.adding([of_default(_names(words))])
    if len(words) != 1:
        raise ValueError("one word must follow")
    if keyword == "name":
        return settings.adding([of_name(_names(words)[0])])
    if keyword == "listen":
        if address(words[0]) is None:
            raise ValueError("not ADDRESS:PORT")
        return settings._replace(listen=words[0])
    if keyword == "server":
        if not words[0].startswith("https://"):
            raise ValueError("not an https URL")
        return settings._replace(server=words[0])
    if keyword in ("email", "webroot"):
        return settings._replace(**{keyword: words[0]})  # type: ignore[arg-type]
    raise ValueError("no such word")


def parse(lines: Iterable[bytes]) -> Settings:
    """Raises Permanent."""
    settings = Settings()
    for line in lines:
        words = line.decode("ascii", "replace").split() or [""]
        try:
            settings = _with(settings, words[0], words[1:])
        except ValueError as error:
            raise Permanent("a control file is broken", detail=f"control/acme: {' '.join(words)}: {error}") from error
    return settings


def show(settings: Settings) -> str:
    """What `parse` reads."""
    lines = [f"server {settings.server}"]
    lines += [f"email {settings.email}"] if settings.email else []
    lines += ["agreed"] if settings.agreed else []
    lines.append(f"webroot {settings.webroot}" if settings.webroot else f"listen {settings.listen}")
    for entry in settings.wanted:
        kind = "default" if entry.path == certfiles.DEFAULT else "name"
        lines.append(" ".join((kind, *entry.names)))
    return "".join([f"{line}\n" for line in lines])


def why_due(entry: Wanted, facts: Facts | None, now: datetime, days: int | None) -> str:
    """Why its certificate must be renewed; empty while it need not.  Without *days*, in its last third."""
    if facts is None:
        return "there is none that can be used"
    if facts.self_signed:
        return "nobody vouches for it"
    if set(entry.names) - set(facts.names):
        return "it lacks a name"
    last = (facts.until - facts.since) / 3 if days is None else timedelta(days=days)
    return f"it ends in {facts.days_left(now)} days" if facts.until - now < last else ""
