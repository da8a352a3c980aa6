"""The table of a home's places, and the home compared with it."""

import os
import stat
from pathlib import Path

import pytest

from qm.disk import layout, queue, survey
from qm.disk.layout import Kind, Made
from qm.errors import Temporary
from qm.unix import privs


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home as it is made, whose roles are numbers when root makes it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "control").mkdir()
    roles = [f"{name}:{number}:{number}\n" for number, name in enumerate(privs.ROLES, 64201)]
    (tmp_path / "control/roles").write_text("".join(roles))
    (tmp_path / "control/roles").chmod(0o644)
    layout.make()
    queue.make()
    _give_queue(tmp_path)
    return tmp_path


def _give_queue(home: Path) -> None:
    """What the queue service makes as qmailq."""
    if os.geteuid() == 0:
        for path in (home / "queue").iterdir():
            os.chown(path, 64205, 64205)


def _texts(home: Path) -> list[str]:
    return [f"{os.path.relpath(d.path, home)}: {d.text}; {d.mend}" for d in survey.differences(str(home))]


def test_a_home_that_is_made_is_right(home: Path) -> None:
    """What make and the queue service make does not differ from the table."""
    assert _texts(home) == []


def test_nothing_is_for_everybody_to_write() -> None:
    """Nobody else may write anything in the table but the sockets, and no mode has a set-user-ID bit."""
    loose = [place.path for place in layout.PLACES if place.mode & 0o002]
    assert loose == ["users/socket", "tls/socket", "queue/socket"]
    assert not [place for place in layout.PLACES if place.mode & 0o7000]


def test_paths_are_unique_and_parents_come_first() -> None:
    """A path has one row, after the row of the directory that it is in."""
    paths = [place.path for place in layout.PLACES]
    assert len(set(paths)) == len(paths)
    for index, path in enumerate(paths):
        assert (os.path.dirname(path) or ".") in [".", *paths[:index]]


def test_make_sets_right_what_is_there(home: Path) -> None:
    """make changes a mode that is wrong, and leaves what is in the directories."""
    (home / "control/me").write_text("me.example\n")
    (home / "control").chmod(0o777)
    layout.make()
    assert stat.S_IMODE((home / "control").stat().st_mode) == 0o755
    assert (home / "control/me").read_text() == "me.example\n"


def test_make_follows_no_link(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link in the place of a directory is refused; nothing changes where it leads."""
    other = tmp_path_factory.mktemp("other")
    other.chmod(0o700)
    (home / "log").rmdir()
    (home / "log").symlink_to(other)
    with pytest.raises(Temporary, match="log"):
        layout.make()
    assert stat.S_IMODE(other.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("path", "mode", "text"),
    [
        ("queue", 0o711, "queue: mode 0711, not 0751; chmod 0751 "),
        ("queue/tmp", 0o777, "queue/tmp: mode 0777, not 0770; chmod 0770 "),
        ("queue/trigger", 0o666, "queue/trigger: mode 0666, not 0660; chmod 0660 "),
        ("control/roles", 0o664, "control/roles: mode 0664, not 0644; chmod 0644 "),
        ("control/roles", 0o4700, "control/roles: mode 4700, not 0600; chmod 0600 "),
    ],
)
def test_a_wrong_mode_is_named(home: Path, path: str, mode: int, text: str) -> None:
    """A directory has one mode, a file at most the one of the table."""
    (home / path).chmod(mode)
    assert _texts(home) == [text + str(home / path)]


def test_a_stricter_file_is_no_difference(home: Path) -> None:
    """An administrator may give less than the table."""
    (home / "control/roles").chmod(0o600)
    assert _texts(home) == []


def test_a_row_of_its_own_goes_before_a_pattern(home: Path) -> None:
    """What has a row is judged by that alone: control/servercerts is a directory among control files."""
    (home / "control/servercerts").mkdir(mode=0o755)
    (home / "control/servercerts/x.test.pem").touch(0o600)
    (home / "control/servercert.pem").touch(0o600)
    assert _texts(home) == []
    (home / "control/servercert.pem").chmod(0o666)
    (home / "control/servercerts/x.test.pem").chmod(0o640)
    assert [text.partition(";")[0] for text in _texts(home)] == [
        "control/servercert.pem: mode 0666, not 0600",
        "control/servercerts/x.test.pem: mode 0640, not 0600",
    ]


def test_what_is_missing_is_named(home: Path) -> None:
    """What the home must have is missed; what comes with use is not."""
    (home / "run").rmdir()
    (home / "queue/trigger").unlink()
    assert _texts(home) == ["run: missing; qm install", "queue/trigger: missing; rc start"]


def test_another_kind_is_named(home: Path) -> None:
    """A FIFO, a directory or a link where a file belongs is named, and never opened."""
    os.mkfifo(home / "queue/cur/fifo")
    (home / "queue/new/directory").mkdir()
    (home / "queue/state/link").symlink_to("/dev/null")
    assert _texts(home) == [
        "queue/new/directory: a directory, not a file; ",
        "queue/cur/fifo: a FIFO, not a file; ",
        *_link_of(home),
    ]


def _link_of(home: Path) -> list[str]:
    """A link of the owner's own is what it leads to; one of another's is a link."""
    what = "a device" if os.geteuid() else "a link"
    return [f"queue/state/link: {what}, not a file; "]


def test_an_administrators_link_is_what_it_leads_to(home: Path) -> None:
    """A control file may be a link of its owner's."""
    (home / "control/rcpthosts").symlink_to("roles")
    assert _texts(home) == []


@pytest.mark.parametrize("target", ["link", "nothing"])
def test_a_link_that_leads_nowhere_is_named(home: Path, target: str) -> None:
    """A link to itself, or to what is not there, is a link; the comparison goes on."""
    (home / "control/link").symlink_to(target)
    assert _texts(home) == ["control/link: a link, not a file; "]


@pytest.mark.needs_root
def test_a_wrong_owner_is_named(home: Path) -> None:
    """Owner and group of a directory count, of a file the owner."""
    os.chown(home / "queue", 0, 12)
    os.chown(home / "control/roles", 64202, 12)
    assert [text.partition(";")[0] for text in _texts(home)] == [
        "control/roles: owner 64202, not root",
        "queue: owner root, not 64205",
        "queue: group man, not 64205",
    ]


def test_every_directory_that_is_made_at_the_start_is_the_queues() -> None:
    """What the service makes is below queue/, so that its owner can."""
    made = [place for place in layout.PLACES if place.made is Made.START]
    folders = {queue.TMP, queue.NEW, queue.CUR, queue.STATE, queue.HELD, queue.BAD}
    assert {place.path for place in made} == {*folders, queue.TRIGGER}
    assert {place.kind for place in made} == {Kind.FOLDER, Kind.FIFO}
