"""qmtpd: receive messages by QMTP on descriptors 0 and 1.

Usage:   qm-qmtpd
Reads:   fd 0 (peer), control/{me,databytes,rcpthosts}, control/morercpthosts.cdb
Env:     TCPREMOTEIP, TCPREMOTEHOST, TCPREMOTEINFO, RELAYCLIENT, DATABYTES, NOUSERCHECK,
         QMAILQUEUE
Writes:  fd 1 (peer), fd 2 (log)
Asks:    queue, once per message; userd, once per recipient
As:      qmaild; needs no file that it can write
Exits:   0 the peer has had its answers and ended; 100 usage, or what came is no QMTP; 111 trouble
See:     qm-qmtpd(8), qmail.md 16.7
"""

from contextlib import suppress
from typing import Final, NamedTuple

from qm.disk.cdb import Cdb
from qm.disk.control import Controls
from qm.errors import QmError
from qm.unix import confine, entrance, handover, privs
from qm.unix.channel import Channel, Gone
from qm.unix.entrance import Submission
from qm.unix.program import Argv, Env, Usage, program
from qm.unix.userclient import UserClient
from qm.wire import address
from qm.wire.envelope import ADDRESS_MAX, RECIPIENTS_MAX, Envelope, Recipient
from qm.wire.netstring import encode
from qm.wire.qmtptext import decoder
from qm.wire.rcpthosts import Lookup, who_says_ours
from qm.wire.record import Malformed
from qm.wire.userquery import Verdict

CONTROLS: Final = ("databytes", "rcpthosts")
_NOT_OURS: Final = b"Dsorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
_NO_MAILBOX: Final = b"Dsorry, no mailbox here by that name (#5.1.1)"
_LATER: Final = b"Zunable to check that address now (#4.3.0)"


class Rules(NamedTuple):
    """What is taken."""

    rcpthosts: frozenset[bytes]  # in lower case
    more: Lookup
    relay: bytes | None  # RELAYCLIENT: anywhere, with this appended to each recipient
    databytes: int  # the largest message; 0: no limit
    users: UserClient | None  # who knows mailboxes


def _rules(env: Env) -> Rules:
    """Raises BadControl."""
    controls = Controls(CONTROLS)
    databytes = env.get(b"DATABYTES", b"")
    told = databytes.isdigit() and len(databytes) <= 18
    more = Cdb("control/morercpthosts.cdb")
    more.refresh()
    return Rules(
        frozenset(host.lower() for host in controls.lines("rcpthosts")),
        lambda key: more.lookup(key) is not None,
        env.get(b"RELAYCLIENT"),
        int(databytes) if told else controls.number("databytes"),
        None if b"NOUSERCHECK" in env else UserClient(),
    )


class _Session:
    """Messages, one after another."""

    def __init__(self, peer: handover.Peer, rules: Rules, queue: entrance.Queue) -> None:
        self._peer = peer
        self._input = peer.input
        self._rules = rules
        self._queue = queue

    def run(self) -> None:
        """Raises Malformed, Gone."""
        with self._queue as queue:
            while not self._input.over():
                submission = queue.begin(self._peer.trace())
                try:
                    self._peer.write(self._answers(submission))
                finally:
                    submission.abort()  # what has been committed stays

    def _answers(self, submission: Submission) -> bytes:
        """Take a message; the answers to its recipients.  Raises Malformed, Gone."""
        text = decoder(self._input.pieces(self._input.length()))
        trouble = handover.pass_on(text, submission, self._rules.databytes)
        self._input.end()
        sender = self._input.text(ADDRESS_MAX)
        good = sender is not None and b"\0" not in sender
        answers, recipients = self._recipients(b"" if good else handover.BAD_SENDER)
        envelope = Envelope(sender or b"", tuple(recipients), self._peer.ip, self._peer.protocol)
        if recipients:
            queued = handover.commit(submission, envelope, trouble)
            self._peer.note(envelope, queued)
        return b"".join(encode(answer or queued) for answer in answers)

    def _recipients(self, refusal: bytes) -> tuple[list[bytes], list[Recipient]]:
        """An answer for each, empty for those that are taken, and these.  *refusal* is for all, or empty."""
        length = self._input.length()
        end = self._input.taken + length
        answers: list[bytes] = []
        recipients: list[Recipient] = []
        while self._input.taken < end:
            recipient = self._input.text(ADDRESS_MAX)
            answer = refusal or self._judged(recipient)
            answers.append(answer)
            if len(answers) > RECIPIENTS_MAX:  # an answer is owed to each
                raise Malformed(f"more than {RECIPIENTS_MAX} recipients")
            if recipient is not None and not answer:
                recipients.append(Recipient(recipient + (self._rules.relay or b"")))
        if self._input.taken != end:
            raise Malformed("a netstring that is not as long as it says")
        self._input.end()
        return answers, recipients

    def _judged(self, recipient: bytes | None) -> bytes:
        """Why *recipient*, who is None if the address is too long, is not taken; or nothing."""
        rules = self._rules
        if not recipient or b"\0" in recipient or len(recipient) + len(rules.relay or b"") > ADDRESS_MAX:
            return handover.BAD_RECIPIENT
        try:
            if rules.relay is None:
                domain = address.split(recipient)[1]
                if domain and not who_says_ours(rules.rcpthosts, rules.more, domain):
                    return _NOT_OURS
            if rules.users is None:
                return b""
            verdict = rules.users.exists(recipient + (rules.relay or b"")).verdict
        except QmError:
            return _LATER
        return {Verdict.YES: b"", Verdict.NO: _NO_MAILBOX, Verdict.LATER: _LATER}[verdict]


@program()
def main(argv: Argv, env: Env) -> int:
    if len(argv) != 1:
        raise Usage("usage: qm-qmtpd")
    if privs.is_root():  # started without -u: what reads the network is never root
        privs.become(privs.role("qmaild"))
    confine.gain_nothing()
    channel = Channel(0, 1, handover.WAIT_S)
    try:
        peer = handover.Peer(channel, env, Controls(("me",)).me(), b"QMTP")
        return peer.talk(_Session(peer, _rules(env), entrance.queue(env)).run)
    finally:
        with suppress(Gone):
            channel.hang_up()
