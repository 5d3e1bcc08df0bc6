"""Recorded files in the order in which they are to be read again: those that were not read for longest first."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from archiver.postgres.database import Database
from archiver.queue.call_times import CallTimes
from archiver.queue.sql import sql

PAGE = 1000
"""Recorded files that one statement looks at."""

COUNT_PAGE = 50_000
"""And one that only counts."""


@dataclass(frozen=True)
class ChosenFiles:
    """Which recorded files; None chooses any. `prefix`: what their keys begin with; `called`: when their calls began."""

    bot: str | None = None
    kind: str | None = None
    prefix: str | None = None
    called: CallTimes = field(default_factory=CallTimes)

    @property
    def whole(self) -> bool:
        """All files of a bot, or of all."""
        return self.kind is None and not self.prefix and not self._by_call

    @property
    def _by_call(self) -> bool:
        return any(value is not None for value in self.called.parameters().values())

    def parameters(self) -> dict[str, Any]:
        """For a statement."""
        prefix = self.prefix or None
        return {"bot": self.bot, "kind": self.kind, "prefix": prefix, "called": self._by_call, **self.called.parameters()}


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A recorded file."""

    queue_id: int
    store_key: str
    bot: str
    session_id: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Behind which file a page begins. Times are text here: others may have written one that no calendar has."""

    after: str = "-infinity"
    after_id: int = 0
    after_key: str = ""


class RecordedFiles:
    """Reads them, page by page."""

    def __init__(self, database: Database, chosen: ChosenFiles) -> None:
        self._database = database
        self._parameters = chosen.parameters()

    async def now(self) -> datetime:
        """The database's time."""
        row = await self._database.row(sql("report/clock"))
        assert row is not None
        now: datetime = row["now"]
        return now

    async def count(self) -> int:
        """How many there are."""
        found, place = 0, _Place()
        while rows := await self._rows("verify/count", place, None, ahead=False, page=COUNT_PAGE):
            (row,) = rows
            found += row["files"]
            place = _Place(row["last_at"], row["last_id"], row["last_key"])
        return found

    async def pages(self, now: datetime, not_since: datetime) -> AsyncGenerator[list[RecordedFile]]:
        """Those that were not read since `not_since`, which is at most the database's `now`; before them those that are said to
        be read at a time that is still to come: of these nobody knows when they were. Each page is what is chosen of at most PAGE
        files. What is marked as read meanwhile does not come again, and what is archived meanwhile does not come.
        """
        for ahead in (True, False):
            place = _Place(now.astimezone(UTC).replace(tzinfo=None).isoformat()) if ahead else _Place()
            until = None if ahead else not_since - timedelta(microseconds=1)
            while rows := await self._rows("verify/page", place, until, ahead=ahead, page=PAGE):
                place = _Place(rows[-1]["last_at"], rows[-1]["last_id"], rows[-1]["last_key"])
                yield [
                    RecordedFile(row["queue_id"], row["store_key"], row["bot"], row["session_id"], row["bytes"], row["sha256"])
                    for row in rows
                    if row["queue_id"] is not None
                ]

    async def _rows(self, name: str, place: _Place, until: datetime | None, *, ahead: bool, page: int) -> list[Any]:
        after = {"after": place.after, "after_id": place.after_id, "after_key": place.after_key}
        return await self._database.rows(sql(name), **self._parameters, **after, until=until, ahead=ahead, page=page)
