"""Which sessions can be enqueued: above all, which times can be those of calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archiver.cli.session_files import LineError
from archiver.cli.session_records import Default, Judge
from archiver.config import Settings

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def judge() -> Judge:
    database, storage = {"url": "postgresql://nobody@localhost/none"}, {"url": "file:///nowhere"}
    settings = Settings.model_validate({"database": database, "storage": storage})
    return Judge(settings, Default("bot", "recording", "normal"), NOW)


def refused(judge: Judge, **columns: str) -> LineError:
    with pytest.raises(LineError) as caught:
        judge.session({"session_id": "s1", **columns})
    return caught.value


def test_a_call_that_ends_before_it_begins_is_refused_with_both_times(judge: Judge) -> None:
    told = str(refused(judge, started_at="2026-03-30T10:00+02:00", ended_at="2026-03-30T07:59:59Z"))
    assert told == "ended_at 2026-03-30T07:59:59+00:00 lies before started_at 2026-03-30T10:00:00+02:00"
    session = judge.session({"session_id": "s1", "started_at": "2026-03-30T10:00+02:00", "ended_at": "2026-03-30T08:00Z"})
    assert session.started_at == session.ended_at


@pytest.mark.parametrize("column", ["started_at", "ended_at"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2036-03-31", "lies 10 years ahead"),
        ("9999-12-31T23:59:59-14:00", "lies 7,973 years ahead"),
        ("2026-04-01T12:00:01Z", "lies 1 day ahead"),
        ("2026-04-11T12:00:00Z", "lies 11 days ahead"),
        ("2009-12-31T23:59:59Z", "lies before 2010"),
        ("1970-01-01", "lies before 2010"),
        ("0001-01-01T00:00:00+14:00", "lies before 2010"),
        ("1774944000", "a number of seconds since 1970 (2026-03-31T08:00:00+00:00)"),
        ("1774944000.5", "a number of seconds since 1970"),
        ("1774944000000", "a number of milliseconds since 1970 (2026-03-31T08:00:00+00:00)"),
        ("46112", "a spreadsheet's number of a day"),
        ("46112,33", "a spreadsheet's number of a day"),
        ("31.12.2025", "the year must come first"),
        ("12/31/2025 08:00", "the year must come first"),
        ("1-2-25", "the year must come first"),
        ("2025/12/31", "is not ISO 8601"),
        ("yesterday", "is not ISO 8601"),
    ],
)
def test_what_can_be_no_time_of_a_call_is_refused_with_what_must_be_there(
    judge: Judge, column: str, text: str, told: str
) -> None:
    error = refused(judge, **{column: text})
    assert str(error).startswith(f'{column} "{text}" ')
    assert told in str(error)
    assert text not in error.group
    if "lies" not in told:
        assert "2026-03-31T08:00:00+02:00" in str(error)


@pytest.mark.parametrize("text", ["2010-01-01", "20260331T080000", "2026-03-31 08:00", "2026-03-31T14:00+02:00"])
def test_times_that_calls_may_have_are_taken(judge: Judge, text: str) -> None:
    assert judge.session({"session_id": "s1", "started_at": text}).started_at is not None


def test_clocks_and_time_zones_may_differ_by_a_day(judge: Judge) -> None:
    ahead = (NOW + timedelta(hours=14)).replace(tzinfo=None).isoformat()  # Kiritimati, without its zone
    assert judge.session({"session_id": "s1", "started_at": ahead}).started_at == NOW + timedelta(hours=14)
