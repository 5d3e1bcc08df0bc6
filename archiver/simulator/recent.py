"""Calls of yesterday and today, for whoever tries out what lists calls and has no history at hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from archiver.simulator.calls import HistoryScript, MadeScript

LONGEST_SECONDS = 20.0
"""Short calls, so that a hundred of them are some twenty megabytes."""


def recent_calls(count: int, *, seed: int = 1, now: datetime | None = None) -> HistoryScript:
    """`count` calls since the beginning of yesterday (UTC), all of them over by `now`. Of a hundred three are voicemails, three
    ended at the bot, two have no recording, and one is a campaign's dial that nobody answered; all others have an agent.
    """
    now = now or datetime.now(UTC)
    yesterday = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    made = MadeScript.model_validate(
        {
            "from": yesterday,
            "to": now - timedelta(seconds=LONGEST_SECONDS),
            "calls": count,
            "seed": seed,
            "seconds": (5.0, LONGEST_SECONDS),
            "voicemails": count * 3 // 100,
            "ended_at_bot": count * 3 // 100,
            "unavailable": count * 2 // 100,
            "unanswered": count // 100,
        }
    )
    return HistoryScript(made=made)
