"""config and config-fast as real programs (qmail.md section 19)."""

import ipaddress
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from qm.unix.interfaces import own_addresses
from tests.harness.barehome import OWNER, BareHome, bare_home
from tests.harness.peers import DnsAnswerer

FILES = ("me", "defaultdomain", "plusdomain", "locals", "rcpthosts")


@pytest.fixture(params=[None, pytest.param(OWNER, id="owner", marks=pytest.mark.needs_root)])
def home(request: pytest.FixtureRequest) -> Iterator[BareHome]:
    """A home of whoever runs the tests, and one of a user without privileges."""
    with bare_home(request.param) as home:
        yield home


def files(home: BareHome) -> dict[str, str]:
    paths = {name: home.folder / "control" / name for name in FILES}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in paths.values() if path.exists())
    return {name: path.read_text() for name, path in paths.items() if path.exists()}


def test_config_fast(home: BareHome) -> None:
    """The name goes into five files; locals and rcpthosts keep what they have, and get it once."""
    home.control("locals", "# ours\nother.example")
    for _ in range(2):
        done = home.run("config-fast", "Mail.Example.ORG.")
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"Your fully qualified host name is mail.example.org.\nPutting ")
        assert files(home) == {
            "me": "mail.example.org\n",
            "defaultdomain": "example.org\n",
            "plusdomain": "example.org\n",
            "locals": "# ours\nother.example\nmail.example.org\n",
            "rcpthosts": "mail.example.org\n",
        }
        for name in ("me", "defaultdomain", "plusdomain", "locals", "rcpthosts"):
            assert stat.S_IMODE((home.folder / "control" / name).stat().st_mode) == 0o644
    assert home.run("qm-showctl").returncode == 0


@pytest.mark.parametrize("words", [[], ["a.b", "c.d"], ["mail"], ["a b.c"], ["a..b"], ["-a.b"], [""], ["a.b\nc.d"]])
def test_no_name(home: BareHome, words: list[str]) -> None:
    """What is no full host name is refused, and nothing is changed."""
    before = files(home)
    assert home.run("config-fast", *words).returncode == 100
    assert files(home) == before


def test_without_a_home(home: BareHome) -> None:
    """Where control/ cannot be written it is exit 111."""
    (home.folder / "control").rename(home.folder / "gone")
    (home.folder / "control").write_text("")
    assert home.run("config-fast", "a.b").returncode == 111


Ask = Callable[[Mapping[str, Any]], DnsAnswerer]


@pytest.fixture
def dns(home: BareHome) -> Iterator[Ask]:
    """A DNS server of the test's, which control/dnsservers names."""
    running = []

    def start(script: Mapping[str, Any]) -> DnsAnswerer:
        running.append(DnsAnswerer(home.folder.parent, script))
        home.control("dnsservers", f"127.0.0.1:{running[-1].port}\n")
        return running[-1]

    yield start
    for server in running:
        server.stop()


def pointer(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer + " PTR"


def test_config(home: BareHome, dns: Ask) -> None:
    """The host's name is that of its first address; the names of all addresses are ours."""
    host = os.uname().nodename.lower()
    addresses = sorted({address.decode().partition("%")[0] for address in own_addresses()})
    script = {pointer(address): {"answer": [f"n{number}.b.example."]} for number, address in enumerate(addresses)}
    dns({f"{host} A": {"answer": ["192.0.2.1"]}, pointer("192.0.2.1"): {"answer": ["a.b.example."]}, **script})
    home.control("locals", "old.example\n")
    done = home.run("config")
    assert (done.returncode, done.stderr) == (0, b"")
    ours = "".join(sorted(["a.b.example\n", *(f"n{number}.b.example\n" for number in range(len(addresses)))]))
    assert files(home) == {
        "me": "a.b.example\n",
        "defaultdomain": "b.example\n",
        "plusdomain": "b.example\n",
        "locals": ours,
        "rcpthosts": ours,
    }


def test_an_address_that_dns_does_not_tell_of(home: BareHome, dns: Ask) -> None:
    """The name of an address that DNS does not tell now is left out, with a word; IPv6 addresses are asked for, too."""
    host = os.uname().nodename.lower()
    addresses = sorted({address.decode().partition("%")[0] for address in own_addresses()})
    lame = {pointer(address): {"do": "lame", "rcode": "SERVFAIL"} for address in addresses}
    six = {f"{host} AAAA": {"answer": ["2001:db8::1"]}, pointer("2001:db8::1"): {"answer": ["a.b.example."]}}
    dns({**lame, **six})
    done = home.run("config")
    assert done.returncode == 0
    for address in addresses:
        assert f"{address}: DNS does not answer. Its name is left out; run me again.\n".encode() in done.stdout
    assert files(home)["me"] == files(home)["locals"] == "a.b.example\n"


@pytest.mark.parametrize(("script", "code"), [({}, 100), ({" A": {"do": "lame", "rcode": "SERVFAIL"}}, 111)])
def test_config_without_a_name(home: BareHome, dns: Ask, script: Mapping[str, Any], code: int) -> None:
    """Without a name in DNS it is exit 100, without an answer 111; nothing is changed."""
    before = files(home)
    dns({os.uname().nodename.lower() + key: value for key, value in script.items()})
    assert home.run("config").returncode == code
    assert files(home) == before
