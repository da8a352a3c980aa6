"""Plans and their actions: said, done once, and done no more."""

import os
from pathlib import Path

import pytest

from qm.admin.accounts import Names, refuse_strangers
from qm.admin.action import Command, Folder, Link, Remove, Write, carry_out
from qm.admin.home import CompileRules
from qm.disk import cdb
from qm.errors import Permanent, Temporary


def test_a_plan_is_said_and_done_once(tmp_path: Path) -> None:
    """carry_out says and does what is left; a second time there is nothing; in a dry run nothing is done."""
    target, folder, link = (str(tmp_path / name) for name in ("file", "folder", "link"))
    plan = [Folder(folder, 0o700), Write(target, "text\n", 0o600), Link(link, "file", ours="fi")]
    said: list[str] = []
    assert carry_out(plan, said.append, dry_run=True) == 3
    assert os.listdir(tmp_path) == []
    done: list[str] = []
    assert carry_out(plan, done.append, dry_run=False) == 3
    assert done == said
    assert said[1] == f"write {target}: text"
    assert (os.stat(target).st_mode & 0o777, os.stat(folder).st_mode & 0o777) == (0o600, 0o700)
    assert carry_out(plan, done.append, dry_run=False) == 0


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    """A file that is there stays, unless its content is the plan's business."""
    path = tmp_path / "file"
    path.write_text("mine\n")
    assert carry_out([Write(str(path), "ours\n")], lambda line: None, dry_run=False) == 0
    assert path.read_text() == "mine\n"
    assert carry_out([Write(str(path), "ours\n", keep=False)], lambda line: None, dry_run=False) == 1
    assert path.read_text() == "ours\n"


def test_a_link_of_others_is_kept(tmp_path: Path) -> None:
    """A link goes where nothing is, or an older one of ours; what others have put there stays."""
    path = tmp_path / "sendmail"
    path.symlink_to("/opt/other/sendmail")
    assert carry_out([Link(str(path), "/opt/ours/new", ours="/opt/ours")], lambda line: None, dry_run=False) == 0
    path.unlink()
    path.symlink_to("/opt/ours/old")
    assert carry_out([Link(str(path), "/opt/ours/new", ours="/opt/ours")], lambda line: None, dry_run=False) == 1
    assert os.readlink(path) == "/opt/ours/new"


def test_removal(tmp_path: Path) -> None:
    """Remove takes a file or a tree away, and a link rather than what it leads to."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "tree/below").mkdir(parents=True)
    plan = [Remove(str(tmp_path / "link")), Remove(str(tmp_path / "tree"), below=True), Remove(str(tmp_path / "none"))]
    assert carry_out(plan, lambda line: None, dry_run=False) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


def test_a_command_that_fails() -> None:
    """A tool of the system's that fails is named, with its words."""
    command = Command(("sh", "-c", "echo no room; exit 3"), lambda: False)
    with pytest.raises(Temporary, match=r"sh failed.*no room"):
        command.do()
    with pytest.raises(Temporary, match="cannot run qm-no-such-tool"):
        Command(("qm-no-such-tool",), lambda: False).do()


def test_a_failure_ends_the_plan(tmp_path: Path) -> None:
    """The first action that fails ends it, and the plan can be carried out again from there."""
    plan = [Folder(str(tmp_path / "a"), 0o755), Write(str(tmp_path / "b/c"), ""), Folder(str(tmp_path / "d"), 0o755)]
    with pytest.raises(Temporary, match="b/c"):
        carry_out(plan, lambda line: None, dry_run=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "b").mkdir()
    assert carry_out(plan, lambda line: None, dry_run=False) == 2


def test_rules_are_compiled_after_a_change(tmp_path: Path) -> None:
    """tcp.smtp.cdb is made where it is missing or older than its text."""
    text, compiled = tmp_path / "tcp.smtp", tmp_path / "tcp.smtp.cdb"
    text.write_text('127.:allow,RELAYCLIENT=""\n')
    action = CompileRules(str(text), str(compiled))
    assert not action.is_done()
    action.do()
    assert action.is_done()
    reader = cdb.Cdb(str(compiled))
    reader.refresh()
    assert reader.lookup(b"127.") == b"+RELAYCLIENT=\0"
    later_ns = compiled.stat().st_mtime_ns + 1
    os.utime(text, ns=(later_ns, later_ns))
    assert not action.is_done()


def test_names_of_users() -> None:
    """The usual names are qmail's; another prefix makes others of the same letters."""
    assert [Names("qmail").user(role) for role in ("alias", "qmaild")] == ["alias", "qmaild"]
    assert [Names("mx").user(role) for role in ("alias", "qmaild")] == ["mxalias", "mxd"]
    assert [Names("mx").group(role) for role in ("qmailq", "qmails", "qmailr")] == ["mx", "mx", "mxr"]


def test_a_user_who_is_root_is_never_ours() -> None:
    """An account of one of our names with uid 0 is refused: "ro" and the letters make root's."""

    class Root(Names):
        def user(self, role: str) -> str:
            return "root"

    with pytest.raises(Permanent, match="user root is not ours"):
        refuse_strangers(Root("qmail"))
