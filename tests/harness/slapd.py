"""A real slapd with three people, in a home's folder."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tests.harness.barehome import BareHome
from tests.harness.waiting import wait_for

UID: Final = 64124
BASE: Final = "ou=people,dc=test"
_CONF: Final = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
allow bind_anon_cred
database mdb
suffix dc=test
directory {folder}/data
access to attrs=userPassword by anonymous auth
access to * by * read
"""
_PEOPLE: Final = """dn: dc=test
objectClass: domain
dc: test

dn: ou=people,dc=test
objectClass: organizationalUnit
ou: people

"""
_PERSON: Final = """dn: uid={name},ou=people,dc=test
objectClass: account
objectClass: posixAccount
uid: {name}
cn: {name}
userPassword: {password}
uidNumber: {uid}
gidNumber: {uid}
homeDirectory: {home}

"""


def local_uri(home: BareHome) -> str:
    """By its socket."""
    return f"ldapi://{quote(str(home.folder / 'ldap/socket'), safe='')}"


@contextmanager
def slapd(
    home: BareHome, uris: Sequence[str] = (), certificate: Path | None = None, prefix: Sequence[str] = (),
    people_home: Path | None = None,
) -> Iterator[None]:  # fmt: skip
    """One that knows ann, bob and a root, at its socket and at *uris*, with TLS if it has a *certificate*."""
    folder = home.folder / "ldap"
    (folder / "data").mkdir(parents=True)
    conf, people = folder / "slapd.conf", folder / "people"
    tls = f"TLSCertificateFile {certificate}\nTLSCertificateKeyFile {certificate}\n" if certificate else ""
    conf.write_text(tls + _CONF.format(folder=folder))
    persons = (("ann", "secret", UID), ("bob", "other", UID + 1), ("toor", "secret", 0))
    theirs = people_home or home.folder / "home/ann"
    text = "".join(_PERSON.format(name=n, password=p, uid=u, home=theirs) for n, p, u in persons)
    people.write_text(_PEOPLE + text)
    subprocess.run(["slapadd", "-f", str(conf), "-l", str(people)], check=True, capture_output=True, timeout=60)
    where = " ".join([*uris, f"{local_uri(home)}/????x-mod=0777"])  # when the last is there all are
    process = subprocess.Popen([*prefix, "slapd", "-d", "0", "-f", str(conf), "-h", where])
    try:
        wait_for((folder / "socket").exists, "slapd's socket")
        yield
    finally:
        process.terminate()
        process.wait(20)
