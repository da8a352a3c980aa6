"""A Postfix of the test's own: an instance with its configuration, queue and data in one directory."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.harness.waiting import wait_for

_MAIN_CF: Final = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/maillog
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.test.example
default_privs = nobody
"""


class Postfix:
    def __init__(self, home: Path, more: str, services: str = "", prefix: Sequence[str] = ()) -> None:
        """*more* are lines for main.cf, *services* for master.cf; *prefix* is what its commands are run by."""
        self.home = home
        self._prefix = prefix
        self.config = home / "config"
        self.queue = home / "queue"
        for folder in (home, self.config, home / "data", self.queue):
            folder.mkdir()
            folder.chmod(0o755)
        shutil.chown(home / "data", "postfix", "postfix")
        (self.config / "main.cf").write_text(_MAIN_CF.format(home=home) + more)
        (self.config / "master.cf").write_text(_master_cf() + services)
        for name in ("dynamicmaps.cf", "postfix-files"):
            if Path("/etc/postfix", name).exists():
                shutil.copy(Path("/etc/postfix", name), self.config)
        self.pid = 0

    def run(self, *argv: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self._prefix, *argv], input=input, capture_output=True, timeout=60, check=True)

    def start(self) -> "Postfix":
        for verb in ("check", "start"):
            self.run("postfix", "-c", str(self.config), verb)
        path = self.queue / "pid/master.pid"
        wait_for(lambda: path.exists() and path.read_text().strip(), "master.pid")
        self.pid = int(path.read_text())
        return self

    def send(self, message: bytes, *words: str) -> None:
        """By its sendmail, with these words of its command line."""
        self.run("sendmail", "-C", str(self.config), *words, input=message)

    def log(self) -> str:
        return (self.home / "maillog").read_text()

    def files(self, queue: str) -> list[Path]:
        return sorted(path for path in (self.queue / queue).rglob("*") if path.is_file())

    def deferred(self) -> list[Path]:
        return self.files("deferred")

    def is_idle(self) -> bool:
        """Whether all that has come is deferred, on hold or done; its reports, too."""
        return not any(self.files(queue) for queue in ("maildrop", "incoming", "active"))  # the way that mail goes

    def stop(self, verb: str = "stop") -> None:
        """With the verb abort, in the middle of what it does."""
        if self.pid:
            self.run("postfix", "-c", str(self.config), verb)
            wait_for(lambda: not os.path.exists(f"/proc/{self.pid}"), "the end of Postfix")
            self.pid = 0


def _master_cf() -> str:
    """Debian's, without chroot and without listeners but ours; with the logger of maillog_file."""
    lines = []
    for line in Path("/etc/postfix/master.cf").read_text().splitlines():
        fields = line.split()
        if line[:1].isalpha() and len(fields) >= 8:
            if fields[1] == "inet":
                continue
            fields[4] = "n"
            line = " ".join(fields)
        lines.append(line)
    if not any(line.startswith("postlog") for line in lines):
        lines.append("postlog unix-dgram n - n - 1 postlogd")
    return "\n".join(lines) + "\n"
