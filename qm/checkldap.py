"""checkpassword-ldap: a checkpassword that binds to a directory as the user, and asks it who that is.

Usage:   checkpassword-ldap uri base attribute prog [arg ...]
Reads:   fd 3: name NUL secret NUL; control/tlsroots; the directory at uri: ldaps://, ldapi://, ldap:// with StartTLS or
         on this machine
Env:     QMHOME; sets USER, HOME and SHELL
Writes:  fd 2 (log)
As:      root until the directory has said who it is; it is asked by a child that is qmailp
Exits:   1 refused; 2 no program; 111 cannot tell; after a login what prog exits with
See:     checkpassword-ldap(8), qm-users(5), qmail.md 16.5

The entry is the one below base whose attribute is the name; it tells uidNumber, gidNumber and homeDirectory.
"""

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from qm.disk.control import Controls
from qm.errors import Temporary
from qm.unix import checking
from qm.unix.program import Argv, Env, program
from qm.wire.assign import ID_MAX
from qm.wire.record import Malformed, number
from qm.wire.userquery import Login, LoginAnswer, Refused

if TYPE_CHECKING:
    from ldap3 import Connection

RECORD_MAX: Final = 512  # bytes
TIMEOUT_S: Final = 5  # for a connection, and for each answer
_ATTRIBUTES: Final = ("uidNumber", "gidNumber", "homeDirectory")
_WRONG: Final = Refused(b"wrong name or password")


def _in_clear(uri: str) -> bool:
    """Whether a password may go to *uri* as it is: no network is between."""
    parts = urlsplit(uri)
    return parts.scheme == "ldapi" or checking.is_here(parts.hostname or "")


class _Directory:
    """The server at *uri*."""

    def __init__(self, uri: str, roots: str) -> None:
        """*roots* are as qm.unix.tlscontext has them."""
        from ssl import CERT_REQUIRED

        from ldap3 import NONE, Server, Tls

        directory = roots if roots.endswith("/") else None
        tls = Tls(validate=CERT_REQUIRED, ca_certs_path=directory, ca_certs_file=None if directory else roots or None)
        self._uri = uri
        self._server = Server(uri, get_info=NONE, connect_timeout=TIMEOUT_S, tls=tls)

    def connect(self, user: str | None = None, secret: str | None = None) -> "Connection":
        """A connection that is not bound yet; raises LDAPException."""
        from ldap3 import ANONYMOUS, SIMPLE, Connection

        kind = ANONYMOUS if user is None else SIMPLE
        made = Connection(self._server, user, secret, authentication=kind, receive_timeout=TIMEOUT_S)
        made.open()
        if not self._uri.startswith("ldaps:") and not _in_clear(self._uri) and not made.start_tls():
            raise _trouble("no TLS: the password would go over the network as it is")
        return made

    def entry(self, base: str, attribute: str, name: str) -> tuple[str, dict[str, list[bytes]]] | None:
        """Its name and attributes; None if there is none, or more than one.  Raises LDAPException."""
        from ldap3.utils.conv import escape_filter_chars

        connection = self.connect()
        if not connection.bind():
            raise _trouble(f"anonymous bind: {connection.result['description']}")
        found = f"({attribute}={escape_filter_chars(name)})"
        connection.search(base, found, attributes=_ATTRIBUTES, size_limit=2)
        result = connection.result["description"]
        entries = [one for one in connection.response or () if one["type"] == "searchResEntry"]
        connection.unbind()
        if result not in ("success", "sizeLimitExceeded"):
            raise _trouble(f"search: {result}")
        return (entries[0]["dn"], entries[0]["raw_attributes"]) if len(entries) == 1 else None

    def binds(self, user: str, secret: str) -> bool:
        """Whether *secret*, which is not empty, is *user*'s password; raises LDAPException."""
        connection = self.connect(user, secret)
        right = bool(connection.bind())
        result = connection.result["description"]
        connection.unbind()
        if not right and result not in ("invalidCredentials", "noSuchObject", "inappropriateAuthentication"):
            raise _trouble(f"bind: {result}")
        return right


def _import() -> None:
    """What the child needs: it is qmailp then, and may be unable to reach the installation."""
    import ldap3.utils.conv  # noqa: F401

    import qm.unix.tlscontext  # noqa: F401


def _trouble(why: str) -> Temporary:
    return Temporary("cannot ask the directory", detail=why)


def _ask(uri: str, base: str, attribute: str, name: bytes, secret: bytes) -> LoginAnswer:
    from ldap3.core.exceptions import LDAPException

    from qm.unix import tlscontext

    try:
        who, password = name.decode(), secret.decode()
    except UnicodeDecodeError:
        return _WRONG
    if not who or not password or "\0" in who:
        return _WRONG  # RFC 4513 5.1.2: a bind without a password succeeds, and is nobody's
    try:
        directory = _Directory(uri, tlscontext.roots(Controls(("tlsroots",)).line("tlsroots")))
        entry = directory.entry(base, attribute, who)
        if not directory.binds(entry[0] if entry else base, password) or entry is None:
            return _WRONG
    except LDAPException as error:
        raise _trouble(f"{uri}: {type(error).__name__}") from error
    return _login(name, entry[1])


def _login(name: bytes, attributes: dict[str, list[bytes]]) -> Login:
    try:
        uid, gid, home = (attributes[key][0] for key in _ATTRIBUTES)
        login = Login(name, number(uid, ID_MAX), number(gid, ID_MAX), home, b"/bin/sh", name)
    except (KeyError, IndexError, Malformed) as error:
        raise _trouble("the entry lacks uidNumber, gidNumber or homeDirectory") from error
    if login.uid == 0 or b"\0" in home:
        raise _trouble("the entry has uid 0, or no home")
    return login


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) < 5:
        return checking.MISUSE
    uri, base, attribute = map(os.fsdecode, argv[1:4])
    _import()
    return checking.run(
        [argv[0], *argv[4:]], env, RECORD_MAX, lambda name, secret, _: _ask(uri, base, attribute, name, secret)
    )
