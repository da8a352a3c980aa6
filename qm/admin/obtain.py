"""Getting a certificate: root's part, which makes keys and replaces files, and parses nothing that came from a network.

Three children do that, none of them root: one speaks ACME (qm.admin.acmespeaker), one answers challenges
(qm.admin.challenges), one judges the chain (qm.admin.x509facts).  They are started before a key is read or made.
"""

import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from qm.admin import acmesettings, acmespeaker, x509facts
from qm.admin.acmesettings import Settings, Wanted
from qm.admin.acmespeaker import CHAIN, TOKEN, Request
from qm.admin.challenges import DONE, Listener, Strange, Webroot
from qm.admin.helper import Helper
from qm.admin.x509facts import Facts
from qm.disk import atomic, certfiles, layout
from qm.errors import PERMANENT, Permanent, Temporary
from qm.unix import privs
from qm.wire.record import Malformed, number, pack, unpack

ACCOUNT: Final = "control/acme.key"
TOTAL_S: Final = 300  # for a certificate, from the first word to the last
JUDGE_S: Final = 20.0
_PEM: Final = re.compile(
    rb"(-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]{1,76}\n){1,400}-----END CERTIFICATE-----\n){1,10}"
)
_SIGNS = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


class Chain(NamedTuple):
    pem: bytes
    until: datetime


class Order(NamedTuple):
    """One certificate to get."""

    settings: Settings
    wanted: Wanted
    roots: str
    new_key: bool


def current(path: str) -> tuple[Facts, PrivateKeyTypes | None] | None:
    """The certificate of a file of ours and its key; None if there is none that can be used.  Raises OSError."""
    try:
        with open(path, "rb") as file:
            return x509facts.read(file.read(certfiles.PEM_MAX))
    except (FileNotFoundError, ValueError, IndexError):
        return None


def _key_pem(key: PrivateKeyTypes) -> bytes:
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, kind, serialization.NoEncryption())


def _account() -> bytes:
    """The key by which the server knows us, made when it is first needed."""
    if not os.path.lexists(ACCOUNT):
        text = _key_pem(ec.generate_private_key(ec.SECP256R1()))
        atomic.replace(ACCOUNT, lambda file: file.write(text), mode=layout.mode(ACCOUNT))
    with open(ACCOUNT, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise Permanent("others can read the account's key", detail=f"chmod 600 {ACCOUNT}")
        return file.read(65536)


def _request(key: _SIGNS, names: tuple[str, ...]) -> bytes:
    """The CSR."""
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(alternatives, critical=False)
    hashed = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return builder.sign(key, hashed).public_bytes(serialization.Encoding.PEM)


def _challenges(settings: Settings) -> Listener | Webroot:
    if settings.webroot:
        return Webroot(settings.webroot)
    where = acmesettings.address(settings.listen)
    assert where is not None  # `parse` has seen it
    return Listener(*where)


def roots(control: str) -> str:
    """What to trust: control/tlsroots, else the system's."""
    paths = ssl.get_default_verify_paths()
    return control or paths.capath or paths.cafile or ""


@contextmanager
def _children(settings: Settings) -> Iterator[tuple[Listener | Webroot, Helper, Helper]]:
    answers = _challenges(settings)
    try:
        judge = Helper(privs.least(), x509facts.serve)
        try:
            speaker = Helper(privs.role("qmailr"), acmespeaker.serve)
            try:
                yield answers, judge, speaker
            finally:
                speaker.close()
        finally:
            judge.close()
    finally:
        answers.close()


def obtain(order: Order) -> Facts:
    """Get a certificate and put it in place of the old one, which stays until then; raises OSError, QmError."""
    with _children(order.settings) as (answers, judge, speaker):
        found = current(order.wanted.path)
        key = None if found is None or found[0].self_signed or order.new_key else found[1]
        if not isinstance(key, _SIGNS):
            key = ec.generate_private_key(ec.SECP256R1())
        chain = _converse(order, _request(key, order.wanted.names), answers, speaker)
        public = x509facts.public_bytes(key.public_key())
        until = _judge(judge, chain, public, order.wanted.names)
    _refuse_worse(order.wanted, found, until)
    _install(order.wanted.path, chain + _key_pem(key))
    put = current(order.wanted.path)
    assert put is not None
    return put[0]


def _converse(order: Order, csr: bytes, answers: Listener | Webroot, speaker: Helper) -> bytes:
    """Have the speaker get a chain, and show what it must have shown."""
    deadline_s = time.monotonic() + TOTAL_S
    settings = order.settings
    agreed, limit = b"%d" % settings.agreed, b"%d" % (TOTAL_S - 10)
    server, email = settings.server.encode(), settings.email.encode()
    request = pack(*Request(server, email, agreed, os.fsencode(order.roots), limit, _account(), csr))
    record = speaker.ask(request, deadline_s)
    for _ in range(acmesettings.NAMES_MAX + 1):
        try:
            kind, *fields = unpack(record, record.count(b"\0"))
            if kind == CHAIN:
                return _shaped(*fields)
            if kind != TOKEN:
                code, why = fields
                failure = Permanent if number(code, 255) == PERMANENT else Temporary
                raise failure(why.decode("ascii", "replace"))
            answers.put(*fields)
        except (Malformed, ValueError, TypeError) as error:
            raise Strange("the ACME child talks nonsense") from error
        record = speaker.ask(DONE, deadline_s)
    raise Strange("the server has too many challenges")


def _shaped(chain: bytes) -> bytes:
    """PEM of certificates and nothing else: what root writes into its file."""
    text = chain.replace(b"\r\n", b"\n").replace(b"\n\n", b"\n").rstrip(b"\n") + b"\n"
    if not _PEM.fullmatch(text):
        raise Strange("the server's certificate is none")
    return text


def _judge(judge: Helper, chain: bytes, key: bytes, names: tuple[str, ...]) -> datetime:
    """Until when it is good; raises Temporary."""
    answer = judge.ask(pack(chain, key.hex().encode(), " ".join(names).encode()), time.monotonic() + JUDGE_S)
    try:
        verdict, text = unpack(answer, 2)
        if verdict == x509facts.GOOD:
            return datetime.fromtimestamp(number(text, 1 << 40), UTC)
    except (Malformed, ValueError, OverflowError) as error:
        raise Strange("the judge talks nonsense") from error
    raise Temporary("the certificate that the server gave is no good", detail=text.decode("ascii", "replace"))


def _refuse_worse(wanted: Wanted, found: tuple[Facts, PrivateKeyTypes | None] | None, until: datetime) -> None:
    """A good certificate gives way to one that ends no sooner, for no fewer names."""
    if found is None or found[1] is None or found[0].self_signed or set(found[0].names) != set(wanted.names):
        return
    if until < found[0].until:
        raise Temporary(f"{wanted.path} stays", detail="the new certificate ends sooner than the one that is there")


def _install(path: str, text: bytes) -> None:
    if path != certfiles.DEFAULT and not os.path.isdir(certfiles.BY_NAME):
        place = next(place for place in layout.PLACES if place.path == certfiles.BY_NAME)
        layout.make_folder(place)
    target = os.path.realpath(path)  # a link stays one
    atomic.replace(target, lambda file: file.write(text), mode=layout.mode(certfiles.DEFAULT))
