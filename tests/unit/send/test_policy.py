"""send's decisions: VERP, bounces, the end of a message's life, log lines."""

from hypothesis import given
from hypothesis import strategies as st

from qm.send import policy
from qm.send.policy import BounceRoute
from qm.wire.envelope import Recipient


def test_verp_names_the_recipient() -> None:
    """A sender ending in -@[] is told each recipient (qmail.md 29)."""
    assert policy.delivery_sender(b"list-return-@ex.org-@[]", b"bob@site.net") == b"list-return-bob=site.net@ex.org"


def test_other_senders_pass_unchanged() -> None:
    """No VERP without the suffix, an @ before it, and an @ in the recipient (qmail.md 7.7)."""
    for sender in (b"", b"a@b", b"#@[]", b"list-@[]"):
        assert policy.delivery_sender(sender, b"bob@site.net") == sender
    assert policy.delivery_sender(b"l-@h-@[]", b"bob") == b"l-@h-@[]"


def test_a_bounce_goes_to_the_sender() -> None:
    """Its own sender is null, and a VERP sender loses its suffix (qmail.md 7.11)."""
    assert policy.bounce_route(b"a@b", b"pm@me") == BounceRoute(b"", b"a@b", False)
    assert policy.bounce_route(b"list-return-@ex.org-@[]", b"pm@me") == BounceRoute(b"", b"list-return-@ex.org", False)


def test_a_bounce_of_a_bounce_goes_to_the_postmaster_and_ends_there() -> None:
    """Double bounces go to doublebounceto from #@[]; what that causes is dropped."""
    assert policy.bounce_route(b"", b"pm@me") == BounceRoute(policy.DOUBLE, b"pm@me", True)
    assert policy.bounce_route(policy.DOUBLE, b"pm@me") is None


def test_log_lines_hold_no_blanks_or_controls() -> None:
    """The vector of the reference: `a b%c` LF becomes `a_b_c/` (qmail.md 29)."""
    assert policy.printable(b"a b%c\n") == b"a_b_c/"


@given(st.binary())
def test_any_text_is_printable(text: bytes) -> None:
    """Whatever a stranger sent, a log line of it is one word of printable ASCII."""
    shown = policy.printable(text)
    assert len(shown) == len(text)
    assert all(33 <= byte <= 126 and byte != ord("%") for byte in shown)


def test_notify_decides_who_is_told() -> None:
    """RFC 3461 4.1: failures unless said otherwise, success only when asked for, nothing for NEVER."""
    silent, never, success = Recipient(b"a"), Recipient(b"a", b"NEVER"), Recipient(b"a", b"SUCCESS,DELAY")
    assert policy.wants_failure(silent) and not policy.wants_success(silent) and policy.wants_delay(silent)
    assert not (policy.wants_failure(never) or policy.wants_success(never) or policy.wants_delay(never))
    assert policy.wants_success(success) and policy.wants_delay(success) and not policy.wants_failure(success)


def test_the_last_try_is_after_the_lifetime() -> None:
    """A try that begins after birth plus queuelifetime is the last."""
    assert not policy.is_dying(100, 700, 600)
    assert policy.is_dying(100, 701, 600)
