"""A validating resolver of the test's own: Debian's unbound, which trusts the key of a zone test. that is signed here.

unbound has the zones in files and finds out what they are worth as if they had come from the network: what is signed
has AD, what is forged SERVFAIL.  Nothing leaves this machine.
"""

import datetime
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdataset
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.zone import Zone

from tests.harness.peers import free_port
from tests.harness.waiting import LIMIT_S, wait_for

TOP: Final = "test"
_ALGORITHM: Final = dns.dnssec.Algorithm.ECDSAP256SHA256
_HEAD: Final = "@ 300 SOA ns.test. root.test. 1 3600 600 86400 300\n@ 300 NS ns.test.\n"
_DAY: Final = datetime.timedelta(days=1)
_CONF: Final = """\
server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: "unbound.log"
  verbosity: 1
  val-log-level: 2
  interface: {address}@{port}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  do-ip6: no
  num-threads: 1
  module-config: "validator iterator"
  local-zone: "." static
  local-zone: "test." transparent
  trust-anchor: "{anchor}"
remote-control:
  control-enable: no
"""
_ZONE: Final = """\
auth-zone:
  name: "{name}."
  zonefile: "{name}.zone"
  for-downstream: no
  for-upstream: yes
  fallback-enabled: no
"""


class _Key(NamedTuple):
    private: ec.EllipticCurvePrivateKey
    public: DNSKEY


class Domain(NamedTuple):
    """A zone below test.; *records* are lines of a zone file."""

    records: str
    signed: bool = True
    promised: bool = True  # the zone above has its DS record
    forged: tuple[str, ...] = ()  # ``mx A``: the signature of this is not that of the key
    signed_for: tuple[int, int] = (-1, 1)  # days from now


def _key() -> _Key:
    private = ec.generate_private_key(ec.SECP256R1())
    return _Key(private, dns.dnssec.make_dnskey(private.public_key(), _ALGORITHM, flags=257))


def _forge(zone: Zone, what: str) -> None:
    """Change the signature of ``NAME TYPE``."""
    name, rdtype = what.split()
    name = f"{zone.origin}" if name == "@" else f"{name}.{zone.origin}"
    found = zone.find_rdataset(name, dns.rdatatype.RRSIG, covers=dns.rdatatype.from_text(rdtype))
    (signature,) = found
    other = bytes([signature.signature[0] ^ 1]) + signature.signature[1:]
    forged = dns.rdataset.from_rdata(found.ttl, signature.replace(signature=other))
    zone.replace_rdataset(name, forged)


def _zone(name: str, domain: Domain, key: _Key) -> str:
    zone = dns.zone.from_text(_HEAD + domain.records, origin=f"{name}.", relativize=False)
    if domain.signed:
        now = datetime.datetime.now(datetime.UTC)
        begin, end = (now + days * _DAY for days in domain.signed_for)
        dns.dnssec.sign_zone(zone, keys=[key], inception=begin, expiration=end)
    for what in domain.forged:
        _forge(zone, what)
    return zone.to_text(relativize=False)


class Unbound:
    """Serves *domains*, a zone each, on a port of *address*."""

    def __init__(self, folder: Path, domains: Mapping[str, Domain], address: str = "127.0.0.1", port: int = 0) -> None:
        self.address, self.port = address, port or free_port(address)
        self._folder = folder
        folder.mkdir()
        keys = {name: _key() for name in [TOP, *domains]}
        zones = {TOP: Domain(_delegations(domains, keys)), **domains}
        for name, domain in zones.items():
            (folder / f"{name}.zone").write_text(_zone(name, domain, keys[name]))
        anchor = f"{TOP}. DS {_ds(TOP, keys[TOP])}"
        conf = _CONF.format(folder=folder, address=address, port=self.port, anchor=anchor)
        (folder / "unbound.conf").write_text(conf + "".join(_ZONE.format(name=name) for name in zones))
        # Debian's AppArmor profile is for the program in its place, and knows no directories but its own.
        program = shutil.copy("/usr/sbin/unbound", folder)
        self.process = subprocess.Popen([program, "-c", str(folder / "unbound.conf")], stdin=subprocess.DEVNULL)
        try:
            wait_for(self._serves, "unbound")
        except BaseException:
            self.stop()
            raise

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.log()
        return bool(self.ask(f"{TOP}. SOA", 0.2))

    def ask(self, what: str, limit_s: float = LIMIT_S) -> str:
        """What it says to ``NAME TYPE``: the rcode, with AD where that is set; nothing if it is silent."""
        query = dns.message.make_query(*what.split())
        query.flags |= dns.flags.AD
        try:
            answer = dns.query.udp(query, self.address, timeout=limit_s, port=self.port)
        except (OSError, dns.exception.DNSException):
            return ""
        return dns.rcode.to_text(answer.rcode()) + " AD" * bool(answer.flags & dns.flags.AD)

    def log(self) -> str:
        path = self._folder / "unbound.log"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _delegations(domains: Mapping[str, Domain], keys: Mapping[str, _Key]) -> str:
    lines = ["ns 300 A 127.0.0.1"]
    for name, domain in domains.items():
        lines.append(f"{name}. 300 NS ns.test.")
        if domain.promised:
            lines.append(f"{name}. 300 DS {_ds(name, keys[name])}")
    return "\n".join(lines) + "\n"


def _ds(name: str, key: _Key) -> str:
    return dns.dnssec.make_ds(f"{name}.", key.public, "SHA256").to_text()
