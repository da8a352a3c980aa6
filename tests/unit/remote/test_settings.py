"""remote's control files as one value."""

from pathlib import Path

import pytest

from qm.disk.control import Controls
from qm.errors import Temporary
from qm.remote import settings as module
from qm.remote.resolver import Server
from qm.remote.settings import CONTROLS, Config, Settings
from qm.wire.smtpclient import Step


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "control").mkdir()
    monkeypatch.chdir(tmp_path)
    control("me", "me.example")
    monkeypatch.setattr(module, "RESOLV_CONF", str(tmp_path / "resolv.conf"))
    return tmp_path


def control(name: str, text: str) -> None:
    Path("control", name).write_text(text + "\n")


def read() -> Settings:
    return module.settings(Controls(CONTROLS))


def test_defaults() -> None:
    """Without control files there are the time-outs of RFC 5321, our own name, and this host as DNS server."""
    found = read()
    assert (found.helohost, found.addresses_max, found.timeouts.connect) == (b"me.example", 10, 60)
    assert found.servers == (Server(2, "127.0.0.1", 53, trusted=True),)
    times = {step: found.timeouts.answers[step] for step in (Step.GREETING, Step.MAIL, Step.RCPT, Step.DATA, Step.TEXT)}
    assert times == {Step.GREETING: 300, Step.MAIL: 300, Step.RCPT: 300, Step.DATA: 120, Step.TEXT: 600}
    assert found.timeouts.send == 180


def test_timeoutremote_bounds_all() -> None:
    """timeoutremote is an upper bound, and no wait is shorter than a second."""
    control("timeoutremote", "7")
    control("timeoutmail", "0")
    found = read()
    assert found.timeouts.answers[Step.TEXT] == 7 and found.timeouts.answers[Step.MAIL] == 1


def test_servers() -> None:
    """dnsservers may name ports and IPv6; without it resolv.conf's first three count."""
    control("dnsservers", "192.0.2.1\n192.0.2.2:5353\n2001:db8::1\n[2001:db8::2]:54\n[2001:db8::3]")
    assert [(server.address, server.port) for server in read().servers] == [
        ("192.0.2.1", 53), ("192.0.2.2", 5353), ("2001:db8::1", 53), ("2001:db8::2", 54), ("2001:db8::3", 53),
    ]  # fmt: skip


def test_resolv_conf(home: Path) -> None:
    """Lines that make no sense are skipped, as the C library does."""
    lines = (
        "search x\nnameserver 192.0.2.1\nnameserver\nnameserver x.test\n nameserver 192.0.2.2 # and\noptions edns0\n"
    )
    (home / "resolv.conf").write_text(lines)
    assert [server.address for server in read().servers] == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dnsservers", "ns.test"),
        ("dnsservers", "192.0.2.1:x"),
        ("dnsservers", "192.0.2.1:99999"),
        ("helohost", "a b"),
        ("helohost", ""),
        ("ipfamily", "x.test:5"),
        ("moreipme", "x.test"),
        ("notipme", "192.0.2.1/33"),
        ("smtproutes", "x.test:relay:x"),
        ("timeoutdns", "soon"),
    ],
)
def test_broken(name: str, text: str) -> None:
    """A control file that makes no sense is refused by its name."""
    control(name, text)
    with pytest.raises(Temporary) as caught:
        read()
    assert f"control/{name}" in caught.value.detail


def test_a_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file takes effect; a broken one is said once, and the last good value holds."""
    monkeypatch.setattr(module, "RECHECK_S", 0.0)
    said = list[str]()
    config = Config(said.append)
    control("helohost", "new.example")
    assert config.current().helohost == b"new.example"
    control("helohost", "not good")
    assert config.current().helohost == b"new.example"
    assert config.current().helohost == b"new.example"
    assert len(said) == 1 and "control/helohost" in said[0]
