"""Dates in mail, always in UTC (qmail.md 2.7).

Pure arithmetic: a program that users start must not pay for importing datetime.  Whoever stamps many messages keeps
the result for the length of a second.
"""

from typing import Final

_DAYS: Final = (b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed")  # 1 January 1970 was a Thursday
_MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month (0 to 11) and day of the day *days* after 1 January 1970.

    The year is taken to begin in March, so that the leap day is its last.
    """
    era, day_of_era = divmod(days + 719468, 146097)  # from 1 March 0000; 400 years have 146097 days
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    month = (march_month + 2) % 12
    return era * 400 + year_of_era + (month < 2), month, day


def rfc5322(time_s: int) -> bytes:
    """``Tue, 24 Nov 2026 03:40:36 -0000``; the day has no leading zero."""
    days, seconds = divmod(time_s, 86400)
    year, month, day = _civil(days)
    clock = (seconds // 3600, seconds // 60 % 60, seconds % 60)
    # RFC 5322 3.3: -0000 says that the host's own zone is not told
    return b"%b, %d %b %d %02d:%02d:%02d -0000" % (_DAYS[days % 7], day, _MONTHS[month], year, *clock)


def rfc5322_local(time_s: int, east_s: int) -> bytes:
    """As `rfc5322`, in a zone whose clock is *east_s* ahead of UTC: ``24 Nov 2026 04:40:36 +0100``, with its day."""
    hours, minutes = divmod(abs(east_s) // 60, 60)
    zone = b"%c%02d%02d" % (b"-" if east_s < 0 else b"+", hours, minutes)
    return rfc5322(time_s + east_s)[: -len(zone)] + zone


def mbox_from(time_s: int) -> bytes:
    """``Tue Nov 24 03:40:36 2026``, for the From_ line of an mbox; the day is zero padded (qmail.md 2.7)."""
    days, seconds = divmod(time_s, 86400)
    year, month, day = _civil(days)
    clock = (seconds // 3600, seconds // 60 % 60, seconds % 60)
    return b"%b %b %02d %02d:%02d:%02d %d" % (_DAYS[days % 7], _MONTHS[month], day, *clock, year)


def compact(time_s: int) -> bytes:
    """``20261124034036``, for a Message-ID."""
    days, seconds = divmod(time_s, 86400)
    year, month, day = _civil(days)
    return b"%04d%02d%02d%02d%02d%02d" % (year, month + 1, day, seconds // 3600, seconds // 60 % 60, seconds % 60)
