"""This machine's accounts, asked of libc."""

import os
import pwd
import subprocess
import sys

import pytest

from qm.unix import accounts

_NO_DESCRIPTORS = """
import resource, sys
from qm.errors import Temporary
from qm.unix import accounts
assert accounts.account(b"root")
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    print(accounts.account(b"root"))
except Temporary as error:
    print("later:", error)
"""


def test_the_same_as_the_pwd_module() -> None:
    """Every account is found as the pwd module finds it."""
    for known in pwd.getpwall():
        found = accounts.account(known.pw_name.encode())
        assert found is not None
        assert (found.uid, found.gid) == pwd.getpwnam(known.pw_name)[2:4]
        assert os.fsdecode(found.home) == pwd.getpwnam(known.pw_name).pw_dir


@pytest.mark.parametrize("name", [b"", b"no such account", b"a:b", b"a\nb", b"\xff", b"x" * 70000])
def test_no_such_account(name: bytes) -> None:
    """What is no account is not found."""
    assert accounts.account(name) is None


def test_no_answer_is_not_no() -> None:
    """Without a descriptor left to read the account database, an account is not unknown but cannot be asked for now."""
    assert _python(_NO_DESCRIPTORS).startswith(b"later: cannot look up accounts now")


def _python(code: str, uid: int | None = None) -> bytes:
    """What a program says, run from the checkout as *uid*."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{code}"
    result = subprocess.run(
        ["/usr/bin/python3", "-ISc", code], capture_output=True, timeout=30, check=False, user=uid, group=uid,
        extra_groups=None if uid is None else [],
    )  # fmt: skip
    return result.stdout + result.stderr


@pytest.mark.needs_root
def test_shadow() -> None:
    """Root reads an account's password entry; a name without one has none."""
    found = accounts.shadow(b"root")
    assert found is not None
    assert found.changed_day > 0
    assert accounts.shadow(b"no such account") is None


_NO_RIGHT = """
from qm.errors import Temporary
from qm.unix import accounts
try:
    print(accounts.shadow(b"root"))
except Temporary as error:
    print("later:", error)
"""


def test_shadow_is_not_for_all() -> None:
    """Who may not read the passwords gets none: a failure, or what another source of libc's makes of it."""
    result = _python(_NO_RIGHT, None if os.geteuid() else 65534)
    assert result.startswith((b"later: cannot look up accounts now", b"None", b"Shadow(hash=b'!*'")), result


def test_crypt() -> None:
    """crypt(3) with its published example; a setting that it does not know gives nothing."""
    # as openssl passwd -5 makes it
    want = b"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
    assert accounts.crypt(b"Hello world!", b"$5$saltstring") == want
    assert accounts.crypt(b"Hello world!", want) == want
    for setting in (b"", b"*", b"!", b"$x$", b"$6$rounds=1$:", b"{PLAIN}x"):
        assert accounts.crypt(b"x", setting) is None
