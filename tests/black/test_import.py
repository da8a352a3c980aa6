"""qm import: a real Postfix and a tree of qmail's, taken over by a suite that then delivers what had waited there."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from qm.disk import queuefile
from qm.disk.cdb import Cdb
from tests.harness.importing import Qmail, qm
from tests.harness.postfix import Postfix
from tests.harness.suite import HOST, Suite
from tests.harness.waiting import wait_for

Make = Callable[..., Suite]
MAIN_CF = """\
mydestination = $myhostname, test.example
  # a comment in between
  localhost
relay_domains = relayed.example
relayhost = [relay.example]:2525
transport_maps = hash:{home}/transport
virtual_alias_domains = virtual.example
virtual_alias_maps = texthash:{home}/virtual, regexp:{home}/virtual.re
alias_maps = hash:{home}/aliases
message_size_limit = 12345678
mailbox_size_limit = 0
smtpd_banner = $myhostname ESMTP
defer_transports = smtp
"""
TRANSPORT = """\
routed.example smtp:[192.0.2.1]
.sub.example   relay:hub.example:26
direct.example :
odd.example    lmtp:unix:/run/lmtp
joe@x.example  smtp:[192.0.2.2]
"""
VIRTUAL = """\
info@virtual.example  ann@test.example, bob@far.example
@virtual.example      ann@test.example
sales                 ann
old@virtual.example   @new.example
"""
ALIASES = 'postmaster: root\nroot: ann\nprog: "|cat >/dev/null"\n'
MESSAGE = b"Subject: waits\nFrom: joe@test.example\n\n" + b"x" * 5000 + b"\n.dot\nFrom here\nno end"


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below *folder*, so that a change is seen."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def queued(suite: Suite) -> list[tuple[queuefile.QueueFile, bytes]]:
    found = []
    for path in sorted((suite.home / "queue").glob("new/*")):
        fd = os.open(path, os.O_RDONLY)
        file = queuefile.read(fd)
        found.append((file, b"".join(queuefile.checked_message(fd, file))))
        os.close(fd)
    return found


@pytest.fixture
def postfix(open_folder: Path) -> Iterator[Postfix]:
    """A Postfix in which two messages wait, one of them for one recipient of two; it has been stopped."""
    home = open_folder / "postfix"
    there = Postfix(home, MAIN_CF.format(home=home))
    for name, text in (("transport", TRANSPORT), ("virtual", VIRTUAL), ("aliases", ALIASES), ("virtual.re", "")):
        (home / name).write_text(text)
    for command, name in (("postmap", "transport"), ("postalias", "aliases")):
        there.run(command, "-c", str(there.config), f"hash:{home}/{name}")
    there.start()
    try:
        there.send(MESSAGE, "-f", "joe@test.example", "-N", "success,delay", "x@far.example", "prog@test.example")
        there.send(b"Subject: 2\n\n", "-f", "", "-V", "id+1", '"a b"@far.example')
        wait_for(lambda: there.is_idle() and len(there.deferred()) == 2, "two deferred messages", 60)
        there.stop()
        yield there
    finally:
        there.stop()


@pytest.mark.needs_root
@pytest.mark.needs("postfix", "postmap", "postalias")
def test_postfix(make_suite: Make, postfix: Postfix, open_folder: Path) -> None:
    """Configuration and queue come over, what cannot is named by its line; nothing is changed there, or done twice."""
    suite, before = make_suite(open_folder), tree(postfix.home)
    (suite.home / "control/me").unlink()
    dry = qm(suite, "import", "postfix", str(postfix.config), "--dry-run")
    assert (dry.returncode, dry.stderr) == (1, "")
    assert not (suite.home / "imported").exists()
    assert not (suite.home / "control/smtproutes").exists()
    done = qm(suite, "import", "postfix", str(postfix.config))
    assert (done.returncode, done.stderr) == (1, "")
    assert tree(postfix.home) == before
    left = [line for line in done.stdout.splitlines() if "NOT CARRIED OVER" in line]
    assert left == [line for line in dry.stdout.splitlines() if "NOT CARRIED OVER" in line]
    main_cf = f"{postfix.config}/main.cf"
    assert {re.sub(r": NOT.*", "", line) for line in left} == {
        f"{postfix.home}/transport:5", f"{postfix.home}/virtual:4",
        *(f"{main_cf}:{number}" for number in (6, 9, 17, 19, 20, 21, 22)),
    }  # fmt: skip
    control = {path.name: path.read_text() for path in (suite.home / "control").iterdir()}
    assert control["me"] == "mx.test.example\n"
    assert control["databytes"] != "12345678\n", "the shipped file stays, and that is said"
    assert {"mx.test.example", "test.example", "localhost"} <= set(control["locals"].split("\n"))
    taken = {"relayed.example", ".relayed.example", "virtual.example", "test.example"}
    assert taken <= set(control["rcpthosts"].split())
    assert set(control["smtproutes"].split()) == {
        ":relay.example:2525", "routed.example:192.0.2.1", ".sub.example:hub.example:26", "direct.example:",
    }  # fmt: skip
    assert control["lmtproutes"] == "odd.example:/run/lmtp\n"
    assert "virtual.example:alias-virtual" in control["virtualdomains"]
    (first, text), (second, _) = queued(suite)
    assert text.endswith(b"\n\n" + MESSAGE.split(b"\n\n", 1)[1] + b"\n")
    assert re.match(rb"Received: \(qm import from Postfix, there [0-9A-Za-z]+\)\n  id [0-9a-z]{18}; ", text)
    assert first.envelope.sender == b"joe@test.example"
    assert [(who.address, who.notify) for who in first.envelope.recipients] == [(b"x@far.example", b"SUCCESS,DELAY")]
    assert (second.envelope.sender, second.envelope.recipients[0].address) == (b"", b"a b@far.example")
    assert second.envelope.envid == b"id+2B1"
    again = qm(suite, "import", "postfix", str(postfix.config))
    assert again.stdout.count("message: imported before") == 2
    assert not [line for line in again.stdout.splitlines() if line.startswith("    ")], "nothing is done twice"
    assert len(queued(suite)) == 2


@pytest.mark.needs_root
@pytest.mark.needs("postfix", "postcat")
def test_a_second_opinion(make_suite: Make, postfix: Postfix, open_folder: Path) -> None:
    """postcat shows the same message as the one that was queued."""
    suite = make_suite(open_folder)
    qm(suite, "import", "postfix", str(postfix.config), "--queue")
    texts = [text.split(b"\n", 2)[2] for _, text in queued(suite)]
    shown = [postfix.run("postcat", "-c", str(postfix.config), "-bh", str(path)).stdout for path in postfix.deferred()]
    assert sorted(texts) == sorted(shown)
    told = [postfix.run("postcat", "-c", str(postfix.config), "-e", str(path)).stdout for path in postfix.deferred()]
    times = {re.findall(rb"arrival_time: (.*)", text)[0].decode() for text in told}
    assert {time.asctime(time.localtime(file.envelope.born_ns // 10**9)) for file, _ in queued(suite)} == times


QUEUES_CF = """\
mydestination = test.example
alias_maps =
myorigin = {home}/mailname
transport_maps = inline:{{ {{gone.example=error:5.1.1 nobody}}, {{defer.example=retry:4.0.0 later}},
  {{wait.example=smtp:[127.0.0.1]:{port}}}, {{s.example=discard:}} }}
"""


def _without_qmgr(postfix: Postfix) -> None:
    """What comes in then stays in incoming/."""
    path = postfix.config / "master.cf"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if not line.startswith("qmgr")))


@pytest.fixture
def full(open_folder: Path) -> Iterator[Postfix]:
    """A Postfix that was killed in its work and has a message, or more, in each of its queues."""
    home = open_folder / "postfix"
    with socket.create_server((HOST, 0)) as silent:  # it never greets
        there = Postfix(home, QUEUES_CF.format(home=home, port=silent.getsockname()[1]))
        (home / "mailname").write_text("test.example\n")
        try:
            there.start()
            for name in ("deferred", "hold", "corrupt"):
                there.send(f"Subject: {name}\n\n".encode(), "-f", "joe@s.example", "b@gone.example", "c@defer.example")
            wait_for(lambda: len(there.deferred()) == 3 and there.log().count("removed") == 3, "three deferred", 60)
            by_name = {re.findall(rb"Subject: ([a-z]+)", path.read_bytes())[0]: path for path in there.deferred()}
            there.run("postsuper", "-c", str(there.config), "-h", by_name[b"hold"].name)
            with by_name[b"corrupt"].open("r+b") as file:
                file.write(b"?")
            there.run("postqueue", "-c", str(there.config), "-i", by_name[b"corrupt"].name)
            wait_for(lambda: there.files("corrupt"), "a corrupt message", 60)
            recipients = ("a@wait.example", "b@gone.example", "c@defer.example")
            there.send(b"Subject: active\n\n", "-f", "joe@s.example", *recipients)
            wait_for(lambda: there.files("bounce") and there.log().count("to=<c@defer") == 4, "its work on that", 60)
            there.stop("abort")
            in_its_middle = there.files("active")[0].read_bytes()
            _without_qmgr(there)
            there.start()
            there.send(b"Subject: incoming\n\n", "-f", "joe@s.example", "x@far.example")
            wait_for(lambda: any(b"Subject: incoming" in path.read_bytes() for path in there.files("incoming")), "it")
            there.stop()
            assert [path.read_bytes() for path in there.files("active")] == [in_its_middle]
            posted = b"Bcc: y@far.example,\n z@far.example\nSubject: maildrop\n\n"
            there.send(posted, "-f", "joe", "x@far.example", "ann")
            (whole,) = there.files("maildrop")
            there.send(b"From: joe\nSubject: half\n\n", "x@far.example")
            (half,) = set(there.files("maildrop")) - {whole}
            half.chmod(0o644)  # as it is until its end
            yield there
        finally:
            there.stop()


@pytest.mark.needs_root
@pytest.mark.needs("postfix", "postsuper", "postqueue")
def test_every_queue_of_postfix(make_suite: Make, full: Postfix, open_folder: Path) -> None:
    """Active, incoming, deferred and posted mail goes on, what is on hold stays on hold, the rest is named; a failure
    of which the sender does not know is not forgotten, and who has got a message does not get it again.
    """
    suite, before = make_suite(open_folder), tree(full.home)
    dry = qm(suite, "import", "postfix", str(full.config), "--queue", "--dry-run")
    done = qm(suite, "import", "postfix", str(full.config), "--queue")
    assert (done.returncode, done.stderr) == (1, "")
    assert tree(full.home) == before
    lines = [line for line in done.stdout.splitlines() if "message: " in line]
    assert lines == [line for line in dry.stdout.splitlines() if "message: " in line]
    said = {
        "active": "3 recipients, 0 have it; 1 failed, and the sender does not know: they are tried again",
        "deferred": "1 recipients, 1 have it",
        "incoming": "1 recipients, 0 have it",
        "hold": "1 recipients, 1 have it; on hold there, and held here: see qm hold",
        "corrupt": "NOT CARRIED OVER: message: Postfix calls it corrupt",
    }
    for queue, text in said.items():
        (path,) = full.files(queue)
        assert [line for line in lines if line.startswith(f"{path}: ") and text in line], (queue, lines)
    posted = {line for line in lines if "/maildrop/" in line}
    assert sum("2 recipients, 0 have it" in line for line in posted) == 1
    assert sum("it was being written" in line for line in posted) == 1
    assert len(lines) == 7
    envelopes = {}
    for file, text in queued(suite):
        found = re.findall(rb"Subject: (\w+)", text)[0]
        envelopes[found] = (file.envelope.sender, [who.address for who in file.envelope.recipients], text)
    assert {name: found[:2] for name, found in envelopes.items()} == {
        b"active": (b"joe@s.example", [b"a@wait.example", b"b@gone.example", b"c@defer.example"]),
        b"deferred": (b"joe@s.example", [b"c@defer.example"]),
        b"incoming": (b"joe@s.example", [b"x@far.example"]),
        b"maildrop": (b"joe@test.example", [b"x@far.example", b"ann@test.example"]),
    }
    text = envelopes[b"maildrop"][2]
    assert b"Bcc" not in text and b"z@far" not in text
    header = [line.split(b":")[0] for line in text.split(b"\n\n")[0].split(b"\n") if line[:1].isalpha()]
    assert header == [b"Received", b"Date", b"Message-ID", b"From", b"Subject"]
    _check_held(suite)


def _check_held(suite: Suite) -> None:
    """It waits, however old it is, through a start of send, until it is released."""
    (path,) = (suite.home / "queue/held").iterdir()
    listed = suite.run("qm", "hold", "--home", str(suite.home), "list").stdout.decode()
    assert listed.startswith(path.name) and "on hold in the system that it came from  <joe@s.example>, 1" in listed
    suite.control("queuelifetime", "0\n")
    suite.control("smtproutes", f":{HOST}:1\n")
    suite.start()
    suite.wait_for_log("end msg")
    suite.restart()
    suite.wait_for(lambda: not queued(suite), "send has taken all")
    assert path.exists()
    assert f"msg {path.name}" not in suite.log()
    assert suite.run("qm", "hold", "--home", str(suite.home), "release", path.name).returncode == 0
    suite.wait_for_log(f"new msg {path.name}")


@pytest.mark.needs_root
@pytest.mark.needs("postfix")
def test_postfix_that_runs(make_suite: Make, postfix: Postfix, open_folder: Path) -> None:
    """While Postfix runs its queue is not taken; its configuration may be."""
    suite = make_suite(open_folder)
    postfix.start()
    done = qm(suite, "import", "postfix", str(postfix.config))
    assert (done.returncode, "stop the other system first" in done.stderr) == (111, True)
    assert qm(suite, "import", "postfix", str(postfix.config), "--config").returncode == 1
    assert queued(suite) == []


@pytest.mark.needs_root
@pytest.mark.needs("postfix")
def test_what_is_damaged(make_suite: Make, postfix: Postfix, open_folder: Path) -> None:
    """A message that is cut anywhere is not queued, and is named; the other one is."""
    suite = make_suite(open_folder)
    path = postfix.deferred()[0]
    path.write_bytes(path.read_bytes()[:-1])
    done = qm(suite, "import", "postfix", str(postfix.config), "--queue")
    assert f"{path}: NOT CARRIED OVER: message: the file is cut off" in done.stdout
    assert (done.returncode, len(queued(suite))) == (1, 1)


def test_qmail(make_suite: Make, open_folder: Path) -> None:
    """Control files, users, aliases, rules and the queue come over; who has got a message does not get it again."""
    suite, qmail = make_suite(open_folder), Qmail(open_folder / "qmail")
    for name, text in {
        "me": "other.example\n", "locals": "test.example\nlists.example\n", "rcpthosts": "test.example\n.any.example\n",
        "virtualdomains": "virt.example:ann\n", "smtproutes": ":relay.example\n", "queuelifetime": "x\n",
        "concurrencyincoming": "30\n", "morercpthosts": "More.example\n", "timeoutremote": "99\n",
    }.items():  # fmt: skip
        (qmail.home / "control" / name).write_text(text)
    (qmail.home / "alias/.qmail-list").write_text("&ann@test.example\n")
    (qmail.home / "alias/Mailbox").write_text("")
    (qmail.home / "users/assign").write_text("=joe:joe:503:78:/home/joe:::\n.\n")
    (qmail.home / "tcp.smtp").write_text('10.:allow,RELAYCLIENT=""\n:allow\n')
    both = qmail.message(
        b"Received: x\n\n1\n", info=b"Fs@s.example\0",
        local=b"Tann@test.example\0Tann-bob@virt.example\0Dgone@test.example\0",
        remote=b"Dy@far.example\0Tx@far.example\0",
    )  # fmt: skip
    todo = qmail.message(b"\n2\n", todo=b"u7\0p8\0F\0Tann@test.example\0")
    done_ = qmail.message(b"\n3\n", info=b"Fs@s.example\0", local=b"Dann@test.example\0")
    qmail.message(b"half")
    bad = qmail.message(b"\n4\n", info=b"Fs@s.example", local=b"Tann@test.example\0")
    before = tree(qmail.home)
    done = qm(suite, "import", "qmail", str(qmail.home))
    assert (done.returncode, done.stderr) == (1, "")
    assert tree(qmail.home) == before
    left = {re.sub(r": NOT.*", "", line) for line in done.stdout.splitlines() if "NOT CARRIED OVER" in line}
    assert left == {
        f"{qmail.home}/{name}"
        for name in ("control/me", "control/queuelifetime:1", "control/concurrencyincoming", "alias/Mailbox",
                     "users/assign", f"queue/mess/{bad % 23}/{bad}")
    }  # fmt: skip
    control = {path.name: path.read_text() for path in (suite.home / "control").iterdir() if path.suffix != ".cdb"}
    assert control["me"] == "test.example\n"
    assert control["timeoutremote"] == "99\n"
    assert "virt.example:ann\n" in control["virtualdomains"]
    assert ".any.example\n" in control["rcpthosts"]
    more = Cdb(str(suite.home / "control/morercpthosts.cdb"))
    more.refresh()
    assert more.lookup(b"more.example") == b""
    assert (suite.home / "alias/.qmail-list").read_text() == "&ann@test.example\n"
    assert (suite.home / "tcp.smtp.cdb").exists()
    envelopes = {file.envelope.sender: [who.address for who in file.envelope.recipients] for file, _ in queued(suite)}
    assert envelopes == {
        b"s@s.example": [b"ann@test.example", b"bob@virt.example", b"x@far.example"], b"": [b"ann@test.example"],
    }  # fmt: skip
    for number, said in ((both, "3 recipients, 2 have it"), (todo, "1 recipients, 0 have it"), (done_, "nobody waits")):
        assert f"/{number}: message: {said}" in done.stdout
    suite.control("smtproutes", ":127.0.0.1:1\n")
    suite.dot_qmail("ann", "./Maildir/\n", "-bob")
    suite.start()
    assert sorted(text.split(b"\n\n", 1)[1] for text in suite.wait_for_mail(3)) == [b"1\n", b"1\n", b"2\n"]
    suite.wait_for_log("deferral")
    suite.stop()
    again = qm(suite, "import", "qmail", str(qmail.home), "--queue")
    assert again.stdout.count("imported before") == 2
    assert queued(suite) == []


def test_the_age_counts_on(make_suite: Make, open_folder: Path) -> None:
    """A message that had waited for longer than queuelifetime is tried once here and comes back."""
    suite, qmail = make_suite(open_folder), Qmail(open_folder / "qmail")
    (qmail.home / "control/me").write_text("test.example\n")
    number = qmail.message(b"\n1\n", info=b"Fann@test.example\0", remote=b"Tx@far.example\0")
    born_s = int(time.time()) - 8 * 86400
    os.utime(qmail.home / f"queue/info/{number % 23}/{number}", (born_s, born_s))
    assert qm(suite, "import", "qmail", str(qmail.home), "--queue").returncode == 0
    ((file, text),) = queued(suite)
    assert file.envelope.born_ns == born_s * 1_000_000_000
    assert parsedate_to_datetime(text.split(b"; ", 1)[1].partition(b"\n")[0].decode()).timestamp() > born_s + 86400
    suite.control("smtproutes", f":{HOST}:1\n")
    suite.start()
    (bounce,) = suite.wait_for_mail()
    assert b"x@far.example" in bounce and bounce.startswith(b"Return-Path: <>")


def test_usage(make_suite: Make, open_folder: Path) -> None:
    """What is no other system is refused; so are both of two options that exclude one another."""
    suite = make_suite(open_folder)
    (open_folder / "empty").mkdir()
    assert qm(suite, "import", "qmail", str(open_folder / "empty")).returncode == 111
    assert qm(suite, "import", "postfix", str(open_folder / "empty")).returncode == 111
    assert qm(suite, "import", "exim", str(open_folder / "empty")).returncode == 2
    assert qm(suite, "import", "qmail", str(open_folder), "--queue", "--config").returncode == 2
