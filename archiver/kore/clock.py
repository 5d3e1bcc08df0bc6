"""The platform's clock, as its answers tell it: how far it is from ours, and how long a `Retry-After` is by it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

TOLERANCE = 60.0
"""Seconds that our clock may differ from the platform's before a refused token is put down to it."""

MAX_OFFSET = 3600.0
"""Seconds that tokens follow the platform's clock at most. By one Date of 2099 we would sign what is good for decades."""

TOO_FAR_OFF = (
    "tokens follow the platform's clock by an hour at most; set this machine's clock (NTP), or check what answers at bots.host"
)


def ahead_of_ours(theirs: datetime | None) -> float:
    """Seconds that the platform's clock is ahead of ours, if that is more than a token bears; else 0."""
    seconds = (theirs - datetime.now(UTC)).total_seconds() if theirs is not None else 0.0
    return seconds if abs(seconds) > TOLERANCE else 0.0


def is_credible(ahead: float) -> bool:
    """Whether tokens may follow a clock that is so far ahead: an hour, as of a wrong zone, is never one to the second."""
    return abs(ahead) <= MAX_OFFSET + TOLERANCE


def skew_hint(theirs: datetime | None) -> tuple[str, dict[str, Any]]:
    """What to do when a token may have been refused because our clock is wrong, and the facts of it."""
    seconds = abs(ahead_of_ours(theirs))
    if not seconds:
        return "", {}
    clock = f"this machine's clock differs from the platform's by {seconds:.0f} s"
    facts = {"clock_differs_seconds": round(seconds)}
    if not is_credible(seconds):
        return f"{clock}: {TOO_FAR_OFF}", facts
    return f"{clock}, which alone may be why: set it (NTP)", facts


@lru_cache(maxsize=64)  # answers of one second have the same
def parse_date(value: str | None) -> datetime | None:
    """An HTTP date; None for what is none."""
    try:
        found = parsedate_to_datetime(value) if value else None
    except (ValueError, TypeError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC) if found else None


def retry_after(value: str | None, now: datetime | None) -> timedelta | None:
    """Seconds, or an HTTP date held against the server's own clock. Bounded to a day; nonsense counts as absent."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return timedelta(seconds=min(int(value), 86400))
    until = parse_date(value)
    if until is None:
        return None
    return min(max(until - (now or datetime.now(UTC)), timedelta(0)), timedelta(days=1))
