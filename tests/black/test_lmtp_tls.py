"""LMTP under STARTTLS to Dovecot, by a host and port of control/lmtproutes, under each level of control/tlspolicy."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from qm.wire.delivery import Result
from tests.black.test_remote_dane import OTHER, signed
from tests.harness.barehome import BareHome
from tests.harness.certificates import Authority, tlsa
from tests.harness.dovecot import Dovecot
from tests.harness.outbound import Outbound
from tests.harness.peers import DnsAnswerer, accepts, free_port
from tests.harness.rspawn import rspawn
from tests.harness.suite import Suite
from tests.harness.waiting import wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("dovecot", "/usr/lib/dovecot/lmtp")]
LEVELS: Final = ("", "none", "may", "encrypt", "verify", "dane")
_CONF: Final = """\
protocols = lmtp
ssl = {ssl}
ssl_cert = <{certificate}
ssl_key = <{certificate}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


class Store:
    """A Dovecot with ann's mail, whose LMTP is on a port of lmtp.test; with TLS, if it has a *certificate*."""

    def __init__(self, folder: Path, certificate: Path, *, ssl: bool = True) -> None:
        self.port = free_port()
        conf = _CONF.format(ssl="yes" if ssl else "no", certificate=certificate, port=self.port)
        self.dovecot = Dovecot(folder, {"ann": "{PLAIN}x"}, conf.replace("{", "{{").replace("}", "}}")).start()
        wait_for(lambda: accepts(self.port), "Dovecot's LMTP")

    def how(self) -> list[str]:
        """With what protocol each message came, by Dovecot's own Received fields."""
        text = b"\n".join(self.dovecot.messages("ann")).decode()
        return re.findall(r"^\t(?:by \S+ )?with (LMTPS?)$", text, re.MULTILINE)


class World:
    """rspawn's home, an authority that it trusts, and a DNS that knows lmtp.test."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder, self.place = folder, place
        self.home = BareHome(folder / "home", None)
        (folder / "ca").mkdir()
        self.ca = Authority(folder / "ca")
        shutil.copy(self.ca.path, self.home.folder / "roots.pem")
        self.home.control("tlsroots", "roots.pem\n")

    @contextmanager
    def store(self, *names: str, ssl: bool = True) -> Iterator[Store]:
        """Dovecot, with a certificate for *names*."""
        self.certificate = self.ca.issue(*names or ("lmtp.test",))
        certificate = shutil.copy(self.certificate, self.place)
        store = Store(self.place / f"dovecot{len(list(self.place.iterdir()))}", Path(certificate), ssl=ssl)
        try:
            yield store
        finally:
            store.dovecot.stop()

    def deliver(self, store: Store, policy: str, record: str = "", server: str = "lmtp.test") -> Result:
        """To ann, through a rspawn of its own."""
        names: dict[str, Any] = {"lmtp.test A": signed("127.0.0.1")}
        if record:
            names[f"_{store.port}._tcp.lmtp.test TLSA"] = signed(record)
        self.home.control("lmtproutes", f"x.test:{server}:{store.port}\n")
        self.home.control("tlspolicy", f"{server}:{policy}\n" if policy else "#\n")
        with DnsAnswerer(self.folder, names) as dns:
            self.home.control("dnsservers", f"127.0.0.1:{dns.port}\n")
            with rspawn(self.home) as spawner:
                return spawner.result(b"ann@x.test")


@pytest.fixture
def world(tmp_path: Path, open_folder: Path) -> World:
    return World(tmp_path, open_folder)


def test_each_level(world: World) -> None:
    """Dovecot takes the mail under TLS, in clear where the level is none, and says so itself."""
    with world.store() as store:
        for count, level in enumerate(LEVELS, 1):
            result = world.deliver(store, level, tlsa(world.certificate) if level == "dane" else "")
            assert result.letter == b"K", (level, result.text)
            assert (b"The connection had TLSv1.3 " in result.text) == (level != "none"), level
            assert len(store.how()) == count
        assert store.how().count("LMTP") == 1 and store.how().count("LMTPS") == len(LEVELS) - 1


@pytest.mark.parametrize("level", LEVELS)
def test_without_tls(world: World, level: str) -> None:
    """Where Dovecot has no TLS it gets mail in clear if nobody demands more, else none."""
    with world.store(ssl=False) as store:
        result = world.deliver(store, level, tlsa(world.certificate) if level == "dane" else "")
        delivered = level in ("", "none", "may")
        assert (result.letter, store.how()) == ((b"K", ["LMTP"]) if delivered else (b"Z", [])), result.text
    assert delivered or b"it does not offer STARTTLS" in result.text


WRONG: Final = {
    "another name": ("verify", "", b"its certificate is for another name"),
    "another key": ("dane", OTHER, b"its certificate is not that of its TLSA records"),
    "no record": ("dane", "", b"it has no TLSA records that count"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_another_server(world: World, kind: str) -> None:
    """Who is not the server that the policy wants gets nothing."""
    level, record, why = WRONG[kind]
    with world.store("elsewhere.test") as store:
        result = world.deliver(store, level, record)
        assert (result.letter, result.status, store.how()) == (b"Z", b"4.7.5", []), result.text
    assert why in result.text


@pytest.mark.parametrize("server", ["127.0.0.1", "[127.0.0.1]", "[IPv6:::ffff:127.0.0.1]"])
def test_a_server_that_is_an_address(world: World, server: str) -> None:
    """The rule of an address wants that address in the certificate, and takes no name for it."""
    with world.store("127.0.0.1") as store:
        assert world.deliver(store, "verify", server=server).letter == b"K"
        assert world.deliver(store, f"verify {server}", server=server).letter == b"K"
        assert store.how() == ["LMTPS"] * 2
        assert world.deliver(store, "verify 127.0.0.2", server=server).status == b"4.7.5"


def test_the_whole_road(world: World, make_suite: Callable[[], Suite]) -> None:
    """Messages from the queue arrive once each, with a verdict for each recipient."""
    suite = make_suite()
    shutil.copy(world.ca.path, suite.home / "roots.pem")
    (suite.home / "roots.pem").chmod(0o644)
    with world.store() as store, DnsAnswerer(world.folder, {"lmtp.test A": {"answer": ["127.0.0.1"]}}) as dns:
        out = Outbound(
            suite, dnsservers=f"127.0.0.1:{dns.port}", tlspolicy="lmtp.test:verify", tlsroots="roots.pem",
            lmtproutes=f"x.test:lmtp.test:{store.port}",
        )  # fmt: skip
        out.send("ann@x.test")
        wait_for(store.how, "the first message")
        out.send("ann@x.test", "nobody@x.test")
        assert out.report().failed == {"nobody@x.test"}
        suite.wait_until_idle()
        assert store.how() == ["LMTPS", "LMTPS"]
