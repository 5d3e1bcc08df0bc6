"""What the platform's listings are made of: stretches of time, calls, rows and pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from archiver.kore.listings.values import united

SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)

UNANSWERED = "unanswered"
"""The fact that nobody answered what a campaign dialled: "no-answer", "busy" or "failed". It has no recording."""

DEVELOPER = "developer"
"""The fact that the platform lists a session as a developer's test."""


@dataclass(frozen=True)
class Span:
    """From `start` (included) to `end` (excluded); both are aware."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """Never negative."""
        return max(self.end - self.start, timedelta(0))

    def holds(self, moment: datetime) -> bool:
        """Whether it lies within."""
        return self.start <= moment < self.end


@dataclass(frozen=True)
class Call:
    """A call that the platform lists. `kind` is what it left: a recording or a voicemail. Call details know `started_at` and
    `ended_at` to the second. `facts` has the names of `CALL_FACTS` that were told, and `UNANSWERED`.
    """

    session_id: str
    kind: str
    started_at: datetime
    ended_at: datetime | None = None
    user_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by in the archive of its bot."""
        return self.session_id, self.kind

    def joined(self, other: Call) -> Call:
        """The one call that two rows tell of, such as before and after it was passed on. Of each fact the earlier row's word
        stands, lists have what both say; it was answered if either row was.
        """
        first, last = (self, other) if self.started_at < other.started_at else (other, self)
        ends = [end for end in (self.ended_at, other.ended_at) if end is not None]
        facts = {**last.facts, **first.facts}
        for name in first.facts.keys() & last.facts.keys():
            if isinstance(first.facts[name], list) and isinstance(last.facts[name], list):
                facts[name] = united([*first.facts[name], *last.facts[name]])
        if UNANSWERED not in first.facts or UNANSWERED not in last.facts:
            facts.pop(UNANSWERED, None)
        return replace(first, ended_at=max(ends, default=None), user_id=first.user_id or last.user_id, facts=facts)


@dataclass(frozen=True)
class Row:
    """One entry of a listing: a call, or what else it is. `identity` is the same whenever it is listed."""

    identity: str
    call: Call | None = None
    other: str = ""
    """The channel, if it is not a voice channel."""
    unreadable: str = ""
    """Why it cannot be told which call it is."""


@dataclass(frozen=True)
class Page:
    """One answer: its rows, and of how many in all it speaks, if it does."""

    rows: list[Row]
    total: int | None
    more: bool = False
    """It says that there are more."""
