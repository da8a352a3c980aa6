"""One delivery, in the order of its effects (qmail.md 13.1).

The home and the loop are checked, the .qmail file is read whole, its lines are done in order, and what it forwards goes
last.  The first failure ends it; at the next try what has been done is done again, but for Maildirs that still know it.
"""

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from qm.disk import dotqmail, maildir, mbox
from qm.disk.message import Message
from qm.errors import OK, Permanent, QmError, Temporary
from qm.local import command, policy
from qm.local.policy import Job, Outcome, Verdict
from qm.unix import log
from qm.wire.dotqmail import Instruction, Kind, parse
from qm.wire.envelope import Envelope, Recipient

NAME: Final = b"qm-local"
LAST_MAX: Final = 500  # bytes of a report that are not a program's output


class Accepted(Protocol):
    @property
    def name(self) -> bytes: ...


class Submission(Protocol):
    """A message on its way into the queue; raises Temporary, Permanent."""

    def write(self, data: bytes) -> None: ...
    def commit(self, envelope: Envelope) -> Accepted: ...


class Queue(Protocol):
    def begin(self) -> Submission: ...


class Tools(NamedTuple):
    """What a delivery uses of its surroundings; the functions are called only when they are needed."""

    env: Mapping[bytes, bytes]
    queue: Callable[[], AbstractContextManager[Queue]]
    program_limit_s: Callable[[], float]


class Plan(NamedTuple):
    instructions: tuple[Instruction, ...]
    default: bytes | None  # what DEFAULT is


def deliver(job: Job, message_fd: int, tools: Tools) -> Outcome:
    """Deliver the message on *message_fd*, whose offset does not matter.

    The current directory is the home; if another has taken its name, that is entered.
    """
    delivery = _Delivery(job, message_fd, tools)
    try:
        delivery.run()
        return Outcome(OK, delivery.output + delivery.last)
    except QmError as error:
        if error.detail:
            log.warning(NAME, f"{os.fsdecode(job.id)} to {os.fsdecode(job.user)}: {error}")
        last = f"{error.public} (#{error.status})\n" if error.public else ""
        return Outcome(error.exit_code, delivery.output + os.fsencode(last)[:LAST_MAX])


def describe(job: Job) -> Outcome:
    """What would be done, a line for each instruction."""
    try:
        _check_home(job.home, sticky_allowed=True)
        lines = [b"%s %s\n" % (step.kind.value, step.argument) for step in _plan(job).instructions]
        return Outcome(OK, b"".join(lines))
    except QmError as error:
        return Outcome(error.exit_code, os.fsencode(f"{error} (#{error.status})\n"))


def _home_status(home: bytes) -> os.stat_result:
    """Of the home, which is the current directory then."""
    try:
        here = os.stat(b".")
        try:
            there = os.stat(home)
        except PermissionError:  # below a directory that its user cannot search; who entered it could
            return here
        if not os.path.samestat(here, there):
            os.chdir(home)
        return there
    except OSError as error:
        detail = f"{os.fsdecode(home)}: {error.strerror}"
        raise Temporary("Unable to enter the home directory.", detail=detail) from error


def _check_home(home: bytes, *, sticky_allowed: bool = False) -> None:
    mode = _home_status(home).st_mode
    if mode & dotqmail.WRITABLE:
        raise Temporary("The home directory is writable by everybody.", status="7.0")
    if mode & stat.S_ISVTX:
        if not sticky_allowed:
            raise Temporary("The home directory is sticky: its user is editing .qmail files.", status="2.1")
        log.warning(NAME, "the home directory is sticky")


def _plan(job: Job) -> Plan:
    found = dotqmail.search(None, job.dash, job.ext)
    if found is None:
        if job.dash:
            raise Permanent("Sorry, no mailbox here by that name.", status="1.1")
        return Plan(parse(job.default_delivery, forward_only=False), None)
    text, forward_only = dotqmail.read(found)
    if not text:
        text, forward_only = job.default_delivery, False
    return Plan(parse(text, forward_only=forward_only), found.default)


class _Delivery:
    def __init__(self, job: Job, message_fd: int, tools: Tools) -> None:
        self._job = job
        self._fd = message_fd
        self._tools = tools
        self._delivered_to = policy.delivered_to(job)
        self._default: bytes | None = None
        self._forwards: list[bytes] = []
        self._done: Counter[Kind] = Counter()
        self._stopped = False
        self.output = b""  # of programs
        self.last = b""  # of the report, when all went well

    def run(self) -> None:
        """Raises Temporary, Permanent; with an empty text if *output* says why."""
        _check_home(self._job.home)
        self._message = Message(self._fd)
        if policy.loops(self._message.chunks(), self._delivered_to):
            raise Permanent("This message is looping: it already has my Delivered-To line.", status="4.6")
        plan = _plan(self._job)
        self._default = plan.default
        for instruction in plan.instructions:
            self._ACTIONS[instruction.kind](self, instruction)
            self._done[instruction.kind] += 1
            if self._stopped:
                break
        accepted = self._submit() if self._forwards else b""
        self.last = policy.summary(self._done) + accepted

    def _maildir(self, instruction: Instruction) -> None:
        job = self._job
        name = maildir.unique(job.id, job.number, instruction.line)
        delivery = maildir.Delivery(instruction.argument, name, self._head(), self._message, maildir.host())
        maildir.deliver(delivery, possible_duplicate=job.possible_duplicate)

    def _mbox(self, instruction: Instruction) -> None:
        from_line = policy.from_line(self._job, int(time.time()))
        duplicate = self._job.possible_duplicate
        mbox.deliver(mbox.Delivery(instruction.argument, from_line, self._head(), self._message, duplicate))

    def _head(self) -> bytes:
        return policy.return_path(self._job) + self._delivered_to

    def _program(self, instruction: Instruction) -> None:
        sender, now_s = self._new_sender(), int(time.time())
        env = policy.environment(self._job, self._tools.env, default=self._default, sender=sender, now_s=now_s)
        limit_s = self._tools.program_limit_s()
        output_max = max(0, policy.REPORT_MAX - LAST_MAX - len(self.output) - 1)
        fd = self._message.reopen()
        try:
            ended = command.run(instruction.argument, fd, env, limit_s=limit_s, output_max=output_max)
        finally:
            os.close(fd)
        output = ended.output.partition(b"\0")[0]
        self.output += output if output.endswith(b"\n") or not output else output + b"\n"
        verdict = policy.judge(ended.code)
        self._stopped = verdict is Verdict.STOP
        if verdict in (Verdict.PERMANENT, Verdict.TEMPORARY):
            kind = Permanent if verdict is Verdict.PERMANENT else Temporary
            raise kind(policy.complaint(ended.code, output))

    def _forward(self, instruction: Instruction) -> None:
        self._forwards.append(instruction.argument)

    def _submit(self) -> bytes:
        """All forwards in one message."""
        flags = self._job.flags
        recipients = tuple(Recipient(address) for address in self._forwards)
        envelope = Envelope(
            self._new_sender(),
            recipients,
            eight_bit=b"8" in flags,
            smtputf8=b"U" in flags,
            requiretls=b"Q" in flags,  # RFC 8689 6: what goes on is protected as what came
            tlsoptional=b"q" in flags,
        )
        with self._tools.queue() as queue:
            submission = queue.begin()
            for chunk in self._message.chunks(self._delivered_to):
                submission.write(chunk)
            return b"id " + submission.commit(envelope).name + b"\n"

    def _new_sender(self) -> bytes:
        job = self._job
        owner, owner_default = dotqmail.has_owner(job.dash, job.ext) if policy.wants_owner(job) else (False, False)
        return policy.new_sender(job, owner=owner, owner_default=owner_default)

    _ACTIONS: Final[Mapping[Kind, Callable[["_Delivery", Instruction], None]]] = {
        Kind.MAILDIR: _maildir,
        Kind.MBOX: _mbox,
        Kind.PROGRAM: _program,
        Kind.FORWARD: _forward,
    }
