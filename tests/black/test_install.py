"""qm install and its kin, on a machine of their own, with the programs' real users."""

import os
import poplib
import re
import smtplib
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qm.disk import layout
from tests.harness.machine import Machine, machine_in, real_accounts, snapshot
from tests.harness.suite import BIN, HOST, ROOT, trusting, wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs("unshare", "nsenter", "setpriv", "useradd")]
ROLES = {"alias", "qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails", "qmailt"}
NOBODY = "65534"
NEXT = "Now:"  # what is left to the administrator begins so


@pytest.fixture
def machine(open_folder: Path) -> Iterator[Machine]:
    """A machine without a mail system."""
    before = real_accounts()
    with machine_in(open_folder) as machine:
        yield machine
    assert real_accounts() == before


@pytest.fixture(scope="module")
def installed() -> Iterator[Machine]:
    """A machine with a mail system; who changes it sets it right again."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with machine_in(Path(folder)) as machine:
            machine.install("--skel")
            machine.choose_ports()
            yield machine


def _actions(said: str) -> list[str]:
    return [line for line in said.partition(NEXT)[0].splitlines() if " is installed" not in line]


def test_dry_run_then_install_then_again(machine: Machine) -> None:
    """--dry-run shows exactly what install does, and does nothing; a second install does nothing."""
    done = machine.qm("install", "Mail.Test.Example.", "--skel", "--dry-run")
    assert done.returncode == 0, done.stdout
    *shown, last = done.stdout.splitlines()
    assert last == f"{len(shown)} actions; nothing has been done"
    assert not machine.home.exists()
    assert machine.written() <= {"sendmail"}
    assert _actions(machine.install("--skel")) == shown
    before = snapshot(machine.home), machine.written()
    again = machine.install("--skel")
    assert f"{machine.home} is installed; nothing was left to do" in again
    assert (snapshot(machine.home), machine.written()) == before
    assert NEXT in again


def test_the_roles_are_accounts(installed: Machine) -> None:
    """Each role has an account with a uid of its own, without login or home; only the queue's group is shared."""
    lines = installed.path("/etc/passwd").read_text().splitlines()
    accounts = {fields[0]: fields for fields in (line.split(":") for line in lines) if fields[0] in ROLES}
    assert set(accounts) == ROLES
    assert len({fields[2] for fields in accounts.values()}) == len(ROLES)
    shared = {name for name, fields in accounts.items() if fields[3] == accounts["qmailq"][3]}
    assert shared == {"qmailq", "qmails"}
    assert len({fields[3] for fields in accounts.values()}) == len(ROLES) - 1
    assert all(fields[6].endswith(("nologin", "false")) for fields in accounts.values())
    hashes = dict(line.split(":")[:2] for line in installed.path("/etc/shadow").read_text().splitlines())
    assert all(hashes[name].startswith(("!", "*")) for name in ROLES)


def test_owners_modes_and_no_setuid_bit(installed: Machine) -> None:
    """The tree is the table's; nothing in it changes who runs it, and nobody but root can write the programs."""
    for entry in layout.folders():
        status = (installed.home / entry.path).stat()
        owner = 0 if entry.owners[0] == "root" else installed.uid(entry.owners[0])
        assert (entry.path, status.st_uid, stat.S_IMODE(status.st_mode)) == (entry.path, owner, entry.mode)
    for path in installed.home.rglob("*"):
        status = path.lstat()
        assert not status.st_mode & 0o6000, path
        if "lib" in path.parts and not path.is_symlink():
            assert (status.st_uid, status.st_mode & 0o022) == (0, 0), path


def test_control_files_are_config_fasts(installed: Machine) -> None:
    """control/ says what config-fast writes for the host, and what the checkout ships."""
    control = installed.home / "control"
    names = ("me", "defaultdomain", "plusdomain", "locals", "rcpthosts")
    host, domain, plus = "mail.test.example\n", "test.example\n", "test.example\n"
    assert [(control / name).read_text() for name in names] == [host, domain, plus, host, host]
    assert {path.name for path in (ROOT / "control").iterdir()} <= {path.name for path in control.iterdir()}


def test_everybody_can_run_the_programs(installed: Machine) -> None:
    """The installed programs need nothing of the checkout, and no right but to read."""
    said = installed.succeed(installed.home / "bin/qm-showctl", user=NOBODY)
    assert said.startswith(f"home: {installed.home}\n")
    code = "import sys; sys.path.append(sys.argv[1]); import cdblib, dns.resolver, argon2; print(cdblib.__file__)"
    site = next((installed.home / "lib/.venv/lib").glob("python*/site-packages"))
    said = installed.succeed("/usr/bin/python3", "-ISc", code, site, user=NOBODY)
    assert said.startswith(str(installed.home))
    assert not list(site.glob("pytest*")), "only what the programs need"
    assert all(path.with_name("__pycache__").is_dir() for path in (installed.home / "lib/qm").rglob("*.py"))
    assert str(ROOT) not in "".join(_texts(installed.home))


def _texts(home: Path) -> Iterator[str]:
    yield from (path.read_text() for path in home.iterdir() if path.is_file() and path.suffix != ".cdb")
    yield from (path.read_text() for path in (home / "lib/bin").iterdir())


def test_mail_in_and_out(installed: Machine) -> None:
    """A new user of the machine gets mail by SMTP and reads it by POP3, each program under its own account."""
    if not (installed.folder / "ann").exists():
        installed.add_user("ann")
    ports = installed.start()
    try:
        with smtplib.SMTP(HOST, ports["smtp"], timeout=20) as smtp:
            smtp.sendmail("bob@elsewhere.example", ["ann@mail.test.example"], b"Subject: hello\r\n\r\nann\r\n")
            smtp.sendmail("bob@elsewhere.example", ["root@mail.test.example"], b"Subject: hello\r\n\r\nroot\r\n")
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.sendmail("bob@elsewhere.example", ["nobody-here@mail.test.example"], b"\r\n")
        assert b"Subject: hello" in b"\n".join(_first_message(ports["pop3"]))
        maildir = installed.home / "alias/Maildir/new"
        kept = wait_for(lambda: list(maildir.iterdir()), "mail for root")
        assert kept[0].stat().st_uid == installed.uid("alias")
        with socket.create_connection((HOST, ports["smtp"])) as client:
            client.recv(1)
            status = installed.succeed(installed.home / "rc", "status")
        assert re.search(r"^smtp .*, port \d+, 1 of 100 connections$", status, re.MULTILINE)
        assert "\nqueue: 0 new, 0 under way or waiting, 0 held, 0 bad\nthe certificate of mail.test.example" in status
        rows = dict(re.findall(r"^(\w+) .* as (\w+)", status, re.MULTILINE))
        assert rows == {
            **dict.fromkeys(("start", "tls", "pop3", "pop3s"), "root"),
            **dict.fromkeys(("smtp", "submit", "submits"), "qmaild"),
            "log": "qmaill",
        }
        assert "all is as it should be" in installed.succeed(installed.home / "bin/qm", "check-install")
        assert installed.run(installed.home / "bin/qm", "uninstall").returncode == 100, "it runs"
    finally:
        installed.succeed(installed.home / "rc", "stop")
    assert "alert:" not in (installed.home / "log/current").read_text()


def _first_message(port: int) -> list[bytes]:
    return wait_for(lambda: _messages(port), "mail for ann")[0]


def _messages(port: int) -> list[list[bytes]]:
    client = poplib.POP3(HOST, port, timeout=20)
    try:
        with pytest.raises(poplib.error_proto) as refusal:
            client.user("ann")
        assert refusal.value.args[0] == b"-ERR STLS first"
        client.stls(trusting())
        client.user("ann")
        client.pass_("secret")
        return [client.retr(number + 1)[1] for number in range(client.stat()[0])]
    finally:
        client.quit()


def _subjects(port: int) -> set[bytes]:
    return {line for lines in _messages(port) for line in lines if line.startswith(b"Subject: ")}


def test_a_life_without_the_checkout(machine: Machine) -> None:
    """What is installed needs no checkout; what was accepted survives the death of all processes; uninstall ends it."""
    machine.install("--skel", "--postmaster", "ann")
    machine.hide(ROOT)
    machine.add_user("ann")
    machine.choose_ports()
    ports = machine.start()
    with smtplib.SMTP(HOST, ports["smtp"], timeout=20) as smtp:
        for name in ("ann", "root", "postmaster"):
            smtp.sendmail("", [f"{name}@mail.test.example"], f"Subject: to {name}\r\n\r\n".encode())
    machine.lose_power()
    ports = machine.start()
    wanted = {b"Subject: to ann", b"Subject: to root", b"Subject: to postmaster"}
    wait_for(lambda: _subjects(ports["pop3"]) >= wanted, "all messages")
    assert _subjects(ports["pop3"]) == wanted
    machine.succeed(machine.home / "rc", "stop")
    again = machine.succeed(machine.home / "bin/qm", "install", "mail.test.example", "--skel")
    assert "nothing was left to do" in again
    machine.succeed(machine.home / "bin/qm", "uninstall")
    kept = len(list((machine.folder / "ann/Maildir").glob("*/*,*")))
    assert 3 <= kept <= 5  # a forward that power failed in comes twice (docs/INTERNALS.md)


@pytest.mark.parametrize(
    ("spoil", "mend", "said", "starts"),
    [
        ("chmod 777 queue", "chmod 751 queue", "queue: mode 0777, not 0751; chmod 0751", False),
        ("chmod 777 control", "chmod 755 control", "control: everybody can write there; chmod o-w", False),
        ("chgrp 12 queue; chmod 771 queue", "chgrp qmail queue; chmod 751 queue", "queue: group 12 can write", False),
        ("chown qmaild control", "chown root control", "control: owner qmaild, not root; chown root", True),
        ("chmod 666 control/me", "chmod 644 control/me", "control/me: mode 0666, not 0644; chmod 0644", True),
        ("touch control/smtpauth", "rm control/smtpauth", "smtpauth: mode 0644, not 0600; chmod 0600", True),
        ("chmod 4755 rc", "chmod 755 rc", "rc: mode 4755, not 0755; chmod 0755", True),
        ("mkfifo queue/cur/x", "rm queue/cur/x", "queue/cur/x: a FIFO, not a file", True),
        ("ln -s /etc/passwd queue/new/x", "rm queue/new/x", "queue/new/x: a link, not a file", True),
        ("mv alias a", "mv a alias", "alias: missing; qm install", True),
        ("echo >>lib/qm/start.py", "truncate -s -1 lib/qm/start.py", "qm/start.py: not the file that was inst", True),
        ("touch 'queue/new/\033[1m'", "rm queue/new/?*", "queue/new/?[1m: owner root, not qmailq; chown qm", True),
        ("mv lib/setup.cfg x", "mv x lib/setup.cfg", "lib/setup.cfg: no such file or directory", True),
        ("chmod o+w lib/bin", "chmod o-w lib/bin", "lib/bin: mode 0757: others can write it", True),
        ("chmod 777 ..", "chmod 755 ..", ": everybody can write there; chmod o-w", False),
        ("chmod 700 ..", "chmod 755 ..", ": others cannot search it, so they do not reach the programs; chmod", True),
    ],
)
def test_a_planted_difference_is_named(installed: Machine, spoil: str, mend: str, said: str, starts: bool) -> None:
    """check-install names what is not as it should be, and how to mend it; where others can write, nothing starts."""
    installed.sh(spoil)
    try:
        done = installed.run(BIN / "qm", "check-install", "--home", installed.home)
        assert done.returncode == 1, done.stdout
        assert said in done.stdout
        assert ("DANGER" in done.stdout) is not starts
        if not starts:
            start = installed.run(installed.home / "rc", "start")
            assert start.returncode == 1
            assert "this home is not safe" in start.stdout
    finally:
        installed.sh(mend)
    assert installed.qm("check-install").returncode == 0


def test_a_damaged_installation_is_mended(machine: Machine) -> None:
    """install over what a crash or a mistake has left sets that right, and keeps what was configured."""
    machine.install()
    machine.sh("chmod 777 queue; chown qmaild control; rm -r run; echo 7 >control/maxhops; echo >>lib/qm/start.py")
    machine.sh("echo ./Mailbox >alias/.qmail-root")
    said = machine.install("--postmaster", "ann@test.example")
    assert "copy the programs" in said
    assert f"write {machine.home}/alias/.qmail-root: &ann@test.example" in said
    assert machine.qm("check-install").returncode == 0
    assert (machine.home / "control/maxhops").read_text() == "7\n"
    assert (machine.home / "alias/.qmail-root").read_text() == "&ann@test.example\n"
    machine.sh("mv lib lib.old")  # a crash between the two renames
    assert _actions(machine.install()) == [line for line in said.splitlines() if line.startswith("copy the programs")]
    assert machine.qm("check-install").returncode == 0
    assert not (machine.home / "lib.old").exists()


def test_uninstall_keeps_mail_and_queue(machine: Machine) -> None:
    """uninstall takes away what install has put into the system; mail, queue and configuration stay for a later one."""
    machine.install("--skel")
    machine.choose_ports()
    queued = machine.home / "queue/new/kept"
    queued.write_text("a message")
    before = snapshot(machine.home, without=("lib", "bin", "rc"))
    accounts = machine.path("/etc/passwd").read_text()
    dry = machine.run(machine.home / "bin/qm", "uninstall", "--dry-run")
    assert dry.returncode == 0
    said = machine.succeed(machine.home / "bin/qm", "uninstall")
    assert said == dry.stdout
    assert "    userdel qmaild\n    userdel qmaill\n" in said
    assert f"    rm -r {machine.home}\n" in said
    after = snapshot(machine.home)
    assert {name: after[name][:4] for name in after if name != "."} == {
        name: before[name][:4] for name in before if name != "."
    }
    assert not {name for name in machine.written() if "qm" in name or ("skel" in name and "Maildir" in name)}
    assert machine.path("/etc/passwd").read_text() == accounts
    assert machine.run(BIN / "qm", "uninstall", "--home", machine.home).returncode == 100
    machine.install()
    assert queued.read_text() == "a message"


def test_users_with_other_names(machine: Machine) -> None:
    """Where the names are another mail system's, install refuses, and --prefix-users chooses others."""
    machine.succeed("groupadd", "qmail")
    machine.succeed("useradd", "--system", "--gid", "qmail", "qmailr")
    done = machine.qm("install", "mail.test.example")
    assert done.returncode == 100
    assert "user qmailr is not ours" in done.stdout
    assert "--prefix-users" in done.stdout
    assert not machine.home.exists()
    dry = machine.qm("install", "mail.test.example", "--prefix-users", "mx", "--dry-run").stdout.splitlines()
    assert _actions(machine.install("--prefix-users", "mx")) == dry[:-1]
    roles = (machine.home / "control/roles").read_text()
    assert f"qmaild:{machine.uid('mxd')}:" in roles
    assert f"alias:{machine.uid('mxalias')}:" in roles
    assert (machine.home / "queue").stat().st_uid == machine.uid("mxq")
    machine.choose_ports()
    machine.start()
    assert " as mxd, port" in machine.succeed(machine.home / "rc", "status")
    assert machine.qm("check-install").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["mail"], 2, "mail is not a full host name"),
        (["mail..example"], 2, "is not a full host name"),
        (["mail.example;rm"], 2, "is not a full host name"),
        ([], 2, "Missing argument 'HOST'"),
        (["mail.example", "--home", "/"], 2, "below /"),
        (["mail.example", "--home", "/a b"], 2, "letters, digits"),
        (["mail.example", "--prefix-users", "a:b"], 2, "user names begin with"),
        (["mail.example", "--postmaster", "|rm"], 2, "neither a user's name nor an address"),
        (["mail.example", "--postmaster", "a b"], 2, "neither a user's name nor an address"),
        (["mail.example", "--home", "/usr/share"], 100, "/usr/share is not qm's"),
        (["mail.example"], 100, "is another host's"),
    ],
)
def test_a_wrong_order_changes_nothing(installed: Machine, words: list[str], code: int, said: str) -> None:
    """What makes no sense, another host, or another's directory is refused before anything is done."""
    before = snapshot(installed.home), installed.written()
    home = [] if "--home" in words else ["--home", str(installed.home)]
    done = installed.run(BIN / "qm", "install", *words, *home)
    assert done.returncode == code, done.stdout
    assert said in done.stdout
    assert (snapshot(installed.home), installed.written()) == before


def test_only_root_installs(installed: Machine) -> None:
    """Who is not root may see what would be done, and no more."""
    assert installed.run(installed.home / "bin/qm", "install", "mail.test.example", user=NOBODY).returncode == 100
    done = installed.run(installed.home / "bin/qm", "install", "mail.test.example", "--dry-run", user=NOBODY)
    assert done.returncode == 0, done.stdout


def test_new_users_get_a_maildir(installed: Machine) -> None:
    """With --skel the skeleton has a Maildir and a .qmail, which a new user gets as his own."""
    home = installed.add_user("joe")
    assert (home / ".qmail").read_text() == "./Maildir/\n"
    for name in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
        status = (home / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (installed.uid("joe"), 0o700)


def test_manual_and_unit(installed: Machine) -> None:
    """The manual pages are where man looks, and systemd gets a unit that runs this home."""
    page = installed.path("/usr/local/share/man/man8/qm.8")
    assert os.readlink(page) == str(installed.home / "lib/docs/man/qm.8")
    if installed.path("/etc/systemd/system").is_dir():
        unit = installed.path("/etc/systemd/system/qm-qm.service").read_text()
        assert f"ExecStart={installed.home}/rc run\n" in unit
        assert "/var/qm" not in unit


@pytest.fixture
def with_sendmail(installed: Machine) -> Iterator[Machine]:
    """A machine with another's sendmail; ours may be one that is not written yet."""
    ours = installed.home / "lib/bin/sendmail"
    made = not ours.exists()
    if made:
        ours.write_text("#!/bin/sh\necho ours\n")
        ours.chmod(0o755)
    installed.sh("printf '#!/bin/sh\\necho theirs\\n' >/usr/sbin/sendmail; chmod 755 /usr/sbin/sendmail")
    installed.sh("ln -s ../sbin/sendmail /usr/lib/sendmail")
    yield installed
    installed.sh("rm -f /usr/sbin/sendmail* /usr/lib/sendmail*")
    if made:
        ours.unlink()


def test_replace_sendmail(with_sendmail: Machine) -> None:
    """Both names of sendmail are ours after replace-sendmail, and what they were before after --undo."""
    machine = with_sendmail
    for _ in range(2):
        assert machine.qm("replace-sendmail").returncode == 0
        for name in ("/usr/sbin/sendmail", "/usr/lib/sendmail"):
            assert machine.sh(f"readlink -f {name}").strip() == str(machine.home / "lib/bin/sendmail")
    assert machine.sh("/usr/sbin/sendmail.before-qm") == "theirs\n"
    for _ in range(2):
        assert machine.qm("replace-sendmail", "--undo").returncode == 0
        assert machine.sh("/usr/lib/sendmail; /usr/sbin/sendmail") == "theirs\ntheirs\n"
    assert machine.sh("ls /usr/sbin/sendmail*") == "/usr/sbin/sendmail\n"


def test_replace_sendmail_after_an_upgrade(with_sendmail: Machine) -> None:
    """What a package has put over our link since is what --undo leaves, and the next replacement keeps."""
    machine = with_sendmail
    machine.qm("replace-sendmail")
    machine.sh("rm /usr/sbin/sendmail; printf '#!/bin/sh\\necho newer\\n' >/usr/sbin/sendmail")
    machine.sh("chmod 755 /usr/sbin/sendmail")
    assert machine.qm("replace-sendmail", "--undo").returncode == 0
    assert machine.sh("/usr/sbin/sendmail") == "newer\n"
    machine.qm("replace-sendmail")
    machine.qm("replace-sendmail", "--undo")
    assert machine.sh("/usr/sbin/sendmail") == "newer\n"
