"""What can be carried over from a qmail: control/, users/assign, alias/, tcp.smtp, its queue (qmail.md 4, 23)."""

import fcntl
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Final

from qm import newmrh, tcprules
from qm.admin.action import Action, Write, read
from qm.admin.findings import AddLines, Compile, Finding, kept, text_of
from qm.admin.queueimport import Source
from qm.admin.rules import compile_rules
from qm.disk import cdb
from qm.disk.control import TABLE, BadControl, Controls, Kind
from qm.errors import QmError, Temporary
from qm.wire import assign, route

_RULES: Final = ("tcp.smtp", "control/tcp.smtp", "etc/tcp.smtp")  # and below /etc; there is no one place
_USERS: Final = ("append", "exclude", "include", "mailnames", "subusers")  # qm-pw2u reads what qmail-pw2u read
_MADE: Final = ("assign", "cdb")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,19}")
_LOCK: Final = "queue/lock/sendmutex"


class Qmail:
    """The qmail whose home is *folder*, for *home*."""

    def __init__(self, folder: str, home: str, etc: str = "/etc") -> None:
        self._folder = folder
        self._etc = etc
        self._home = home
        if not os.path.isdir(self._path("control")):
            raise Temporary("that is no qmail", detail=f"{folder} has no control/")

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _ours(self, name: str) -> str:
        return os.path.join(self._home, name)

    def findings(self) -> Iterator[Finding]:
        for name in sorted(os.listdir(self._path("control"))):
            yield from self._guarded(self._control, f"control/{name}")
        if not os.path.exists(self._path("control/rcpthosts")):
            yield Finding(self._path("control/rcpthosts"), "is missing: qmail then relays for all, qm never", False)
        yield from self._guarded(self._assign, "users/assign")
        if os.path.isdir(self._path("users")):
            for name in sorted(set(os.listdir(self._path("users"))).difference(_MADE)):
                yield from self._guarded(self._users, f"users/{name}")
        if os.path.isdir(self._path("alias")):
            for name in sorted(os.listdir(self._path("alias"))):
                yield from self._guarded(self._alias, f"alias/{name}")
        for name in (*_RULES, os.path.join(self._etc, "tcp.smtp")):
            yield from self._guarded(self._rules, name)

    def _guarded(self, carry: Callable[[str], Iterator[Finding]], name: str) -> Iterator[Finding]:
        """What *carry* finds in the file *name*, if there is one; what it cannot read is a finding, too."""
        if not os.path.lexists(self._path(name)):
            return
        try:
            yield from carry(name)
        except QmError as error:
            where, _, why = error.detail.rpartition(": ")
            yield Finding(where or self._path(name), why, False)

    def _control(self, name: str) -> Iterator[Finding]:
        base = os.path.basename(name)
        if not os.path.isfile(self._path(name)) or base.endswith(".cdb"):
            yield Finding(self._path(name), "is made of another file, or no file", base == "morercpthosts.cdb")
        elif base == "morercpthosts":
            yield self._morercpthosts(name)
        elif base == "tcp.smtp":
            return  # with the others of its kind
        elif base not in TABLE:
            yield Finding(self._path(name), "is a control file that qm does not have", False)
        else:
            yield self._known_control(base)

    def _known_control(self, base: str) -> Finding:
        source, target = self._path(f"control/{base}"), self._ours(f"control/{base}")
        text = text_of(source)
        try:
            Controls((base,), self._path("control"))
        except BadControl as error:
            where, _, why = error.detail.rpartition(": ")
            return Finding(self._path(where), why, False)
        if TABLE[base].kind in (Kind.LIST, Kind.TABLE):
            lines = tuple(line for line in (raw.rstrip() for raw in text.split("\n")) if line and line[0] != "#")
            return Finding(source, f"{target}: {len(lines)} lines", True, (AddLines(target, lines),))
        why = kept(target, text)
        first = text.split("\n", 1)[0]
        return Finding(source, why or f"{target}: {first}", not why, (Write(target, text),))

    def _morercpthosts(self, name: str) -> Finding:
        text = text_of(self._path(name))
        lines = tuple(domain.decode() for domain in newmrh.domains(text.encode()))
        target = self._ours(name)

        def compile_it() -> None:
            domains = newmrh.domains((read(target) or "").encode())
            cdb.write(f"{target}.cdb", ((domain, b"") for domain in domains))

        actions = (AddLines(target, lines), Compile(f"{target}.cdb", (target,), compile_it))
        return Finding(self._path(name), f"{target}: {len(lines)} lines", True, actions)

    def _assign(self, name: str) -> Iterator[Finding]:
        text = text_of(self._path(name))
        try:
            warnings = assign.compile_lines(text.encode()).warnings
        except assign.BadLine as error:
            yield Finding(f"{self._path(name)}:{error}".rpartition(": ")[0], str(error).partition(": ")[2], False)
            return
        for warning in warnings:
            yield Finding(f"{self._path(name)}:{warning.partition(':')[0]}", warning.partition(": ")[2], False)
        target, why = self._ours(name), kept(self._ours(name), text)

        def compile_it() -> None:
            cdb.write(self._ours("users/cdb"), assign.compile_lines((read(target) or "").encode()).entries)

        actions: tuple[Action, ...] = (Write(target, text), Compile(self._ours("users/cdb"), (target,), compile_it))
        yield Finding(self._path(name), why or f"{target} and users/cdb", not why, () if why else actions)

    def _users(self, name: str) -> Iterator[Finding]:
        source, target = self._path(name), self._ours(name)
        if os.path.basename(name) not in _USERS:
            yield Finding(source, "is a file of users/ that qm does not have", False)
            return
        text = text_of(source)
        why = kept(target, text)
        yield Finding(source, why or target, not why, () if why else (Write(target, text),))

    def _alias(self, name: str) -> Iterator[Finding]:
        source, target = self._path(name), self._ours(name)
        if not os.path.basename(name).startswith(".qmail"):
            yield Finding(source, "is no .qmail file: copy mailboxes by hand", False)
            return
        status = os.lstat(source)
        if not stat.S_ISREG(status.st_mode):
            yield Finding(source, "is no regular file", False)
            return
        text = text_of(source)
        why = kept(target, text)
        mode = 0o644 | (status.st_mode & 0o100)  # the x bit says: may only forward
        yield Finding(source, why or target, not why, (Write(target, text, mode),))

    def _rules(self, name: str) -> Iterator[Finding]:
        source, target = self._path(name), self._ours("tcp.smtp")
        text = text_of(source)
        try:
            tcprules.compile_rules(io.BytesIO(text.encode()))
        except QmError as error:
            yield Finding(source, error.detail, False)
            return
        lines = tuple(line for line in text.split("\n") if line and not line.startswith("#"))
        why = kept(target, text)
        if why:
            yield Finding(source, f"{why}; its rules are: {'; '.join(lines)}", False)
            return
        compiled = Compile(f"{target}.cdb", (target,), lambda: compile_rules(target))
        actions = (Write(target, text), compiled)
        yield Finding(source, f"{target}: {len(lines)} rules", True, actions)

    # the queue

    def runs(self) -> str:
        """Why the queue may change under our hands; empty if it does not."""
        return "qmail-send runs there" if is_locked(self._path(_LOCK)) else ""

    def rules(self) -> route.Rules:
        """By which its local recipients were rewritten; raises Temporary."""
        return route.rules(Controls(route.CONTROLS, self._path("control")))

    def queue(self) -> Iterator[Source | Finding]:
        mess = self._path("queue/mess")
        for folder, _, names in os.walk(mess):
            split = os.path.relpath(folder, mess)
            for name in sorted(names, key=lambda name: (len(name), name)):
                if _NUMBER.fullmatch(name):
                    yield self._message(split, name)

    def _message(self, split: str, name: str) -> Source | Finding:
        place = os.path.join(split, name)
        mess = self._path(os.path.join("queue/mess", place))
        for todo in (f"queue/todo/{name}", os.path.join("queue/todo", place)):  # big-todo splits it, too
            if os.path.lexists(self._path(todo)):
                return Source(b"qmail-todo", name, (mess, self._path(todo)))
        paths = tuple(self._path(os.path.join("queue", kind, place)) for kind in ("info", "local", "remote"))
        if not os.path.lexists(paths[0]):
            return Finding(mess, "message: it was being written or removed; nobody was told that it is there", True)
        return Source(b"qmail", name, (mess, *paths))


def is_locked(path: str) -> bool:
    """Whether somebody holds a lock on the file, which is only looked at."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)
