"""POP3 for clients that others wrote, and next to a server that others wrote."""

import os
import poplib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.pop3home import ALICE, LIMIT_S, NAME, ROOT_USER, TEXT, Home, pop3_home

DOVECOT = "/usr/lib/dovecot/pop3"  # needs("pop3") looks there too
MESSAGES = {
    "plain": b"Subject: plain\n\nbody\n",
    "crlf": b"Subject: crlf\r\n\r\nbody\r\n.\r\n",
    "mixed": b"Subject: mixed\r\n\nbody\n\r\nlast\n",
    "dots": b"Subject: dots\n\n.\n..\n...\n.a\n\n.",
    "partial": b"Subject: partial\n\nno end",
    "header": b"Subject: header only\n",
    "utf8": "Subject: 한글\n\n본문\n".encode(),
    "latin": b"Subject: \xe4\xf6\xfc\n\n\xff\xfe\x80\n",
    "long": b"Subject: long\n\n" + b"x" * 300_000 + b"\n",
    "lines": b"Subject: lines\n\n" + b".\n" * 100_000,
    "empty-lines": b"Subject: empty lines\n\n\n\n\n",
}


@pytest.fixture
def home() -> Iterator[Home]:
    with pop3_home() as made:
        yield made


def _run(home: Home, *argv: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "HOME": str(home.path)}
    return subprocess.run(argv, cwd=home.path, env=env, capture_output=True, timeout=60, check=False)


def _poplib(home: Home) -> poplib.POP3:
    port, _ = home.listen()
    return poplib.POP3("127.0.0.1", port, timeout=LIMIT_S)


def test_poplib(home: Home) -> None:
    """Python's poplib finds its way through every command that it knows."""
    home.deliver("1700000001.1.h", b"Subject: two\n\none\ntwo\n")
    client = _poplib(home)
    assert client.capa()["EXPIRE"] == ["NEVER"]
    assert client.utf8() == b"+OK UTF-8 it is"
    client.user("alice")
    with pytest.raises(poplib.error_proto) as refusal:
        client.pass_("wrong")
    assert b"[AUTH]" in refusal.value.args[0]
    client.user("alice")
    client.pass_("secret")
    assert client.stat() == (2, 35 + 26)
    assert client.list()[1] == [b"1 35", b"2 26"]
    assert client.uidl(2) == b"+OK 2 1700000001.1.h"
    assert b"\n".join(client.retr(1)[1]) + b"\n" == TEXT
    assert client.top(2, 1)[1] == [b"Subject: two", b"", b"one"]
    client.dele(1)
    client.noop()
    client.rset()
    client.dele(2)
    client.quit()
    assert home.messages() == [f"cur/{NAME}:2,"]


@pytest.mark.needs("curl")
def test_curl(home: Home) -> None:
    """curl lists, fetches and is told that a password is wrong."""
    port, _ = home.listen()
    url = f"pop3://127.0.0.1:{port}/"
    assert _run(home, "curl", "-sS", "--user", "alice:secret", url).stdout.split() == [b"1", b"35"]
    fetched = _run(home, "curl", "-sS", "--user", "alice:secret", url + "1")
    assert fetched.stdout.replace(b"\r\n", b"\n") == TEXT
    assert _run(home, "curl", "-sS", "--user", "alice:wrong", url).returncode == 67  # login denied


@pytest.mark.needs("fetchmail")
def test_fetchmail(home: Home) -> None:
    """fetchmail takes the message and removes it."""
    port, _ = home.listen()
    config = home.path / "fetchmailrc"
    config.write_text(
        f"poll 127.0.0.1 port {port} proto pop3 user alice pass secret sslproto '' no keep mda 'cat >>{home.path}/got'"
    )
    config.chmod(0o600)
    done = _run(home, "fetchmail", "-f", str(config), "--nosyslog", "--pidfile", str(home.path / "pid"))
    assert done.returncode == 0, done.stderr
    assert b".dot\nlast line\n" in (home.path / "got").read_bytes()
    assert home.messages() == []


@pytest.mark.needs("mpop")
def test_mpop(home: Home) -> None:
    """mpop, which pipelines, takes the message and removes it; another time it finds nothing new."""
    port, _ = home.listen()
    argv = ["mpop", "--host=127.0.0.1", f"--port={port}", "--user=alice", "--passwordeval=echo secret", "--tls=off"]
    argv += ["--auth=user", "--keep=off", f"--deliver=mbox,{home.path}/mbox", f"--uidls-file={home.path}/uidls"]
    done = _run(home, *argv)
    assert done.returncode == 0, done.stderr
    assert b".dot\nlast line\n" in (home.path / "mbox").read_bytes()
    assert home.messages() == []
    assert _run(home, *argv).returncode == 0


def _bodies(replies: bytes) -> list[bytes]:
    """Multi-line replies without their first lines, which differ."""
    return [reply.partition(b"\r\n")[2] for reply in replies.replace(b"-ERR", b"+OK").split(b"+OK")]


@pytest.mark.needs("pop3", "setpriv")
def test_next_to_dovecot(home: Home) -> None:
    """Dovecot's pop3d gives the same sizes and the same contents of the same Maildir, byte for byte."""
    for number, text in enumerate(MESSAGES.values()):
        home.deliver(f"17000001{number:02}.{number}.h", text)
    theirs = home.path / "theirs"
    shutil.copytree(home.path / "home/alice", theirs)
    for folder, _, files in os.walk(theirs):
        for name in ("", *files):
            os.chown(os.path.join(folder, name), ALICE, -1)
    numbers = range(1, len(MESSAGES) + 2)
    commands = [
        b"LIST",
        *(b"RETR %d" % n for n in numbers),
        *(b"TOP %d %d" % (n, k) for n in numbers for k in (0, 1, 3)),
    ]
    script = b"\r\n".join([*commands, b"QUIT", b""])
    client, _ = home.popup()
    client.say(b"USER alice\r\nPASS secret\r\n" + script)
    ours = client.rest().split(b"messages\r\n", 1)[1]
    config = home.path / "dovecot.conf"
    config.write_text(
        f"mail_location = maildir:{theirs}/Maildir\nfirst_valid_uid = 1000\nssl = no\nlog_path = /dev/stderr\n"
    )
    argv = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups"] if ROOT_USER else []
    done = subprocess.run(
        [*argv, DOVECOT, "-c", str(config)],
        env={"HOME": str(theirs), "USER": "alice", "MAIL": f"maildir:{theirs}/Maildir", "PATH": "/usr/bin:/bin"},
        cwd=theirs,
        input=script,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith(b"+OK"), done.stderr
    assert _bodies(ours) == _bodies(done.stdout)


def test_the_home_is_left_clean(home: Home) -> None:
    """A session leaves nothing in the Maildir but the lock file."""
    client = _poplib(home)
    client.user("alice")
    client.pass_("secret")
    client.quit()
    assert {path.name for path in Path(home.maildir).iterdir()} == {"tmp", "new", "cur", "pop3d.lock"}
