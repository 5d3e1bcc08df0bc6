"""Finding sessions: by state, bot, reason and the date of the call, or by who spoke."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from archiver.postgres.database import Database
from archiver.queue.call_times import CallTimes
from archiver.queue.sql import sql

PAGE, MAX_PAGE = 1000, 16_000
"""Sessions that the first statement reads, and that a later one reads at most: each of these looks through all that it finds."""

KEY_DIGITS = 7
"""The last digits of a number, by which an index finds it."""

_LAST_ID = 2**63 - 1


@dataclass(frozen=True)
class Chosen:
    """Which sessions: what is None or empty chooses any. `reasons` are those of the sessions, and what a partial one lacks.
    `acceptance`: "open" are failed ones, and those that an account or `verify` found wrong, that nobody accepted.
    """

    bots: Sequence[str] = ()
    kinds: Sequence[str] = ()
    states: Sequence[str] = ()
    reasons: Sequence[str] = ()
    called: CallTimes = field(default_factory=CallTimes)
    acceptance: Literal["open", "accepted"] | None = None

    def parameters(self) -> dict[str, Any]:
        """For a statement."""
        return {
            "bots": list(self.bots) or None,
            "kinds": list(self.kinds) or None,
            "states": list(self.states) or None,
            "reasons": list(self.reasons) or None,
            **self.called.parameters(),
        }


@dataclass(frozen=True)
class People:
    """Who spoke. A number is equal to one that is written otherwise: what counts is its digits, as far as both go back, without
    leading zeros; the last seven have to be given. Of `agent` every word has to be in one name, address or ID, in this order.
    """

    caller: str | None = None
    callee: str | None = None
    agent: str | None = None
    user_id: str | None = None

    @property
    def nobody(self) -> bool:
        """Nothing is given."""
        return not (self.caller or self.callee or self.agent or self.user_id)

    def parameters(self) -> dict[str, Any]:
        """For a statement."""
        given: dict[str, Any] = {"agent": self.agent or None, "user_id": self.user_id or None}
        for name, value in (("caller", self.caller), ("callee", self.callee)):
            digits = re.sub(r"[^0-9]", "", (value or "").partition("@")[0])
            given |= {name: value or None, f"{name}_key": digits[-KEY_DIGITS:], f"{name}_digits": digits.lstrip("0")}
        return given


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session. `at`: by which it has its place; `called_at`: when its call began, as far as is known; `call`: what a listing
    said of it; `seconds` None if unknown.
    """

    queue_id: int
    at: datetime
    called_at: datetime
    bot: str
    session_id: str
    kind: str
    state: str
    reason: str | None
    inner_reason: str | None
    started_at: datetime | None
    ended_at: datetime | None
    user_id: str | None
    call: dict[str, Any]
    accepted_at: datetime | None
    accepted_by: str | None
    accept_reason: str | None
    files: int
    bytes: int
    seconds: float | None


class Search:
    """Finds sessions, the latest calls first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, chosen: Chosen, people: People | None = None, *, limit: int | None) -> AsyncGenerator[FoundSession]:
        """At most `limit` sessions (None: all), read page by page: constant memory."""
        parameters = chosen.parameters()
        if people is None:
            statement = sql("search/sessions")
            parameters["acceptance"] = chosen.acceptance
        else:
            statement = sql("search/people")
            parameters |= people.parameters()
        after_at, after_id, left, size = datetime.max.replace(tzinfo=UTC), _LAST_ID, limit, PAGE
        while left is None or left > 0:
            page = size if left is None else min(size, left)
            size = min(4 * size, MAX_PAGE)
            rows = await self._database.rows(statement, **parameters, after_at=after_at, after_id=after_id, page=page)
            for row in rows:
                yield FoundSession(**row)
            if len(rows) < page:
                return
            after_at, after_id = rows[-1]["at"], rows[-1]["queue_id"]
            left = None if left is None else left - page
