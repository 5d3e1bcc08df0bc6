"""--from and --to: each bot's days begin in its own time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from archiver.cli.call_times import CallTimes, call_times
from archiver.config import Settings
from archiver.errors import UsageError

NOW = datetime(2026, 4, 1, 20, tzinfo=UTC)
DAY, NEXT = date(2026, 3, 31), date(2026, 4, 1)


def configured(**zones: str) -> Settings:
    bots = [
        {"name": name, "bot_id": f"st-{name}", "client_id": "cs-1", "client_secret": "secret-1", "time_zone": zone}
        for name, zone in zones.items()
    ]
    database, storage = {"url": "postgresql://nobody@localhost/none"}, {"url": "file:///nowhere"}
    return Settings.model_validate({"bots": bots, "database": database, "storage": storage})


def test_a_date_is_each_bots_own_and_utc_for_a_bot_that_is_not_configured() -> None:
    settings = configured(east="Asia/Kolkata", west="America/New_York")
    times = call_times(settings, DAY, NEXT, now=NOW)
    assert times.by_bot == {
        "east": (datetime(2026, 3, 30, 18, 30, tzinfo=UTC), datetime(2026, 3, 31, 18, 30, tzinfo=UTC)),
        "west": (datetime(2026, 3, 31, 4, tzinfo=UTC), datetime(2026, 4, 1, 4, tzinfo=UTC)),
    }
    assert times.default == (datetime(2026, 3, 31, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    assert times.widest == (datetime(2026, 3, 30, 18, 30, tzinfo=UTC), datetime(2026, 4, 1, 4, tzinfo=UTC))
    parameters = times.parameters()
    assert parameters["call_bots"] == ["", "east", "west"]
    assert parameters["call_starts"] == [start for start, _ in (times.default, *times.by_bot.values())]
    assert (parameters["call_from"], parameters["call_to"]) == times.widest


def test_an_instant_is_the_same_for_all_so_that_one_range_says_it() -> None:
    instant = datetime(2026, 3, 31, 8, tzinfo=timezone(timedelta(hours=2)))
    times = call_times(configured(east="Asia/Kolkata", west="America/New_York"), instant, None, now=NOW)
    assert times.by_bot == dict.fromkeys(("east", "west"), times.default)
    assert times.parameters() == {
        "call_from": instant, "call_to": None, "call_bots": None, "call_starts": None, "call_ends": None
    }  # fmt: skip
    assert CallTimes().parameters() == call_times(configured(), None, None).parameters()
    assert set(CallTimes().parameters().values()) == {None}


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (NEXT, DAY, "--to 2026-03-31 is not after --from 2026-04-01"),
        (DAY, DAY, "--to 2026-03-31 is not after --from 2026-03-31"),
        (date(2026, 4, 3), None, "--from 2026-04-03 lies in the future"),
        (date(2036, 3, 31), date(2036, 4, 1), "--from 2036-03-31 lies in the future"),
        (date(1969, 1, 1), None, "before 1970"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), None, "before 1970"),
    ],
)
def test_bounds_that_nothing_can_lie_between_are_refused(start: date, end: date | None, told: str) -> None:
    for settings in (configured(), configured(east="Asia/Kolkata", west="America/New_York")):
        with pytest.raises(UsageError, match=told) as refused:
            call_times(settings, start, end, now=NOW)
        assert refused.value.hint


def test_a_day_that_has_begun_for_one_bot_is_not_in_the_future() -> None:
    tomorrow = date(2026, 4, 2)  # in Kolkata it is half past one
    begun = call_times(configured(east="Asia/Kolkata", west="America/New_York"), tomorrow, None, now=NOW)
    assert begun.by_bot["east"] == (datetime(2026, 4, 1, 18, 30, tzinfo=UTC), None)
    with pytest.raises(UsageError, match="future"):
        call_times(configured(west="America/New_York"), tomorrow, None, now=NOW)
