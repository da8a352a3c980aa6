"""The command lines of the administrators' guides, typed as they are written, with qm's names and free ports.

A test is named for what the guide's row does.  The other half: Debian's ucspi-tcp runs our programs, and ours run its.
"""

import poplib
import re
import smtplib
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.harness.machine import Machine, Running, machine_in
from tests.harness.suite import HOST, wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("unshare", "nsenter", "setpriv", "useradd")]
DOMAIN: Final = "mail.test.example"
OTHER: Final = "127.0.0.2"  # an address of this host that no rule knows
SMTPD: Final = "tcpserver -H -R -c 255 -x tcp.smtp.cdb -u {uid} -g {gid} 0 0 qm-smtpd domain.name checkpassword true"
POPUP: Final = "tcpserver -H -R -c 255 0 0 qm-popup domain.name checkpassword qm-pop3d Maildir"
START: Final = "env - PATH={path} qm-start ./Maildir qm-log log"
Type = Callable[[str], Running]


class Place:
    """A machine where the guide has been followed up to now."""

    def __init__(self, machine: Machine, type: Type) -> None:
        self.machine = machine
        self.home = machine.home
        self.ann = machine.add_user("ann")
        machine.sh("printf '127.0.0.1:allow,RELAYCLIENT=\"\"\\n' >tcp.smtp")
        machine.sh("tcprules tcp.smtp.cdb tcp.smtp.tmp < tcp.smtp")
        self.start = type(START.format(path=f"{self.home}/bin:/usr/bin:/bin"))
        wait_for(self._serves, "send")
        ids = machine.uid("qmaild"), int(machine.succeed("id", "-g", "qmaild"))
        self.smtpd = type(SMTPD.format(uid=ids[0], gid=ids[1]))
        self.popup = type(POPUP)

    def _serves(self) -> bool:
        """send is the last that qm-start starts."""
        assert self.start.process.poll() is None, self.log() + self.start.log()
        return "qm-send: info: running" in self.log() or "status: local 0/" in self.log()

    def log(self) -> str:
        path = self.home / "log/current"
        return path.read_text(errors="replace") if path.exists() else ""

    def send(self, recipient: str, *, port: int = 0, source: str = HOST) -> tuple[int, bytes]:
        """The reply to RCPT; if that is good, a message follows."""
        client = smtplib.SMTP(HOST, port or self.smtpd.port, timeout=20, source_address=(source, 0))
        with client:
            client.ehlo("client.example")
            client.mail("bob@elsewhere.example")
            reply = client.rcpt(recipient)
            if reply[0] == 250:
                assert client.data(f"Subject: to {recipient}\r\n\r\nhello\r\n".encode())[0] == 250
            return reply

    def read(self, name: str, port: int = 0) -> list[bytes]:
        """The messages of a mailbox, by POP3."""
        client = poplib.POP3(HOST, port or self.popup.port, timeout=20)
        try:
            client.user(name)
            client.pass_("secret")
            return [b"\n".join(client.retr(number + 1)[1]) for number in range(client.stat()[0])]
        finally:
            client.quit()

    def wait_for(self, name: str, text: str) -> None:
        wait_for(lambda: any(text.encode() in message for message in self.read(name)), f"{text!r} for {name}")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        machine = stack.enter_context(machine_in(folder))
        machine.install("--skel")

        def type(line: str) -> Running:
            running = machine.begin(line)
            stack.callback(running.stop)
            return running

        place = Place(machine, type)
        yield place
        assert [place.popup.stop(), place.smtpd.stop(), place.start.stop()] == [0, 0, 0]
        assert "alert:" not in place.log() + place.smtpd.log() + place.popup.log()


@pytest.fixture
def type(place: Place) -> Iterator[Type]:
    """Type a line that goes on running until the test ends."""
    with ExitStack() as stack:

        def begin(line: str) -> Running:
            running = place.machine.begin(line)
            stack.callback(running.stop)
            return running

        yield begin


def test_relay_rules(place: Place) -> None:
    """127.0.0.1:allow,RELAYCLIENT="" lets that address send to everywhere, and no other."""
    assert place.send("friend@far-away.invalid")[0] == 250
    code, text = place.send("friend@far-away.invalid", source=OTHER)
    assert code in (550, 553), text
    assert place.send(f"ann@{DOMAIN}", source=OTHER)[0] == 250


def test_smtpd_start_and_pop3(place: Place) -> None:
    """The three lines of the guide make a mail system: what comes in by SMTP is read by POP3."""
    assert place.send(f"ann@{DOMAIN}", source=OTHER)[0] == 250
    place.wait_for("ann", f"Subject: to ann@{DOMAIN}")


def test_pop3_refuses_a_wrong_password(place: Place) -> None:
    """checkpassword of the guide's line says no."""
    client = poplib.POP3(HOST, place.popup.port, timeout=20)
    client.user("ann")
    with pytest.raises(poplib.error_proto):
        client.pass_("wrong")
    client.close()


def test_the_log_of_start(place: Place) -> None:
    """The logger of the start line gets send's lines."""
    place.send(f"ann@{DOMAIN}")
    wait_for(lambda: re.search(r"^@[0-9a-f]{24} .*new msg ", place.log(), re.MULTILINE), "a line in log/current")
    assert (place.home / "log/current").stat().st_uid == place.machine.uid("qmaill")


def test_ps_shows_them(place: Place) -> None:
    """ps shows tcpserver and our programs by their names, under their users."""
    lines = place.machine.succeed("ps", "-eo", "user:20,args")
    for user, name in [("root", "qm-start"), ("qmails", "qm-send"), ("qmailq", "qm-queued"), ("qmaild", "tcpserver")]:
        assert re.search(rf"^{user} .*\b{name}\b", lines, re.MULTILINE), name


def test_a_users_home_from_the_skeleton(place: Place) -> None:
    """maildirmake and a .qmail in the skeleton directory: a user who is added then has a Maildir, and gets mail."""
    machine = place.machine
    machine.sh("rm -r /etc/skel/Maildir /etc/skel/.qmail")
    machine.sh("maildirmake /etc/skel/Maildir; echo ./Maildir/ >/etc/skel/.qmail")
    machine.add_user("joe")
    assert place.send(f"joe@{DOMAIN}")[0] == 250
    place.wait_for("joe", f"Subject: to joe@{DOMAIN}")


def test_an_existing_user(place: Place) -> None:
    """The skeleton's Maildir and .qmail, copied and given to him, serve a user who was there before."""
    machine = place.machine
    home = machine.add_user("old", "--skel", "/var/empty")
    machine.sh(f"cp -r /etc/skel/Maildir /etc/skel/.qmail {home}; chown -R old {home}/Maildir {home}/.qmail")
    assert place.send(f"old@{DOMAIN}")[0] == 250
    place.wait_for("old", f"Subject: to old@{DOMAIN}")


@pytest.mark.parametrize("alias", ["root", "postmaster", "mailer-daemon"])
def test_aliases(place: Place, alias: str) -> None:
    """alias/.qmail-root gets the mail of root; that of postmaster and mailer-daemon follows it."""
    place.machine.sh("echo '&ann' >alias/.qmail-root")
    assert place.send(f"{alias}@{DOMAIN}")[0] == 250
    place.wait_for("ann", f"Subject: to {alias}@{DOMAIN}")


def test_an_extension(place: Place) -> None:
    """A .qmail-list of a user's gets the mail of his extension."""
    place.machine.succeed("sh", "-c", "umask 022; echo ./Maildir/ >.qmail-list", cwd=place.ann)
    place.machine.succeed("chown", "ann", place.ann / ".qmail-list")
    assert place.send(f"ann-list@{DOMAIN}")[0] == 250
    place.wait_for("ann", f"Subject: to ann-list@{DOMAIN}")


def test_control_files_by_hand(place: Place) -> None:
    """A domain in rcpthosts counts from the next connection, one in locals after a SIGHUP to start."""
    assert place.send("ann@second.example", source=OTHER)[0] != 250
    place.machine.sh("echo second.example >>control/rcpthosts; echo second.example >>control/locals")
    place.start.process.send_signal(1)
    wait_for(lambda: place.send("ann@second.example", source=OTHER)[0] == 250, "the new domain")
    place.wait_for("ann", "Subject: to ann@second.example")


def test_another_logger(place: Place) -> None:
    """The logger of the start line may be any program, with arguments; it runs as qmaill."""
    machine = place.machine
    other = machine.folder / "other"
    machine.succeed(place.home / "bin/qm", "install", DOMAIN, "--home", other)
    script = machine.folder / "mylogger"
    script.write_text("#!/bin/sh\nid -un >log/$1\nexec cat >>log/$1\n")
    script.chmod(0o755)
    line = f"env - QMHOME={other} PATH={place.home}/bin:/usr/bin:/bin qm-start ./Maildir/ {script} said"
    running = machine.begin(line)
    try:
        said = other / "log/said"
        wait_for(lambda: said.exists() and said.read_text().count("\n") > 1, "lines of the logger")
        assert said.read_text().startswith("qmaill\n")
    finally:
        assert running.stop() == 0


def test_rc(place: Place) -> None:
    """rc start starts smtp, pop and send, rc stop finds and stops them, anything else is answered with the usage."""
    machine = place.machine
    home = machine.folder / "rchome"
    machine.succeed(place.home / "bin/qm", "install", DOMAIN, "--home", home)
    services = (home / "services").read_text()
    (home / "services").write_text(re.sub(r" (?:0|127\.0\.0\.1) (?:25|110|465|587|995) ", f" {HOST} 0 ", services))
    rc = home / "rc"
    usage = machine.run(rc, "nonsense")
    assert (usage.returncode, usage.stdout[:10]) == (2, "usage: rc ")
    machine.succeed(rc, "start")
    assert [machine.run(rc, word).returncode for word in ("start", "status", "reload", "restart")] == [0, 0, 0, 0]
    status = machine.succeed(rc, "status")
    ports = [int(port) for port in re.findall(r", port (\d+)", status)]
    assert len(ports) == 5
    assert [machine.run(rc, word).returncode for word in ("stop", "stop", "status")] == [0, 0, 3]
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port))


def test_shells_read_mail(place: Place) -> None:
    """MAIL, MAILDIR and MAILTMP in the shell's rc: qail, elq and pinq bring what has come, then run the reader."""
    machine = place.machine
    profile = "export MAIL=$HOME/Mailbox MAILDIR=$HOME/Maildir MAILTMP=$HOME/.mailtmp\n"
    machine.sh(f"printf '{profile}' >{place.ann}/.profile")
    machine.sh("mkdir -p reader; cd reader; printf '#!/bin/sh\\ncat $MAIL\\n' >Mail; chmod 755 Mail")
    machine.sh("cd reader; ln -sf Mail elm; ln -sf Mail pine")
    for program in ("qail", "elq", "pinq"):
        assert place.send(f"ann@{DOMAIN}")[0] == 250
        wait_for(lambda: place.read("ann"), "the mail")
        line = f". ~/.profile; PATH={place.home}/bin:{place.home}/reader:/usr/bin:/bin; {program}"
        shown = machine.succeed("env", f"HOME={place.ann}", "sh", "-c", line, user="ann")
        assert f"Subject: to ann@{DOMAIN}" in shown
        assert place.read("ann") == []


# Every row of the guide, and the tests that type it.
ROWS: Final = {
    "relay rules by address, compiled": "test_guide.py::test_relay_rules",
    "smtpd under tcpserver, with AUTH": "test_guide.py::test_smtpd_start_and_pop3",
    "POP3 under tcpserver": "test_guide.py::test_smtpd_start_and_pop3",
    "start the rest": "test_guide.py::test_the_log_of_start test_guide.py::test_another_logger",
    "one start/stop script": "test_guide.py::test_rc test_rc.py::test_exit_codes_when_nothing_runs",
    "new users get a Maildir": "test_guide.py::test_a_users_home_from_the_skeleton "
    "test_install.py::test_new_users_get_a_maildir",
    "existing users": "test_guide.py::test_an_existing_user",
    "shells read mail": "test_guide.py::test_shells_read_mail",
    "control files": "test_guide.py::test_control_files_by_hand test_install.py::test_control_files_are_config_fasts",
    "aliases": "test_guide.py::test_aliases test_guide.py::test_an_extension",
    "replace sendmail": "test_install.py::test_replace_sendmail",
    "see that it runs": "test_guide.py::test_ps_shows_them test_titles.py::test_every_process",
}


def test_each_row_has_a_test() -> None:
    """What the list above names is there."""
    for names in ROWS.values():
        for name in names.split():
            file, _, test = name.partition("::")
            assert f"\ndef {test}(" in (Path(__file__).parent / file).read_text(), name


# Debian's ucspi-tcp


@pytest.mark.needs("rblsmtpd", "/usr/bin/tcpserver")
def test_their_tcpserver_runs_ours(place: Place, type: Type) -> None:
    """Debian's tcpserver takes the same words, and our rules, for our programs."""
    ids = f"-u {place.machine.uid('qmaild')} -g {place.machine.succeed('id', '-g', 'qmaild').strip()}"
    smtpd = type(f"/usr/bin/tcpserver -1 -H -R -c 255 -x tcp.smtp.cdb {ids} 0 0 qm-smtpd domain.name")
    popup = type("/usr/bin/tcpserver -1 -H -R -c 255 0 0 qm-popup domain.name checkpassword qm-pop3d Maildir")
    assert place.send(f"ann-their@{DOMAIN}", port=smtpd.port, source=OTHER)[0] == 550
    assert place.send("friend@far-away.invalid", port=smtpd.port, source=OTHER)[0] != 250
    assert place.send("friend@far-away.invalid", port=smtpd.port)[0] == 250
    assert place.send(f"postmaster@{DOMAIN}", port=smtpd.port, source=OTHER)[0] == 250
    assert isinstance(place.read("ann", popup.port), list)


@pytest.mark.needs("/usr/bin/tcprules")
def test_their_rules_are_ours(place: Place, type: Type) -> None:
    """What Debian's tcprules compiles, our tcpserver obeys; both compile the same."""
    machine = place.machine
    machine.sh("printf '%s:deny\\n127.:allow,RELAYCLIENT=\"\"\\n:deny\\n' " + OTHER + " >their")
    machine.sh("/usr/bin/tcprules their.cdb their.tmp < their; tcprules ours.cdb ours.tmp < their")
    assert machine.sh("tcprulescheck their.cdb") == machine.sh("tcprulescheck ours.cdb")
    smtpd = type("tcpserver -H -R -x their.cdb -u qmaild -g qmaild 0 0 qm-smtpd")
    assert place.send("friend@far-away.invalid", port=smtpd.port)[0] == 250
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        place.send("friend@far-away.invalid", port=smtpd.port, source=OTHER)


TCPSERVERS: Final = ["tcpserver", "/usr/bin/tcpserver"]  # a bare name is ours
BETWEEN: Final = [(server, folder) for server in TCPSERVERS for folder in ("", "/usr/bin/")]


def _begin(place: Place, type: Type, server: str, rest: str) -> Running:
    """A tcpserver of either make, as qmaild, which says its port."""
    ids = f"-u {place.machine.uid('qmaild')} -g {place.machine.succeed('id', '-g', 'qmaild').strip()}"
    return type(f"{server} {'-1 ' if '/' in server else ''}-H -R {ids} {rest}")


@pytest.mark.needs("/usr/bin/tcpserver", "/usr/bin/rblsmtpd")
@pytest.mark.parametrize(("server", "folder"), BETWEEN)
def test_rblsmtpd(place: Place, type: Type, server: str, folder: str) -> None:
    """Ours and Debian's, run by ours and Debian's: who is listed is refused, mail of others arrives."""
    machine = place.machine
    machine.sh('printf \'%s:allow,RBLSMTPD="-go away"\\n:allow,RBLSMTPD=""\\n\' ' + OTHER + " >rbl")
    machine.sh("tcprules rbl.cdb rbl.tmp < rbl")
    smtpd = _begin(place, type, server, f"-x rbl.cdb 0 0 {folder}rblsmtpd -r list.invalid qm-smtpd")
    assert place.send(f"ann@{DOMAIN}", port=smtpd.port, source=OTHER) == (553, b"go away")
    before = len(place.read("ann"))
    assert place.send(f"ann@{DOMAIN}", port=smtpd.port)[0] == 250
    wait_for(lambda: len(place.read("ann")) == before + 1, "the mail that was let through")


@pytest.mark.needs("/usr/bin/tcpserver", "/usr/bin/recordio")
@pytest.mark.parametrize(("server", "folder"), BETWEEN)
def test_recordio(place: Place, type: Type, server: str, folder: str) -> None:
    """Ours and Debian's, run by ours and Debian's: it writes the session down, and the mail goes on."""
    smtpd = _begin(place, type, server, f"0 0 {folder}recordio qm-smtpd")
    assert place.send(f"ann@{DOMAIN}", port=smtpd.port)[0] == 250
    wait_for(lambda: re.search(r" > 250 2\.0\.0 ", smtpd.log()), "the session in recordio's output")
    assert re.search(r" < RCPT TO:<ann@mail\.test\.example>", smtpd.log(), re.IGNORECASE)


@pytest.mark.needs("/usr/bin/tcpserver", "/usr/bin/tcpclient")
@pytest.mark.parametrize(
    ("server", "client"), [(s, c) for s in TCPSERVERS for c in ("tcpclient", "/usr/bin/tcpclient")]
)
def test_tcpclient(place: Place, type: Type, server: str, client: str) -> None:
    """Ours and Debian's read the greeting on descriptor 6 and write on 7, with ours and Debian's tcpserver."""
    talk = 'read line <&6; echo "$line"; printf \'QUIT\\r\\n\' >&7; read line <&6; echo "$line"'
    smtpd = _begin(place, type, server, "0 0 qm-smtpd")
    said = place.machine.succeed(client, "-H", "-R", HOST, str(smtpd.port), "sh", "-c", talk).splitlines()
    assert said[0].startswith(f"220 {DOMAIN}")
    assert said[1].startswith("221 ")
