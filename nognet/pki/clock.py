"""How far this machine's clock is off, by the coordinator's HTTP Date header."""

from __future__ import annotations

import datetime as dt
import email.utils

WARN_CLOCK_S = 60.0
"""A clock that is further behind is warned of: from 305 s on the coordinator refuses signatures."""
WARN_AHEAD_S = 4.0
"""And one that is further ahead: what it signs lies in the future, which is refused from 5 s on."""
REFUSED_BEHIND_S = 305.0
REFUSED_AHEAD_S = 5.0
"""From these on Flower's node authentication refuses a signature: 300 s, and 5 s for drift."""


def is_off(ahead_s: float | None) -> bool:
    """Whether a difference is worth a word.

    >>> [is_off(seconds) for seconds in (None, 1.0, 5.0, -30.0, -61.0)]
    [False, False, True, False, True]
    """
    return ahead_s is not None and not -WARN_CLOCK_S <= ahead_s <= WARN_AHEAD_S


def is_refused(ahead_s: float) -> bool:
    """Whether the coordinator refuses what a clock so far ahead of its own has signed.

    >>> [is_refused(seconds) for seconds in (300.0, 5.0, 4.9, -304.9, -305.0)]
    [True, True, False, False, True]
    """
    return not -REFUSED_BEHIND_S < ahead_s < REFUSED_AHEAD_S


def clock_ahead_s(http_date: str, now: dt.datetime | None = None) -> float | None:
    """Seconds that this machine's clock is ahead of an HTTP Date header; None if unreadable.

    >>> noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    >>> clock_ahead_s("Thu, 01 Jan 2026 11:59:00 GMT", noon)
    60.0
    """
    try:
        there = email.utils.parsedate_to_datetime(http_date)
    except ValueError:
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=dt.UTC)
    return ((now or dt.datetime.now(dt.UTC)) - there).total_seconds()


def clock_words(ahead_s: float) -> str:
    """Say how the two clocks differ.

    >>> clock_words(-90.2)
    "the clocks differ by 90 s (this machine's is behind)"
    """
    side = "ahead" if ahead_s > 0 else "behind"
    return f"the clocks differ by {abs(ahead_s):.0f} s (this machine's is {side})"
