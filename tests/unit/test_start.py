"""start: its time limits."""

from qm import start
from qm.supervise import STOP_S, session


def test_stopping_ends_before_the_supervisor_loses_patience() -> None:
    """However slowly all of them stop, the supervisor need not kill start, nor rc say that it failed."""
    slowest_s = session.PATIENCE_S + start.SEND_STOP_S + 4 * start.OTHERS_STOP_S
    assert slowest_s < session.KILL_S < STOP_S
