"""What people do to the queue: bring sessions back, take them out, pause bots and resume them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

import asyncpg

from archiver.postgres.database import Database
from archiver.queue.call_times import CallTimes
from archiver.queue.sql import sql
from archiver.session import State

BATCH = 5000
"""How many rows one statement of an operator's command changes: a million would take longer than a statement may."""

FOUND = 100_000
"""How many rows are looked for at a time: each look reads all that waits."""

WAITING = (State.PENDING, State.CLAIMED)
"""The states that `cancel` takes sessions out of; `retry` brings them back from all others."""


OnBatch = Callable[[Sequence[str]], None]
"""Called with the IDs of each batch that was changed (in a dry run: would be), after it is committed. What it raises ends the
command there.
"""


def _unheard(_: Sequence[str]) -> None:
    pass


class Choice(TypedDict, total=False):
    """Which sessions an operator means. What is left out, None or empty chooses any.

    `errors`: why they ended, or were last put back. `since` and `until` (exclusive): when they ended, or were enqueued if they
    have not. `called`: when their calls began.
    """

    ids: Sequence[str] | None
    bot: str | None
    kind: str | None
    states: Sequence[State]
    errors: Sequence[str]
    since: datetime | None
    until: datetime | None
    called: CallTimes | None


class Operators:
    """The commands of people, each with an entry in the history that names who gave it (`actor`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cancel(
        self, *, reason: str, actor: str, dry_run: bool = False, on_batch: OnBatch = _unheard, **choice: Unpack[Choice]
    ) -> list[str]:
        """Take waiting and claimed sessions out; returns the IDs of those that were (a dry run: would be). One that was brought
        back from archived is archived again.
        """
        states = [state for state in choice.get("states") or WAITING if state in WAITING]
        changed: list[str] = []
        async for rows in self._find_sessions(states, choice, waiting=True):
            done = rows
            if not dry_run:
                ids = [row["id"] for row in rows]
                done = await self._database.rows(sql("operate/cancel"), ids=ids, states=states, reason=reason, actor=actor)
            changed += [row["session_id"] for row in done]
            on_batch([row["session_id"] for row in done])
        return changed

    async def retry(
        self, *, actor: str, dry_run: bool = False, on_batch: OnBatch = _unheard, **choice: Unpack[Choice]
    ) -> list[str]:
        """Bring ended sessions back with fresh counters; returns the IDs of those that were (a dry run: would be). One that was
        archived ends archived again, unless the platform lists a file that cannot be had.
        """
        states = [state for state in choice.get("states") or State if state not in WAITING]
        changed: list[str] = []
        async for rows in self._find_sessions(states, choice):
            done = rows
            if not dry_run:
                ids, epochs = [row["id"] for row in rows], [row["epoch"] for row in rows]
                done = await self._database.rows(sql("operate/retry"), ids=ids, epochs=epochs, actor=actor)
            changed += [row["session_id"] for row in done]
            on_batch([row["session_id"] for row in done])
        return changed

    async def accept(
        self, *, reason: str, actor: str, dry_run: bool = False, on_batch: OnBatch = _unheard, **choice: Unpack[Choice]
    ) -> list[str]:
        """Answer for failed sessions, and for those that an account or `verify` found wrong: they stay as they are, and make no
        account incomplete any more, nor `verify` end with 3. Returns the IDs of those that were accepted (a dry run: would be).
        `retry` undoes it. One that is neither failed nor archived is to end first.
        """
        found = await self._database.rows(sql("operate/find_open"), **_parameters(choice))
        if dry_run:
            changed = [row["session_id"] for row in found]
            on_batch(changed)
            return changed
        changed = []
        for first in range(0, len(found), BATCH):
            chosen = [{key: row[key] for key in ("id", "epoch", "fails", "findings")} for row in found[first : first + BATCH]]
            done = await self._database.rows(sql("operate/accept"), chosen=chosen, reason=reason, actor=actor)
            changed += [row["session_id"] for row in done]
            on_batch([row["session_id"] for row in done])
        return changed

    async def _find_sessions(
        self, states: Sequence[State], choice: Choice, *, waiting: bool = False
    ) -> AsyncIterator[list[asyncpg.Record]]:
        """Pages of at most BATCH chosen rows in the order of their IDs."""
        after = 0
        find = sql("operate/find_waiting" if waiting else "operate/find_sessions")
        while rows := await self._database.rows(find, **_parameters(choice), states=states, after=after, page=FOUND):
            for first in range(0, len(rows), BATCH):
                yield rows[first : first + BATCH]
            after = rows[-1]["id"]
            if len(rows) < FOUND:
                return

    async def pause(self, bots: Sequence[str] | None, *, actor: str) -> list[str]:
        """Let nothing of these bots (None: of all) be claimed any more. Returns the bots' names."""
        return [row["name"] for row in await self._database.rows(sql("operate/pause"), bots=bots, actor=actor)]

    async def resume(self, bots: Sequence[str] | None, *, actor: str) -> dict[str, int]:
        """End the pauses and holds of these bots (None: of all). Returns how many holds ended, by bot."""
        return {row["name"]: row["holds"] for row in await self._database.rows(sql("operate/resume"), bots=bots, actor=actor)}


def _parameters(choice: Choice) -> dict[str, Any]:
    """For a statement; the states are its own."""
    return {
        "session_ids": choice.get("ids"),
        "bot": choice.get("bot"),
        "kind": choice.get("kind"),
        "reasons": list(choice.get("errors", ())) or None,
        "since": choice.get("since"),
        "until": choice.get("until"),
        **(choice.get("called") or CallTimes()).parameters(),
    }
