"""A home that others could replace is not used."""

import os
from pathlib import Path

import pytest

from qm.disk import layout, safety
from qm.errors import Temporary

GROUP = 12  # nobody's own


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home below a directory of the test's own."""
    home = tmp_path / "above" / "home"
    home.mkdir(parents=True)
    for place in layout.folders():
        (home / place.path).mkdir(exist_ok=True)
        (home / place.path).chmod(place.mode)
    return home


def _fatal(home: Path) -> list[str]:
    return [os.path.relpath(danger.path, home) for danger in safety.dangers(str(home)) if danger.fatal]


def test_a_usual_home_is_safe(home: Path) -> None:
    """A home below /tmp is safe: its sticky bit keeps others from replacing it."""
    assert _fatal(home) == []


@pytest.mark.parametrize("path", ["queue", "control", "users", "alias", ".", ".."])
def test_everybody_can_write(home: Path, path: str) -> None:
    """A directory of the home, or one above it, that everybody can write is fatal, and named with what helps."""
    (home / path).chmod(0o777)
    assert _fatal(home) == [path]
    with pytest.raises(Temporary, match=r"everybody can write there; chmod o-w /"):
        safety.refuse_dangers(str(home))


@pytest.mark.parametrize(("path", "fatal"), [("..", []), ("queue", ["queue"]), (".", ["."])])
def test_a_sticky_bit_helps_above_only(home: Path, path: str, fatal: list[str]) -> None:
    """With a sticky bit others cannot replace what is in a directory above; into the home's own they could add."""
    (home / path).chmod(0o1777)
    assert _fatal(home) == fatal


def test_a_directory_of_the_queue(home: Path) -> None:
    """queue/tmp is its group's to write, and no more."""
    (home / "queue/tmp").mkdir()
    (home / "queue/tmp").chmod(0o770)
    assert _fatal(home) == []
    (home / "queue/tmp").chmod(0o777)
    assert _fatal(home) == ["queue/tmp"]


@pytest.mark.needs_root
def test_a_group_can_write(home: Path) -> None:
    """A group's right to write counts, unless the group is root's."""
    os.chown(home.parent, 0, GROUP)
    home.parent.chmod(0o775)
    assert _fatal(home) == [".."]
    os.chown(home.parent, 0, 0)
    assert _fatal(home) == []


@pytest.mark.needs_root
def test_another_owner_above(home: Path) -> None:
    """Another's directory above the home is said, and no reason not to start: he may be who made it."""
    os.chown(home.parent, 64300, 64300)
    assert _fatal(home) == []
    assert safety.refuse_dangers(str(home)) == [f"{home.parent} belongs to uid 64300, who can replace what is in it"]


def test_a_linked_directory(home: Path, tmp_path: Path) -> None:
    """Where control/ is a link, the place that it leads to counts, and all above that."""
    (tmp_path / "elsewhere/control").mkdir(parents=True)
    (home / "control").rmdir()
    (home / "control").symlink_to(tmp_path / "elsewhere/control")
    (tmp_path / "elsewhere").chmod(0o777)
    assert _fatal(home) == ["../../elsewhere"]
