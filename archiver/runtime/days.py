"""Calendar days in a time zone: each begins with its first moment, whatever the clocks do that night."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def first_moment(day: date, zone: ZoneInfo) -> datetime:
    """When `day` begins in `zone`, in UTC: at midnight; where midnight comes twice, at the first; where clocks leap over it, with
    the leap.
    """
    midnight = datetime.combine(day, time(), zone)
    moment = midnight.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return moment
    # No such time: the day begins at the first second that bears its date or a later one.
    before, at = moment - timedelta(days=1), moment
    while at - before > SECOND:
        middle = before + (at - before) // 2 // SECOND * SECOND
        if middle.astimezone(zone).date() < day:
            before = middle
        else:
            at = middle
    return at


def day_of(moment: datetime, zone: ZoneInfo) -> date:
    """The day in `zone` that contains `moment`."""
    return moment.astimezone(zone).date()


def parse_moment(text: str) -> date | datetime:
    """Parse an ISO 8601 date or date-time; one without an offset stays naive. Raises ValueError."""
    try:
        if len(text) == len("2026-03-31"):
            return date.fromisoformat(text)
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f'"{text}" must be an ISO 8601 date or date-time, such as 2026-03-31 or 2026-03-31T08:00:00+02:00'
        ) from None


def to_instant(given: date | datetime, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, of a date (its first moment) or a time in `zone`. Raises ValueError before 1970 and out of range."""
    try:
        if not isinstance(given, datetime):
            moment = first_moment(given, zone)
        else:
            moment = (given if given.tzinfo else given.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        moment = _EPOCH - SECOND
    if moment < _EPOCH:
        raise ValueError(f"{given} cannot be the time of a call: it is before 1970 or out of range")
    return moment
