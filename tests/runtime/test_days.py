"""Days begin with their first moment, whatever the clocks do that night."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.runtime.days import day_of, first_moment, parse_moment, to_instant

ZONES = [
    "UTC", "Asia/Kolkata", "America/New_York", "Europe/London", "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia",
    "Africa/Cairo", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Toronto", "Atlantic/Azores", "Asia/Amman",
]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("Asia/Kolkata", "2025-03-09", "2025-03-08T18:30:00+00:00"),
        ("America/New_York", "2025-03-09", "2025-03-09T05:00:00+00:00"),  # clocks go forward at 2
        ("America/New_York", "2025-03-10", "2025-03-10T04:00:00+00:00"),
        ("America/New_York", "2025-11-02", "2025-11-02T04:00:00+00:00"),  # and back at 2
        ("America/New_York", "2025-11-03", "2025-11-03T05:00:00+00:00"),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00+00:00"),  # midnight is leapt over: the day begins at 1
        ("America/Havana", "2025-11-02", "2025-11-02T04:00:00+00:00"),  # at 1 back to midnight, which comes twice
        ("America/Toronto", "1919-03-31", "1919-03-31T04:30:00+00:00"),  # at 23:30 forward to 0:30
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00+00:00"),  # there was no 30th
    ],
)
def test_a_day_begins_with_its_first_moment(zone: str, day: str, begins: str) -> None:
    assert first_moment(date.fromisoformat(day), ZoneInfo(zone)) == datetime.fromisoformat(begins)


@given(day=st.dates(date(1900, 1, 1), date(2100, 1, 1)), zone=st.sampled_from(ZONES))
def test_nothing_of_a_day_lies_before_its_first_moment(day: date, zone: str) -> None:
    where = ZoneInfo(zone)
    begins = first_moment(day, where)
    assert day_of(begins, where) >= day  # later only if there was no such day
    assert all(day_of(begins - timedelta(milliseconds=before), where) < day for before in (1, 60_000, 7_200_000, 80_000_000))


def test_what_a_time_means_is_for_the_zone_to_say_unless_it_says_so_itself() -> None:
    new_york = ZoneInfo("America/New_York")
    assert to_instant(parse_moment("2025-03-09"), new_york) == datetime(2025, 3, 9, 5, tzinfo=UTC)
    assert to_instant(parse_moment("2025-03-09T12:00"), new_york) == datetime(2025, 3, 9, 16, tzinfo=UTC)
    assert to_instant(parse_moment("2025-03-09T12:00:00.250Z"), new_york) == datetime(2025, 3, 9, 12, 0, 0, 250_000, tzinfo=UTC)
    assert to_instant(parse_moment("2025-03-09T12:00+05:30"), new_york) == datetime(2025, 3, 9, 6, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2025-13-01", "2025-3-1", "09/03/2025"])
def test_what_is_no_time_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_moment(text)


@pytest.mark.parametrize(("text", "zone"), [("0001-01-01", "Asia/Kolkata"), ("9999-12-31T23:59:59", "America/New_York")])
def test_the_ends_of_time_are_no_times_of_calls(text: str, zone: str) -> None:
    with pytest.raises(ValueError, match="cannot be the time of a call"):
        to_instant(parse_moment(text), ZoneInfo(zone))
