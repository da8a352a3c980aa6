"""Dates against the standard library's calendar."""

import datetime

from hypothesis import example, given
from hypothesis import strategies as st

from qm.wire import date

SECONDS = st.integers(min_value=-62135596800, max_value=253402300799)  # the years 1 to 9999
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def test_example() -> None:
    """RFC 5322 with -0000 and no leading zero; mbox with one (qmail.md 2.7)."""
    assert date.rfc5322(1795491636) == b"Tue, 24 Nov 2026 03:40:36 -0000"
    assert date.rfc5322(0) == b"Thu, 1 Jan 1970 00:00:00 -0000"
    assert date.mbox_from(1795491636) == b"Tue Nov 24 03:40:36 2026"
    assert date.mbox_from(0) == b"Thu Jan 01 00:00:00 1970"
    assert len(date.mbox_from(1709164800)) == 24


@given(SECONDS)
@example(951782400)  # 29 February 2000
@example(951868799)
@example(4107542400)  # 1 March 2100, after no leap day
@example(1735689599)
def test_any_time(time_s: int) -> None:
    """Every second of ten thousand years is named as the standard library names it."""
    when = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=time_s)
    day, month = DAYS[when.weekday()], MONTHS[when.month - 1]
    assert date.rfc5322(time_s).decode() == f"{day}, {when.day} {month} {when.year} {when:%H:%M:%S} -0000"
    assert date.mbox_from(time_s).decode() == f"{day} {month} {when.day:02} {when:%H:%M:%S} {when.year}"
