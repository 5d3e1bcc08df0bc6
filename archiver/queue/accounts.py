"""The accounts of calls that were made, and what they left open: kept, so that nobody has to ask the platform again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from archiver.postgres.database import Database
from archiver.queue.sql import sql


@dataclass(frozen=True, slots=True)
class AccountDay:
    """A day of a bot, which begins at midnight in its time zone, in an account. `whole`: the account was of all of it, from
    `from_at` to `to_at`; `complete`: of the whole day, and nothing of it is left to be done.
    """

    bot: str
    day: date
    time_zone: str
    from_at: datetime
    to_at: datetime
    whole: bool
    complete: bool
    open_calls: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to keep. `problems` and `failed_bots` are JSON."""

    command: str
    version: str
    from_at: datetime
    to_at: datetime
    complete: bool
    counts: Mapping[str, int]
    problems: Sequence[Mapping[str, Any]]
    failed_bots: Mapping[str, str]
    days: Sequence[AccountDay]


@dataclass(frozen=True, slots=True)
class KeptAccount:
    """An account as it was kept. `open_days`: whole days of it that are not complete."""

    id: int
    made_at: datetime
    made_by: str
    command: str
    version: str
    from_at: datetime
    to_at: datetime
    complete: bool
    counts: dict[str, int]
    problems: list[dict[str, Any]]
    failed_bots: dict[str, str]
    open_days: int


@dataclass(frozen=True, slots=True)
class KnownDay:
    """What the latest account of a bot's whole day says of it, or else the latest of a part; see AccountDay. `open_later`: one
    that was made after it, of a part of the day, found something to be done.
    """

    bot: str
    day: date
    time_zone: str
    whole: bool
    complete: bool
    open_later: bool
    counts: dict[str, int]
    made_at: datetime
    command: str
    version: str
    account_id: int


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that somebody has to see to, and why. `called_at`: when its call began, else when it was enqueued."""

    bot: str
    session_id: str
    kind: str
    state: str
    reason: str
    called_at: datetime


@dataclass(frozen=True, slots=True)
class OpenCounts:
    """How many sessions somebody has to see to: that failed, or are archived and do not match, and that nobody accepted."""

    failed: int
    mismatched: int


class Accounts:
    """What `nightly` and `reconcile` leave behind."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, account: NewAccount, *, actor: str) -> None:
        """Append an account."""
        days = account.days
        await self._database.rows(
            sql("account/keep"),
            actor=actor,
            command=account.command,
            version=account.version,
            from_at=account.from_at,
            to_at=account.to_at,
            complete=account.complete,
            counts=dict(account.counts),
            problems=[dict(problem) for problem in account.problems],
            failed_bots=dict(account.failed_bots),
            bots=[day.bot for day in days],
            days=[day.day for day in days],
            time_zones=[day.time_zone for day in days],
            days_from=[day.from_at for day in days],
            days_to=[day.to_at for day in days],
            whole=[day.whole for day in days],
            days_complete=[day.complete for day in days],
            days_open=[day.open_calls for day in days],
            days_counts=[dict(day.counts) for day in days],
        )

    async def keep_findings(self, found: Mapping[int, Sequence[Mapping[str, Any]]], fine: Sequence[int], *, actor: str) -> None:
        """Remember what was found wrong with archived sessions, by their queue IDs, and forget it of those that are fine now."""
        if found or fine:
            rows = [{"id": queue_id, "findings": list(findings)} for queue_id, findings in found.items()]
            await self._database.rows(sql("account/keep_findings"), found=rows, fine=list(fine), actor=actor)

    async def list_kept(self, *, bot: str | None, max_rows: int) -> list[KeptAccount]:
        """The accounts that were made last, of `bot` (None: of any), the latest first."""
        rows = await self._database.rows(sql("account/list"), bot=bot, max_rows=max_rows)
        return [KeptAccount(**row) for row in rows]

    async def list_days(self, bots: Sequence[str], first: date, last: date) -> list[KnownDay]:
        """What is known of the days from `first` to `last`, in order of bot and day. Days that no account was made of are not
        among them.
        """
        rows = await self._database.rows(sql("account/days"), bots=list(bots), first=first, last=last)
        return [KnownDay(**row) for row in rows]

    async def last_complete_days(self) -> dict[str, date | None]:
        """By bot, the last day of which an account says that it is complete; None: of none, though accounts were made."""
        return {row["bot"]: row["complete"] for row in await self._database.rows(sql("account/last_days"))}

    async def count_open(self, bots: Sequence[str], *, without: Sequence[tuple[str, str, str]]) -> OpenCounts:
        """How many sessions of these bots somebody has to see to, without these (bot, session ID and kind)."""
        (row,) = await self._database.rows(sql("account/open_counts"), bots=list(bots), **_named(without))
        return OpenCounts(**row)

    async def list_open(
        self, bots: Sequence[str], *, without: Sequence[tuple[str, str, str]], max_rows: int
    ) -> list[OpenSession]:
        """Those sessions, the latest calls first, without these (bot, session ID and kind)."""
        rows = await self._database.rows(
            sql("account/open_sessions"),
            bots=list(bots),
            **_named(without),
            max_rows=max_rows,
        )
        return [OpenSession(**row) for row in rows]


def _named(sessions: Sequence[tuple[str, str, str]]) -> dict[str, list[str]]:
    """For a statement."""
    return {
        "except_bots": [bot for bot, _, _ in sessions],
        "except_ids": [session_id for _, session_id, _ in sessions],
        "except_kinds": [kind for _, _, kind in sessions],
    }
