"""qm cert: make, show, get and renew the certificates that qm-tlsd shows.

qm-tlsd sees a changed file by itself, within a second, and drops no session.
"""

import os
from datetime import UTC, datetime
from typing import Final

import click

from qm.admin import acmesettings, acmetries, place
from qm.admin.acmesettings import Settings, Wanted
from qm.admin.screen import show
from qm.disk import atomic, certfiles, layout, lock, selfsigned
from qm.disk.control import Controls
from qm.errors import OK, TEMPORARY, Permanent, QmError
from qm.unix import log, privs
from qm.unix.program import enter_home
from qm.wire.hostcontrols import full_name

WRONG: Final = 1
LOCK: Final = "run/acme.lock"
SOON_DAYS: Final = 14


@click.group("cert", short_help="make, show, get and renew certificates")
def command() -> None:
    """The certificates that qm-tlsd shows: control/servercert.pem, and by name those of control/servercerts."""


def _host(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    names = [full_name(value) for value in values]
    wrong = [value for value, name in zip(values, names, strict=True) if name is None]
    if wrong:
        raise click.BadParameter(f"{wrong[0]} is not a full host name, as mail.example.org")
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _listen(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and acmesettings.address(value) is None:
        raise click.BadParameter("as ADDRESS:PORT, or :PORT")
    return value


def _enter(home: str, *, changes: bool) -> None:
    enter_home({b"QMHOME": os.fsencode(home)})
    if changes and not privs.is_root() and os.stat(".").st_uid != os.geteuid():
        raise Permanent("only root can change a system of root's")
    os.umask(0o077)


def _settings() -> tuple[Settings, str]:
    """control/acme, and what to trust; raises QmError."""
    from qm.admin import obtain

    controls = Controls(("acme", "tlsroots"))
    return acmesettings.parse(controls.lines("acme")), obtain.roots(os.fsdecode(controls.line("tlsroots")))


@command.command("make")
@click.argument("names", nargs=-1, callback=_host)
@place.home_option
@click.option("--force", is_flag=True, help="also in place of one that is still good")
def make(names: tuple[str, ...], home: str, force: bool) -> int:
    """Make control/servercert.pem, self-signed: enough to encrypt.  NAMES are by default what control/me says."""
    from qm.admin import obtain

    _enter(home, changes=True)
    found = obtain.current(certfiles.DEFAULT)
    if found is not None and found[1] is not None and found[0].until > datetime.now(UTC) and not force:
        raise Permanent(f"{certfiles.DEFAULT} is good", detail="--force replaces it, and its key")
    selfsigned.make(certfiles.DEFAULT, names or (Controls(()).me().decode("ascii"),))
    show(f"{certfiles.DEFAULT}: made")
    return OK


@command.command("show")
@place.home_option
def show_all(home: str) -> int:
    """Show every certificate.  Exit code 1: one has expired, ends within 14 days, or cannot be used."""
    _enter(home, changes=False)
    paths = [path for path in (certfiles.DEFAULT, *certfiles.by_name()) if os.path.lexists(path)]
    good = [_show_one(path) for path in paths]
    if not paths:
        show("There is no certificate; qm cert make makes one.")
    return OK if paths and all(good) else WRONG


def _show_one(path: str) -> bool:
    """Whether all is well with it."""
    from qm.admin import obtain

    show(path, "bold")
    found = obtain.current(path)
    if found is None:
        show("  has no certificate that can be read")
        return False
    facts, key = found
    days = facts.days_left(datetime.now(UTC))
    left = f"{days} days left" if days >= 0 else "EXPIRED"
    status = os.stat(path)
    private = not status.st_mode & 0o077
    show(f"  names        {', '.join(facts.names) or 'none'}")
    show(f"  issuer       {'itself: nobody vouches for it' if facts.self_signed else facts.issuer}")
    show(f"  good         {facts.since:%Y-%m-%d %H:%M} to {facts.until:%Y-%m-%d %H:%M} UTC, {left}")
    show(
        f"  key          {facts.key}, {'in the file' if key is not None else 'MISSING, or that of another certificate'}"
    )
    show(f"  fingerprint  SHA-256 {facts.fingerprint}")
    show(f"  TLSA         {facts.tlsa}")
    who = f"{privs.account(status.st_uid)} may read it"
    show(f"  file         {who}, mode {status.st_mode & 0o7777:04o}{'' if private else ': OTHERS TOO; chmod 600'}")
    return key is not None and days >= SOON_DAYS and private


@command.command("get")
@click.argument("names", nargs=-1, required=True, callback=_host)
@place.home_option
@click.option("--email", default="", metavar="ADDRESS", help="whom the server may tell of trouble")
@click.option("--server", default="", metavar="URL", help="the directory of an ACME server; else Let's Encrypt")
@click.option("--agree", is_flag=True, help="to the server's terms")
@click.option(
    "--http", default="", metavar="ADDRESS:PORT", callback=_listen, help="where to answer challenges; else :80"
)
@click.option("--webroot", default="", metavar="DIR", type=click.Path(exists=True, file_okay=False, resolve_path=True),
              help="answer by files of a web server that shows DIR")  # fmt: skip
@click.option("--each", is_flag=True, help="a certificate for each NAME: control/servercerts/NAME.pem")
def get(
    names: tuple[str, ...], home: str, email: str, server: str, agree: bool, http: str, webroot: str, each: bool
) -> int:
    """Get a certificate for NAMES by ACME into control/servercert.pem.  What was said is kept in control/acme."""
    _enter(home, changes=True)
    if server and not server.startswith("https://"):
        raise click.UsageError("--server: it must be an https URL")
    held = lock.take(LOCK)
    settings, roots = _settings()
    settings = settings._replace(
        server=server or settings.server,
        email=email or settings.email,
        agreed=agree or (settings.agreed and server in ("", settings.server)),
        listen=http or settings.listen,
        webroot="" if http else webroot or settings.webroot,
    )
    wanted = [acmesettings.of_name(name) for name in names] if each else [acmesettings.of_default(names)]
    for entry in wanted:
        _obtain(settings, entry, roots, new_key=False)
        settings = settings.adding([entry])
        _remember(settings)
    os.close(held)
    return OK


def _remember(settings: Settings) -> None:
    text = acmesettings.show(settings).encode()
    atomic.replace("control/acme", lambda file: file.write(text), mode=layout.mode("control/*"))


def _obtain(settings: Settings, entry: Wanted, roots: str, *, new_key: bool) -> None:
    from qm.admin import obtain  # its libraries take half a second

    facts = obtain.obtain(obtain.Order(settings, entry, roots, new_key))
    show(f"{entry.path}: a certificate for {', '.join(facts.names)}, good until {facts.until:%Y-%m-%d}")


@command.command("renew")
@place.home_option
@click.option("--days", type=click.IntRange(0, 10_000), metavar="N", help="those that end within N days; else a third")
@click.option("--now", is_flag=True, help="also soon after a failure")
@click.option("--new-key", is_flag=True, help="not with the key that it has; TLSA records must change")
def renew(home: str, days: int | None, now: bool, new_key: bool) -> int:
    """Renew what control/acme names, and is in its last third.  Silent if there is nothing to do: run it daily."""
    from qm.admin import obtain

    _enter(home, changes=True)
    held = lock.take(LOCK)
    settings, roots = _settings()
    tries = acmetries.read()
    code = OK
    for entry in settings.wanted:
        found = obtain.current(entry.path)
        usable = found[0] if found is not None and found[1] is not None else None
        moment = datetime.now(UTC)
        why = acmesettings.why_due(entry, usable, moment, days)
        tried = tries.get(entry.path)
        if not why or (tried is not None and not now and tried.wait_s(moment.timestamp())):
            continue
        try:
            _obtain(settings, entry, roots, new_key=new_key)
            acmetries.note(entry.path, failed=False)
        except QmError as error:
            log.warning(b"qm", f"{entry.path}: {why}, and I cannot renew it: {error}")
            acmetries.note(entry.path, failed=True)
            code = TEMPORARY
    os.close(held)
    return code
