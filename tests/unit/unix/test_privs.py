"""Changing identity: completely, for good, or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qm.errors import Temporary
from qm.unix import privs
from qm.unix.privs import Ids

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # pytest-xdist has threads

SOMEBODY = Ids(60001, 60002)


def _in_child(action: Callable[[], bool]) -> int:
    """Run *action* in a child; its exit code is 0 if it returns true, 1 if not, 3 for Temporary."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if action() else 1
        except Temporary:
            code = 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.needs_root
def test_become_drops_everything() -> None:
    """After become all uids, gids and the supplementary groups are the new ones, and root cannot be had back."""

    def check() -> bool:
        os.setgroups([0, 4, 27])
        privs.become(SOMEBODY)
        ids = (os.getresuid(), os.getresgid(), os.getgroups()) == ((60001,) * 3, (60002,) * 3, [60002])
        for regain in (os.setuid, os.seteuid, os.setgid, os.setegid):
            try:
                regain(0)
                return False
            except PermissionError:
                pass
        return ids and not privs.is_root()

    assert _in_child(check) == 0


@pytest.mark.needs_root
def test_nobody_becomes_root() -> None:
    """uid 0 is no identity to drop to."""
    assert _in_child(lambda: privs.become(Ids(0, 60002)) is None) == 3


@pytest.mark.needs_root
def test_who_is_not_root_can_only_stay() -> None:
    """Without root, become is a no-op for our own uid and an error for any other."""

    def check() -> bool:
        privs.become(SOMEBODY)
        privs.become(Ids(SOMEBODY.uid, 1))
        privs.become(Ids(1, 1))
        return True

    assert _in_child(check) == 3


@pytest.mark.needs_root
def test_join_changes_the_groups_and_not_the_user() -> None:
    """As tcpserver -g without -u: one group, the same user."""

    def check() -> bool:
        os.setgroups([0, 4, 27])
        privs.join(60002)
        return (os.getresuid(), os.getresgid(), os.getgroups()) == ((0,) * 3, (60002,) * 3, [60002])

    assert _in_child(check) == 0


@pytest.mark.needs_root
def test_join_needs_the_right_to() -> None:
    """Who is not root may join the own group only."""

    def check() -> bool:
        privs.become(SOMEBODY)
        privs.join(SOMEBODY.gid)
        privs.join(4)
        return True

    assert _in_child(check) == 3


@pytest.mark.needs_root
def test_roles_come_from_the_file(tmp_path: Path) -> None:
    """control/roles has the numbers; comments and empty lines are none."""
    path = tmp_path / "roles"
    path.write_text("# ours\n\nqmaild:60001:60010\nqmailq:60002:60011\n")
    assert privs.role("qmaild", str(path)) == Ids(60001, 60010)
    assert privs.queue_gid(str(path)) == 60011


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "line", ["qmaild", "qmaild:1", "qmaild:x:1", "qmaild:1:2:3", "qmaild:0:1", "qmaild:1:0", "é:1:1"]
)
def test_a_broken_roles_file_is_refused_by_line(tmp_path: Path, line: str) -> None:
    """No role is guessed, and none is root."""
    path = tmp_path / "roles"
    path.write_text(f"qmailq:60002:60011\n{line}\n")
    with pytest.raises(Temporary, match=":2: "):
        privs.role("qmaild", str(path))


@pytest.mark.needs_root
def test_a_role_that_nothing_tells_is_an_error(tmp_path: Path) -> None:
    """Without file and account there is no role."""
    with pytest.raises(Temporary, match="qmailr is neither in"):
        privs.role("qmailr", str(tmp_path / "none"))


def test_only_known_roles_are_asked_for() -> None:
    """A misspelt role is a bug, not an identity."""
    with pytest.raises(ValueError):
        privs.role("root")


@pytest.mark.needs_root
def test_without_root_every_role_is_ourselves() -> None:
    """A private system of one user has one identity."""

    def check() -> bool:
        privs.become(SOMEBODY)
        return {privs.role(name, "/nonexistent") for name in privs.ROLES} == {SOMEBODY}

    assert _in_child(check) == 0


def test_users_and_groups_by_name_and_number() -> None:
    """Numbers need no account; an unknown name is an error."""
    assert (privs.user_id("root"), privs.user_id("4711")) == (0, 4711)
    assert (privs.group_id("root"), privs.group_id("4711")) == (0, 4711)
    for find in (privs.user_id, privs.group_id):
        with pytest.raises(Temporary, match="no-such-name"):
            find("no-such-name")
    assert privs.account(0) == "root"
    assert privs.account(4_000_000) == "4000000"
