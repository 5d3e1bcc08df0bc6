"""The calls of `simulate --calls`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archiver.simulator.calls import Call
from archiver.simulator.history import History
from archiver.simulator.recent import recent_calls

MIDNIGHT = datetime(2026, 3, 9, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)


def listed(history: History) -> list[Call]:
    return [history[number] for number in range(len(history))]


@pytest.mark.parametrize(("now", "today"), [(NOON, 100), (MIDNIGHT, 0), (MIDNIGHT + timedelta(seconds=21), 0)])
def test_recent_calls_have_who_called_and_who_answered_and_are_over(now: datetime, today: int) -> None:
    history = History(recent_calls(200, now=now))
    calls = listed(history)
    assert len(calls) == history.voice == 200 + today
    assert min(call.started_at for call in calls) >= MIDNIGHT - timedelta(days=1)
    assert all(call.ended_at is not None and call.ended_at <= now for call in calls)
    assert all(call.caller and call.callee for call in calls)
    yesterday = [call for call in calls if call.started_at < MIDNIGHT]
    assert len(yesterday) == 200
    assert sum(call.agent is not None for call in yesterday) == 200 - 6 - 6 - 2
    assert sum(call.voicemail for call in yesterday) == sum(call.ended_at_bot for call in yesterday) == 6


def test_the_days_before_today_are_equal_whatever_the_hour() -> None:
    morning, evening = (
        [call for call in listed(History(recent_calls(300, days=7, now=now))) if call.started_at < MIDNIGHT]
        for now in (MIDNIGHT + timedelta(hours=1), MIDNIGHT + timedelta(hours=23))
    )
    assert morning == evening
    assert len(morning) == 300
    assert {(MIDNIGHT - call.started_at).days for call in morning} == set(range(7))


def test_a_single_call_is_a_plain_one() -> None:
    (call,) = History(recent_calls(1, now=MIDNIGHT)).voice_calls(0, 2**50)
    assert (call.recording, call.voicemail, call.agent is not None) == ("success", False, True)
