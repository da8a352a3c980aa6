"""README's words on a fresh machine of Debian's: a root directory of its own, its own loopback and no other network."""

import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.harness.freshmachine import PACKAGES, FreshMachine, fresh_machine
from tests.harness.suite import ROOT
from tests.harness.waiting import wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("debootstrap", "unshare", "nsenter", "swaks", "curl")]
HERE: Final = "127.0.0.1"
HOST: Final = "mail.example.org"  # README's
PORTS: Final = {25, 110, 465, 587, 995}
RIGHTS: Final = (  # capabilities of a container, as Podman's containers.conf(5) has them by default
    *("chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service"),
    *("setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
)


class Readme:
    """What an administrator types, as README has it."""

    def __init__(self) -> None:
        _, _, section = (ROOT / "README.md").read_text().partition("\n## Install it for real\n")
        section = section.partition("\n## ")[0]
        blocks = [text.splitlines() for text in section.split("\n\n") if text.startswith("    ")]
        self.install, self.uninstall = [[line.strip() for line in lines] for lines in blocks]
        (self.maildir,) = re.findall(r"types `([^`]*)`", section)


@pytest.fixture
def machine() -> Iterator[FreshMachine]:
    with tempfile.TemporaryDirectory() as folder, fresh_machine(Path(folder)) as machine:
        yield machine


def test_the_words_of_readme(machine: FreshMachine) -> None:
    """They make a mail system that takes, delivers and hands out mail, outlives a loss of power, and goes again."""
    readme = Readme()
    _add_user(machine, "bob")
    _install(machine, readme)
    _add_user(machine, "ann")
    _exchange_mail(machine)
    machine.lose_power()
    machine.boot()
    machine.type("/var/qm/rc start")
    _deliver_what_waited(machine, readme)
    _run_in_the_foreground(machine)
    machine.boot()
    machine.type("/var/qm/rc start")
    _uninstall(machine, readme)


def _add_user(machine: FreshMachine, name: str) -> None:
    machine.type(f"useradd --create-home --shell /bin/sh {name}")
    machine.type("chpasswd", input=f"{name}:secret\n")


def _install(machine: FreshMachine, readme: Readme) -> None:
    dry, install, *rest = readme.install
    shown = [line for line in machine.type(dry).splitlines() if not line.startswith(("making .venv", "installing "))]
    assert shown[-1] == f"{len(shown) - 1} actions; nothing has been done"
    assert not machine.path("/var/qm").exists()
    assert machine.type(install).partition("/var/qm is installed\nNow:")[0].splitlines() == shown[:-1]
    heard = [machine.type(line) for line in rest]
    assert {int(port) for port in re.findall(r"ready, port (\d+)", heard[0])} == PORTS
    assert "all is as it should be" in "".join(heard)


def _exchange_mail(machine: FreshMachine) -> None:
    """ann gets mail and reads it; what she sends to bob, who has no Maildir, and elsewhere waits."""
    _send(machine, 25, "--from", "carol@elsewhere.example", "--to", f"ann@{HOST}", "--body", "by SMTP")
    login = ("--tls", "--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "secret")
    _send(machine, 587, "--from", f"ann@{HOST}", "--to", f"bob@{HOST}", "--body", "by submission", *login)
    machine.type("/usr/sbin/sendmail carol@elsewhere.example", "ann", "Subject: far\n\nfar\n")
    assert "by SMTP" in wait_for(lambda: _read(machine, "pop3s", "ann"), "mail for ann")
    assert "by SMTP" in _read(machine, "pop3", "ann")
    wait_for(lambda: len(_queued(machine)) == 2 and len(_states(machine)) == 2, "two messages that wait")


def _send(machine: FreshMachine, port: int, *words: str) -> None:
    done = machine.visit("swaks", "--server", HERE, "--port", str(port), *words)
    assert done.returncode == 0, done.stdout


def _read(machine: FreshMachine, protocol: str, name: str) -> str:
    """The first message, or nothing."""
    secured = ("--ssl-reqd", "--insecure")
    done = machine.visit("curl", "--silent", *secured, "--user", f"{name}:secret", f"{protocol}://{HERE}/1")
    return done.stdout if done.returncode == 0 else ""


def _queued(machine: FreshMachine) -> list[str]:
    return os.listdir(machine.path("/var/qm/queue/cur"))


def _states(machine: FreshMachine) -> list[str]:
    return os.listdir(machine.path("/var/qm/queue/state"))


def _bobs(machine: FreshMachine) -> list[Path]:
    """What is in bob's Maildir, seen or not."""
    return list(machine.path("/home/bob/Maildir").glob("[nc]*/*"))


def _deliver_what_waited(machine: FreshMachine, readme: Readme) -> None:
    machine.type(readme.maildir, "bob")
    machine.type("kill -ALRM $(cat /var/qm/run/lock)")
    assert "by submission" in wait_for(lambda: _read(machine, "pop3s", "bob"), "mail for bob")
    assert "by SMTP" in _read(machine, "pop3", "ann")
    wait_for(lambda: len(_queued(machine)) == 1, "one message that waits")
    assert machine.type("/var/qm/rc stop") == "stopped\n"
    assert machine.processes() == ["sleep infinity"]
    assert "alert:" not in machine.path("/var/qm/log/current").read_text()
    machine.lose_power()


def _run_in_the_foreground(machine: FreshMachine) -> None:
    """As a container's first process, with no more rights than there; it tells when it serves, and ends in order."""
    confined = ("setpriv", f"--bounding-set=-all,{','.join(f'+{name}' for name in RIGHTS)}", "--")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(machine.shared / "notify"))
        manager.settimeout(30)
        machine.boot(*confined, "/var/qm/rc", "run", env={"NOTIFY_SOCKET": "/mnt/notify"})
        assert manager.recv(200).startswith(b"READY=1\n")
        _send(machine, 25, "--from", "carol@elsewhere.example", "--to", f"bob@{HOST}", "--body", "in the foreground")
        wait_for(lambda: len(_bobs(machine)) == 2, "more mail for bob")
        os.kill(machine.init, signal.SIGTERM)
        assert manager.recv(200) == b"STOPPING=1"
        assert machine.wait() == 0


def test_the_container_is_such_a_machine() -> None:
    """The Containerfile begins with the same packages, and makes known the ports that the services listen on."""
    text = (ROOT / "packaging/Containerfile").read_text()
    (packages,) = re.findall(r"install -y --no-install-recommends (.*) \\\n", text)
    assert packages.split() == list(PACKAGES)
    (ports,) = re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE)
    assert set(map(int, ports.split())) == PORTS


def _uninstall(machine: FreshMachine, readme: Readme) -> None:
    queued, passwd = _queued(machine), machine.path("/etc/passwd").read_text()
    said = "".join(machine.type(line) for line in readme.uninstall)
    assert machine.path("/etc/passwd").read_text() == passwd
    leave = [line.strip() for line in said.partition("To remove these too:\n")[2].splitlines()]
    assert leave.pop() == "rm -r /var/qm"
    for line in leave:
        machine.type(line)
    assert not re.search("qm", machine.path("/etc/passwd").read_text() + machine.path("/etc/group").read_text())
    names = machine.written("/etc") | machine.written("/usr")
    assert not {name for name in names if "qm" in name or "sendmail" in name or "Maildir" in name}
    assert _queued(machine) == queued
    assert len(_bobs(machine)) == 2
    assert machine.processes() == ["sleep infinity"]
