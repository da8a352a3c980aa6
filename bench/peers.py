"""Private instances of the peers: Debian's Postfix and Dovecot, in their default modes, on ports that the kernel chose.

Both keep their fsync, and both write a log, as the suite does.  They run as root and drop as they always do; mail is
of uid MAIL_UID.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bench import processes
from tests.harness.suite import DOMAIN, Suite

MAIL_UID: Final = 64990  # owns the peers' mailboxes
READY_S: Final = 20.0


class Peer(NamedTuple):
    name: str
    port: int
    maildir: Path
    pid: int  # the root of its processes
    queue: tuple[Path, ...] = ()  # where messages wait
    helpers: tuple[int, ...] = ()  # roots of what works for it
    stls_port: int = 0  # where POP3 begins in clear, if *port* begins under TLS

    def delivered(self) -> int:
        return len(os.listdir(self.maildir / "new"))

    def cpu_s(self) -> float:
        return sum(map(processes.cpu_s, (self.pid, *self.helpers)))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(predicate: Callable[[], bool], limit_s: float = READY_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not predicate():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"bench: not within {limit_s:g} s: {predicate}")
        time.sleep(0.005)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def make_maildir(path: Path) -> Path:
    for folder in (path, *(path / name for name in ("tmp", "new", "cur"))):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, MAIL_UID, MAIL_UID)
    return path


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="qm-bench-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def qm(
    service: str = "smtp", controls: Mapping[str, str] = {}, env: Mapping[str, str] = {}
) -> Iterator[tuple[Suite, Peer]]:
    with folder() as path:
        suite = Suite(path / "home")
        for name, text in controls.items():
            suite.control(name, text)
        suite.env.update(env)
        suite.start()
        try:
            queue = tuple(suite.home / "queue" / name for name in ("new", "cur"))
            yield suite, Peer("qm", suite.port(service), suite.maildir("ann"), suite.supervisor_pid, queue)
        finally:
            suite.stop()


_MAIN_CF: Final = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/maillog
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.test.example
mydestination = {domain}
alias_maps = hash:{home}/aliases
default_privs = nobody
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
"""


def _master_cf(port: int) -> str:
    """Debian's, without chroot, on *port*; with the logger of maillog_file."""
    lines = []
    for line in Path("/etc/postfix/master.cf").read_text().splitlines():
        fields = line.split()
        if line[:1].isalpha() and len(fields) >= 8:
            fields[4] = "n"
            if fields[:2] == ["smtp", "inet"]:
                fields[0] = f"127.0.0.1:{port}"
            line = " ".join(fields)
        lines.append(line)
    if not any(line.startswith("postlog") for line in lines):
        lines.append("postlog unix-dgram n - n - 1 postlogd")
    return "\n".join(lines) + "\n"


def postfix_tls(certificate: Path) -> str:
    """Lines for main.cf; *certificate* has the key too.  A line is logged for each handshake, sessions are kept."""
    return (
        f"smtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {certificate}\nsmtpd_tls_security_level = may\n"
        "smtpd_tls_loglevel = 1\nsmtpd_tls_session_cache_database = btree:${data_directory}/smtpd_scache\n"
    )


def postfix_sasl(auth: Path) -> str:
    """Lines for main.cf: passwords are checked by the Dovecot whose socket is *auth*."""
    return (
        f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = unix:{auth}\n"
        "smtpd_tls_auth_only = yes\nsmtpd_relay_restrictions = permit_sasl_authenticated,reject\n"
    )


@contextmanager
def postfix(more: str = "", helpers: tuple[int, ...] = ()) -> Iterator[Peer]:
    """*more* are lines for main.cf; *helpers* are roots of processes that work for it."""
    with folder() as home:
        port = free_port()
        config = home / "config"
        config.mkdir()
        (home / "data").mkdir()
        shutil.chown(home / "data", "postfix", "postfix")
        (home / "queue").mkdir()
        maildir = make_maildir(home / "mail" / "ann" / "Maildir")
        (home / "aliases").write_text(f"ann: {maildir}/\n")
        subprocess.run(["postalias", f"hash:{home}/aliases"], check=True)  # noqa: S607
        subprocess.run(["chown", "-R", "nobody", str(home / "mail")], check=True)  # noqa: S607
        (config / "main.cf").write_text(_MAIN_CF.format(home=home, domain=DOMAIN, uid=MAIL_UID) + more)
        (config / "master.cf").write_text(_master_cf(port))
        for name in ("dynamicmaps.cf", "postfix-files"):
            if Path("/etc/postfix", name).exists():
                shutil.copy(Path("/etc/postfix", name), config)
        for verb in ("check", "start"):
            subprocess.run(["postfix", "-c", str(config), verb], check=True, capture_output=True)  # noqa: S607
        try:
            wait_until(lambda: _listens(port))
            pid = int((home / "queue" / "pid" / "master.pid").read_text())
            queue = tuple(home / "queue" / name for name in ("maildrop", "incoming", "active", "deferred"))
            yield Peer("postfix", port, maildir, pid, queue, helpers)
        finally:
            subprocess.run(["postfix", "-c", str(config), "stop"], check=False, capture_output=True)  # noqa: S607
            wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


_DOVECOT_CONF: Final = """\
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/log
protocols = {protocols}
listen = 127.0.0.1
{ssl}
disable_plaintext_auth = no
mail_location = maildir:{home}/mail/%u/Maildir
first_valid_uid = 1000
passdb {{
  driver = passwd-file
  args = {home}/passwd
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={home}/mail/%u
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {port_tls}
  }}
}}
"""
_FOR_POSTFIX: Final = """\
service auth {{
  unix_listener {home}/smtp-auth {{
    mode = 0660
    group = postfix
  }}
}}
"""


@contextmanager
def _dovecot(passwords: dict[str, str], config: str, ready: Callable[[Path], bool]) -> Iterator[tuple[Path, int]]:
    """Its folder and pid; *config* is formatted with what it may need."""
    with folder() as home:
        (home / "run").mkdir()
        (home / "passwd").write_text("".join(f"{user}:{value}\n" for user, value in passwords.items()))
        shutil.chown(home / "passwd", "dovecot", "dovecot")
        for user in passwords:
            os.makedirs(home / "mail" / user, exist_ok=True)
            os.chown(home / "mail" / user, MAIL_UID, MAIL_UID)
            make_maildir(home / "mail" / user / "Maildir")
        (home / "dovecot.conf").write_text(config.replace("@HOME@", str(home)))
        process = subprocess.Popen(["dovecot", "-F", "-c", str(home / "dovecot.conf")])  # noqa: S607
        try:
            wait_until(lambda: ready(home))
            yield home, process.pid
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def dovecot(passwords: dict[str, str], certificate: Path | None = None) -> Iterator[Peer]:
    """*passwords*: user to ``{SCHEME}value``.

    With a *certificate*, and its key in the same file, nobody logs in without TLS, and there is a port for STLS too.
    """
    port = free_port()
    ssl = f"ssl = required\nssl_cert = <{certificate}\nssl_key = <{certificate}" if certificate else "ssl = no"
    plain, under_tls = (free_port(), port) if certificate else (port, 0)
    config = _DOVECOT_CONF.format(
        home="@HOME@", protocols="pop3", ssl=ssl, port=plain, port_tls=under_tls, uid=MAIL_UID
    )
    with _dovecot(passwords, config, lambda _: _listens(port)) as (home, pid):
        yield Peer("dovecot", port, home / "mail", pid, stls_port=plain if certificate else 0)


@contextmanager
def dovecot_auth(passwords: dict[str, str]) -> Iterator[tuple[Path, int]]:
    """Passwords for a Postfix: the socket that it asks, and the pid."""
    config = _DOVECOT_CONF.format(home="@HOME@", protocols="", ssl="ssl = no", port=0, port_tls=0, uid=MAIL_UID)
    config += _FOR_POSTFIX.format(home="@HOME@")
    with _dovecot(passwords, config, lambda home: (home / "smtp-auth").exists()) as (home, pid):
        yield home / "smtp-auth", pid


def version(*command: str) -> str:
    """The first line of what *command* prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    return (done.stdout or done.stderr).splitlines()[0] if done.stdout or done.stderr else "unknown"
