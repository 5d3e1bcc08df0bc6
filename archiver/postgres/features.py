"""What the database has only from some migration on that a program of this release does without: `required_by` in its header.

Code that uses such a thing asks for it first:

    if await features.has(Feature.FIGURES):
        ...
"""

from __future__ import annotations

import time
from enum import StrEnum

from archiver.postgres.database import Database
from archiver.postgres.statements import Statement

LOOK_AGAIN_SECONDS = 60.0
"""How long an answer counts: the migration may be applied while a worker runs, and a database be restored to before it."""

_THERE = Statement.parse("features", "SELECT name FROM unnest(:names::text[]) AS name WHERE to_regclass(name) IS NOT NULL")


class Feature(StrEnum):
    """Each by the table or view that it needs."""

    FIGURES = "archive_figures"
    NOTIFICATIONS = "archive_notifications"


class Features:
    """Which of them one database has. Whether the role may use it is another matter: the server then says what it lacks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[Feature, bool] = {}
        self._seen_at = float("-inf")

    async def has(self, feature: Feature) -> bool:
        """As it was within the last LOOK_AGAIN_SECONDS. Raises DatabaseError."""
        if time.monotonic() - self._seen_at > LOOK_AGAIN_SECONDS:
            await self.look()
        return self._seen[feature]

    async def look(self) -> None:
        """Look at the database now."""
        there = {row["name"] for row in await self._database.rows(_THERE, names=[str(each) for each in Feature])}
        self._seen = {each: each in there for each in Feature}
        self._seen_at = time.monotonic()
