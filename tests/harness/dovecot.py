"""A Dovecot of the test's own: configuration, users and sockets in one directory, on no port."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.harness.waiting import wait_for

UID: Final = 64124  # of everybody's mail
_CONF: Final = """\
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/log
protocols =
ssl = no
auth_mechanisms = plain login cram-md5 scram-sha-256
auth_failure_delay = 0
auth_username_format = %Ln
first_valid_uid = 1000
mail_location = maildir:{home}/mail/%n
passdb {{
  driver = passwd-file
  args = {home}/passwd
}}
userdb {{
  driver = passwd-file
  args = {home}/passwd
}}
service auth {{
  unix_listener auth-client {{
    mode = 0666
  }}
}}
"""

LMTP: Final = """\
protocols = lmtp
mail_plugins = quota
plugin {{
  quota = maildir:User quota
  quota_rule = *:bytes=1M
}}
protocol lmtp {{
  mail_plugins = quota
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
}}
"""


class Dovecot:
    def __init__(self, home: Path, users: dict[str, str], more: str = "") -> None:
        """*users*: names, and what a line of the passwd-file has after the name, as ``{PLAIN}secret``."""
        self.home = home
        self.sockets = home / "run"
        self.mail = home / "mail"
        for folder in (home, self.sockets, self.mail):
            folder.mkdir()
            folder.chmod(0o755)
        os.chown(self.mail, UID, UID)
        lines = [f"{name}:{password}:{UID}:{UID}::{self.mail}\n" for name, password in users.items()]
        (home / "passwd").write_text("".join(lines))
        shutil.chown(home / "passwd", "dovecot", "dovecot")
        (home / "dovecot.conf").write_text(_CONF.format(home=home) + more.format(home=home))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Dovecot":
        self._process = subprocess.Popen(["dovecot", "-F", "-c", str(self.home / "dovecot.conf")])
        wait_for(lambda: (self.sockets / "auth-userdb").exists(), "Dovecot's sockets")
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def messages(self, name: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.mail / name).glob("new/*"))]

    def log(self) -> str:
        return (self.home / "log").read_text()
