"""The calls of `simulate --calls`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archiver.simulator.history import History
from archiver.simulator.recent import recent_calls

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)


@pytest.mark.parametrize("now", [NOON, NOON.replace(hour=0)])
def test_recent_calls_have_who_called_and_who_answered_and_are_over(now: datetime) -> None:
    history = History(recent_calls(200, now=now))
    calls = [history[number] for number in range(len(history))]
    assert len(calls) == history.voice == 200
    assert min(call.started_at for call in calls) >= datetime(2026, 3, 8, tzinfo=UTC)
    assert all(call.ended_at is not None and call.ended_at <= now for call in calls)
    assert all(call.caller and call.callee for call in calls)
    assert sum(call.agent is not None for call in calls) == 200 - 6 - 6 - 2
    assert sum(call.voicemail for call in calls) == sum(call.ended_at_bot for call in calls) == 6
    assert any(call.started_at < now - timedelta(hours=12) for call in calls)


def test_a_single_call_is_a_plain_one() -> None:
    (call,) = History(recent_calls(1, now=NOON)).voice_calls(0, 2**50)
    assert (call.recording, call.voicemail, call.agent is not None) == ("success", False, True)
