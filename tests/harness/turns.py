"""How long send's turns are while it works through many recipients.

bin/bench turns measures seconds; a test counts calls, which do not depend on what else the machine does.
"""

import subprocess
import sys
import time
from types import FrameType

from qm.disk.control import Controls
from qm.send.logbook import Logbook
from qm.send.session import CONTROLS, Sender
from qm.unix import fds
from qm.unix.loop import Loop
from qm.wire.envelope import Envelope, Recipient
from tests.harness.peers import FAKES
from tests.harness.sending import SharedDoor, TimedLoop, is_idle, let_go, make_home, write_message

KINDS = {
    "many domains": lambda n: b"u%d@d%d.example" % (n, n % 1000),
    "one domain": lambda n: b"u%d@dest.example" % n,
    "here": lambda n: b"u%d@me.example" % n,
    "dead": lambda n: b"dead%d@dest.example" % n,
    "refused": lambda n: b"no%d@d%d.example" % (n, n % 1000),
    "deferred": lambda n: b"late%d@d%d.example" % (n, n % 1000),
}


def _live(loop: Loop, kind: str, count: int, recipients: int) -> None:
    """Until *count* messages to *recipients* in all have ended; in the current directory."""
    make_home()
    for message in range(count):
        numbers = range(message * recipients // count, (message + 1) * recipients // count)
        everybody = tuple(Recipient(KINDS[kind](n)) for n in numbers)
        write_message(Envelope(b"ann@me.example", everybody, born_ns=time.time_ns() + message))
    door = SharedDoor()
    pairs = [fds.pair(), fds.pair()]
    spawners = [subprocess.Popen([sys.executable, str(FAKES / "spawner.py")], stdin=theirs) for _, theirs in pairs]
    sender = Sender(loop, Controls(CONTROLS), Logbook(), *(ours.fileno() for ours, _ in pairs))
    loop.before_wait.append(lambda: loop.stop() if is_idle(sender) else None)
    try:
        loop.run()
    finally:
        let_go(sender, loop)
        door.close()
        for process, (ours, theirs) in zip(spawners, pairs, strict=True):
            ours.close()
            theirs.close()
            process.kill()
            process.wait()


def turns_s(kind: str, count: int, recipients: int) -> list[float]:
    """CPU seconds of each turn but the first, which has the start in it."""
    loop = TimedLoop()
    _live(loop, kind, count, recipients)
    return loop.turns_s[1:]


def turns_calls(kind: str, count: int, recipients: int) -> list[int]:
    """Python calls that each turn made."""
    loop, turns = Loop(), [0]

    def count_call(frame: FrameType, event: str, argument: object) -> None:
        turns[-1] += event == "call"

    loop.before_wait.append(lambda: turns.append(0))
    sys.setprofile(count_call)
    try:
        _live(loop, kind, count, recipients)
    finally:
        sys.setprofile(None)
    return turns[1:]  # the first is the making of the messages
