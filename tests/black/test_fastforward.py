"""fastforward and the compilers of its databases as real programs, and a sendmail alias file in a suite that runs."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness.injection import Injection, Result
from tests.harness.queueservice import QueueService
from tests.harness.suite import Suite
from tests.unit.wire.test_aliases import DEBIAN

MESSAGE = b"Received: x\nFrom: joe@x.example\nSubject: hi\n\nFrom here\n"
DELIVERY: Mapping[str, str] = {
    "NEWSENDER": "joe@x.example",
    "RECIPIENT": "ann@a.example",
    "DEFAULT": "bob",
    "HOST": "a.example",
    "DTLINE": "Delivered-To: ann@a.example\n",
    "RPLINE": "Return-Path: <joe@x.example>\n",
    "UFLINE": "From joe@x.example Tue Nov 24 12:00:00 2026\n",
}
HEAD = b"Return-Path: <joe@x.example>\nDelivered-To: ann@a.example\n"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Injection]:
    """A queue service that runs."""
    service = QueueService(tmp_path / "home").start()
    yield Injection(service)
    if service.process is not None:
        assert service.stop() == 0


def compile_to(there: Injection, name: str, text: bytes) -> None:
    done = there.run("setforward", name, name + ".tmp", input=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def forward(there: Injection, *words: str, env: Mapping[str, str] = DELIVERY, input: bytes = MESSAGE) -> Result:
    return there.run("fastforward", *words, input=input, env=env, seekable=True)


def test_forwarding(there: Injection) -> None:
    """The message goes on with its Delivered-To line, in one copy for all, from NEWSENDER or the list's owner."""
    compile_to(there, "db", b"ann@: x@x.example, y@y.example; bob@: z@z.example; ?bob@: owner@a.example;")
    done = forward(there, "db")
    assert (done.returncode, done.stdout) == (0, b"")
    assert re.fullmatch(rb"fastforward: id [0-9a-z]{18}\n", done.stderr)
    queued = there.only()
    assert (queued.envelope.sender, queued.recipients) == (b"joe@x.example", [b"x@x.example", b"y@y.example"])
    assert queued.message == b"Delivered-To: ann@a.example\n" + MESSAGE
    assert forward(there, "-d", "db").returncode == 0
    assert (there.queued()[1].envelope.sender, there.queued()[1].recipients) == (b"owner@a.example", [b"z@z.example"])


def test_who_is_not_there(there: Injection) -> None:
    """An unknown address is exit 100; with -p it is 0, and a known one 99, so that .qmail goes on or stops."""
    compile_to(there, "db", b"bob@: x@x.example;")
    done = forward(there, "db")
    assert (done.returncode, done.stderr) == (100, b"Sorry, no mailbox here by that name. (#5.1.1)\n")
    assert forward(there, "-p", "db").returncode == 0
    assert there.queued() == []
    assert forward(there, "-dp", "db").returncode == 99
    assert forward(there, "-dpP", "db").returncode == 0
    assert len(there.queued()) == 2


def test_only_saying(there: Injection) -> None:
    """-n prints what would be done and does nothing."""
    compile_to(there, "db", b'ann@: x@x.example, "|touch done", ">/tmp/x";')
    done = forward(there, "-n", "db")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        b"recipient ann@a.example", b"program touch done", b"file /tmp/x", b"sender <joe@x.example>",
        b"forward x@x.example",
    ]  # fmt: skip
    assert (there.queued(), (there.folder / "done").exists()) == ([], False)


def test_programs_and_mailboxes(there: Injection) -> None:
    """Programs get the message, behind its lines where sendmail gives them; mailboxes are an mbox or a Maildir."""
    there.run("maildirmake", "Maildir")
    text = b'ann@: "|cat >plain", "!cat >lines", ">mbox", ">Maildir/", ">/dev/null", "!exit 0";'
    compile_to(there, "db", text)
    assert forward(there, "db").returncode == 0
    assert (there.folder / "plain").read_bytes() == MESSAGE
    assert (there.folder / "lines").read_bytes() == DELIVERY["UFLINE"].encode() + HEAD + MESSAGE
    quoted = MESSAGE.replace(b"From here", b">From here")
    assert (there.folder / "mbox").read_bytes() == DELIVERY["UFLINE"].encode() + HEAD + quoted + b"\n"
    (mail,) = (there.folder / "Maildir/new").iterdir()
    assert mail.read_bytes() == HEAD + MESSAGE
    assert there.queued() == []


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 75", 111), ("exit 67", 111), ("exit 77", 100),
                                               ("kill -9 $$", 111)])  # fmt: skip
def test_a_program_that_fails(there: Injection, command: str, code: int) -> None:
    """A program's exit code means what it means in .qmail files; nothing is forwarded then."""
    compile_to(there, "db", f'ann@: x@x.example, "|{command}";'.encode().replace(b"$", b"\\$"))
    assert forward(there, "db").returncode == code
    assert len(there.queued()) == (code == 0)


def test_nothing_of_the_mail_is_a_command(there: Injection) -> None:
    """Addresses of the envelope reach a program as variables, not as text of its command."""
    compile_to(there, "db", b'@a.example: "|cat >/dev/null; echo x >ran";')
    address = "$(touch bad)`touch bad`;touch bad@a.example"
    assert forward(there, "db", env={**DELIVERY, "RECIPIENT": address}).returncode == 0
    assert {path.name for path in there.folder.iterdir()} == {"input", "db", "ran"}


def test_lists(there: Injection) -> None:
    """A list is read compiled; where it is not, from the text that newinclude would compile."""
    compile_to(there, "db", b"ann@: ./list.bin, ./text.bin, ./include.bin;")
    (there.folder / "text").write_text("# friends\nt1@x, T <t2@x>\nbare\n")
    (there.folder / "include").write_text("i1@x\n")
    assert there.run("newinclude", "include").returncode == 0
    (there.folder / "include").write_text("not yet compiled@x\n")
    done = forward(there, "db")
    assert (done.returncode, b"./list: No such file" in done.stderr) == (111, True)
    assert there.run("setmaillist", "list.bin", "list.tmp", input=b"&l1@x\n./more.bin\n").returncode == 0
    assert there.run("setmaillist", "more.bin", "more.tmp", input=b"l2@x\n./list.bin\n").returncode == 0
    assert there.run("printmaillist", input=(there.folder / "list.bin").read_bytes()).stdout == b"&l1@x\n./more.bin\n"
    assert forward(there, "db").returncode == 0
    assert there.only().recipients == [b"l1@x", b"l2@x", b"t1@x", b"t2@x", b"bare@test.example", b"i1@x"]


@pytest.mark.parametrize(("text", "said"), [("|rm x\n", b"list:1: "), ("a@b\n<\n", b"list:2: "), (None, b"list")])
def test_a_bad_include(there: Injection, text: str | None, said: bytes) -> None:
    """A list that cannot be used makes mail wait, and is named with its line; newinclude says the same."""
    compile_to(there, "db", b"ann@: ./list.bin;")
    if text is not None:
        (there.folder / "list").write_text(text)
    for done in (forward(there, "db"), there.run("newinclude", "list")):
        assert done.returncode in (100, 111)
        assert said in done.stderr
    assert there.queued() == []


def test_a_list_that_everybody_may_write(there: Injection) -> None:
    """Such a list is not read."""
    compile_to(there, "db", b"ann@: ./list.bin;")
    (there.folder / "list").write_text("a@b\n")
    (there.folder / "list").chmod(0o666)
    done = forward(there, "db")
    assert (done.returncode, b"chmod o-w" in done.stderr) == (111, True)


def test_trouble(there: Injection) -> None:
    """Without database, queue or variables mail waits or comes back."""
    assert forward(there, "db").returncode == 111
    assert forward(there).returncode == 100
    assert forward(there, "-x", "db").returncode == 100
    compile_to(there, "db", b"ann@: x@x;")
    for name in ("NEWSENDER", "DTLINE", "RECIPIENT"):
        env = {key: value for key, value in DELIVERY.items() if key != name}
        done = forward(there, "db", env=env)
        assert (done.returncode, name.encode() in done.stderr) == (100, True)
    (there.folder / "db").write_bytes((there.folder / "db").read_bytes()[:1000])
    assert forward(there, "db").returncode == 111
    compile_to(there, "db", b"ann@: x@x;")
    there.service.stop()
    assert forward(there, "db").returncode == 111


def test_setforward_and_printforward(there: Injection) -> None:
    """printforward prints what setforward compiles to the same database; a bad instruction changes nothing."""
    compile_to(there, "db", b'ann@: "a b"@c, "|x, y"; ?ann@: o@p;')
    database = (there.folder / "db").read_bytes()
    printed = there.run("printforward", input=database)
    assert printed.stdout == b"ann@: &a\\ b@c, |x\\,\\ y;\n?ann@: &o@p;\n"
    compile_to(there, "again", printed.stdout)
    assert (there.folder / "again").read_bytes() == database
    for bad, line in ((b"\nann: x;", b"line 2"), (b"a@: x;\na@: y;", b"line 2")):
        done = there.run("setforward", "db", "db.tmp", input=bad)
        assert (done.returncode, line in done.stderr) == (100, True)
    assert (there.folder / "db").read_bytes() == database
    assert not (there.folder / "db.tmp").exists()
    assert there.run("printforward", input=database[:2050]).returncode == 111
    assert there.run("printforward", input=b"x").returncode == 111
    assert there.run("printmaillist", input=b"&a").returncode == 111
    assert there.run("setmaillist", "l", "t", input=b"a@b\n|x\n").returncode == 100
    for words in (["setforward"], ["printforward", "x"], ["setmaillist"], ["printmaillist", "x"], ["newinclude"]):
        assert there.run(*words).returncode == 100


def test_newaliases(there: Injection) -> None:
    """newaliases and sendmail -bi compile the file that control/aliasfile names; a bad line changes nothing."""
    text = there.folder / "aliases"
    there.service.control("aliasfile", f"{text}\n")
    text.write_bytes(DEBIAN)
    for words in (["newaliases"], ["sendmail", "-bi"]):
        done = there.run(*words)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(os.fsencode(text) + b": 14 aliases, longest ")
    database = Path(f"{text}.cdb").read_bytes()
    assert stat.S_IMODE(Path(f"{text}.cdb").stat().st_mode) == 0o644
    assert b"root@: &joe@test.example;\n" in there.run("printforward", input=database).stdout
    text.write_bytes(DEBIAN + b"joe: (\n")
    done = there.run("newaliases")
    assert (done.returncode, b"aliases:16: " in done.stderr) == (111, True)
    text.write_bytes(b"a: b\nb: a\na: c\n")
    warnings = [line.partition(os.fsencode(text) + b":")[2] for line in there.run("newaliases").stderr.splitlines()]
    assert [warning.partition(b":")[0] for warning in warnings] == [b"3", b"2"]
    text.chmod(0o646)
    assert b"chmod o-w" in there.run("newaliases").stderr
    text.unlink()
    assert there.run("newaliases").returncode == 111
    assert there.run("newaliases", "x").returncode == 100


@pytest.mark.needs("postalias")
def test_a_second_opinion(there: Injection) -> None:
    """Postfix's postalias finds the same names in a file of theirs."""
    text = there.folder / "aliases"
    there.service.control("aliasfile", f"{text}\n")
    text.write_bytes(
        DEBIAN + b"decode:\t\t\"|/usr/bin/uudecode\"\n\"quoted name\": eric,\n  # comment\n\tbob@x\n"
        b"unix-wizards: :include:/x, \"/with, comma\"\nquoter: \"|/x \\\"a b\\\", c\"\n"
    )  # fmt: skip
    assert there.run("newaliases").returncode == 0
    lines = there.run("printforward", input=Path(f"{text}.cdb").read_bytes()).stdout.splitlines()
    ours = {line.partition(b": ")[0].replace(b"\\", b"").removesuffix(b"@") for line in lines}
    (there.folder / "main.cf").write_text("compatibility_level = 3.6\n")
    copy = there.folder / "theirs"
    shutil.copy(text, copy)
    postalias = ["postalias", "-c", str(there.folder)]
    subprocess.run([*postalias, f"hash:{copy}"], check=True, timeout=60, capture_output=True)
    listed = subprocess.run([*postalias, "-s", f"hash:{copy}"], check=True, timeout=60, capture_output=True).stdout
    theirs = {line.partition(b":\t")[0] for line in listed.splitlines()}
    assert ours == {name for name in theirs if name != b"@" and not name.startswith(b"YP_")}


def test_a_sendmail_alias_file(make_suite: Callable[..., Suite], open_folder: Path) -> None:
    """With one line in alias/.qmail-default an alias file works: users, lists, programs, owners, files, bounces."""
    suite = make_suite(open_folder)
    suite.control("aliasfile", "alias/aliases\n")
    alias = suite.home / "alias"
    (alias / ".qmail-default").write_text("|fastforward -d aliases.cdb\n")
    (alias / "list").write_text("ann\n")
    (alias / "aliases").write_text(
        f"""# /etc/aliases
webmaster: hostmaster
hostmaster: Ann <ann>
prog: "|cat >$HOME/got; echo $SENDER >>$HOME/got"
file: {alias}/archive
team: :include:{alias}/list, nobody@test.example
owner-team: ann
"""
    )
    suite.start()
    assert suite.run("newaliases").returncode == 0
    suite.send(["webmaster@test.example", "prog@test.example", "file@test.example"], b"Subject: 1\r\n\r\n")
    (mail,) = suite.wait_for_mail()
    assert [line for line in mail.splitlines() if line.startswith(b"Delivered-To: ")] == [
        b"Delivered-To: " + name + b"@test.example" for name in (b"ann", b"hostmaster", b"webmaster")
    ]
    suite.wait_until_idle()
    got = (alias / "got").read_bytes()
    assert got.startswith(b"From bob@elsewhere.example ")
    assert got.endswith(b"\n\nbob@elsewhere.example\n")
    assert (alias / "archive").read_bytes().count(b"\nSubject: 1\n\n") == 1
    suite.send("team@test.example", b"Subject: 2\r\n\r\n")
    mails = suite.wait_for_mail(3)
    suite.wait_until_idle()
    assert sum(mail.startswith(b"Return-Path: <owner-team@test.example>") for mail in mails) == 1
    (bounce,) = [mail for mail in mails if mail.startswith(b"Return-Path: <>")]
    assert b"<nobody@test.example>:\nSorry, no mailbox here by that name." in bounce
