"""Calls of the last days and of today, for whoever tries out what lists calls and has no history at hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from archiver.simulator.calls import Call, HistoryScript, MadeScript
from archiver.simulator.made import MadeCalls

DAY = timedelta(days=1)

LONGEST_SECONDS = 20.0
"""Short calls, so that a hundred of them are some twenty megabytes."""


def recent_calls(count: int, *, days: int = 1, seed: int = 1, now: datetime | None = None) -> HistoryScript:
    """`count` calls of the `days` (UTC) before today: equal ones for an equal seed, whatever the hour, but for the day that they
    are of. Today's come on top, as many an hour as on those days, and all of them are over by `now`. Of a hundred three are
    voicemails, three ended at the bot, two have no recording, and one is a campaign's dial that nobody answered; all others have
    an agent.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    over = now - timedelta(seconds=LONGEST_SECONDS)
    return HistoryScript(
        calls=_of_today(midnight, over, round(count / days * ((over - midnight) / DAY)), seed + 1) if over > midnight else [],
        made=_made(midnight - days * DAY, min(midnight, over), count, seed),
    )


def _of_today(midnight: datetime, over: datetime, count: int, seed: int) -> list[Call]:
    made = MadeCalls(_made(midnight, over, count, seed))
    return [made[number] for number in range(len(made))]


def _made(begin: datetime, end: datetime, count: int, seed: int) -> MadeScript:
    script: dict[str, Any] = {
        "from": begin,
        "to": end,
        "calls": count,
        "seed": seed,
        "seconds": (5.0, LONGEST_SECONDS),
        "voicemails": count * 3 // 100,
        "ended_at_bot": count * 3 // 100,
        "unavailable": count * 2 // 100,
        "unanswered": count // 100,
    }
    return MadeScript.model_validate(script)
