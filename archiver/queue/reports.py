"""What can be read of the queue and of what is recorded without changing it, as typed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from archiver.postgres.database import Database
from archiver.queue.sql import sql


@dataclass(frozen=True, slots=True)
class SessionCount:
    """Sessions of one bot in one state; pending ones also by kind. `calls`: to the platform, for all of them together."""

    bot: str
    state: str
    kind: str | None
    sessions: int
    calls: int
    rechecks: int
    accepted: int
    next_recheck: datetime | None


@dataclass(frozen=True, slots=True)
class RecordedTotals:
    """Files and bytes in the archive, and the seconds of sound where they are known."""

    files: int
    bytes: int
    seconds: float


class ReasonCount(TypedDict):
    """Sessions in one state for one reason; an empty text where there is none. `accepted`: of these."""

    state: str
    reason: str
    sessions: int
    accepted: int


class Hold(TypedDict):
    """A kind of a bot that no worker claims. Times are ISO 8601."""

    bot: str
    kind: str
    reason: str
    detail: dict[str, Any]
    since: str
    probe_at: str


class Pause(TypedDict):
    """A bot that somebody has paused."""

    bot: str
    since: str
    by: str


class BotEvent(TypedDict):
    """What a person did to a bot."""

    bot: str
    event: str
    actor: str
    at: str
    data: dict[str, Any]


class BlockedBudget(TypedDict):
    """A budget that the platform has refused for its rate limit."""

    budget: str
    until: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """What holds the bots up at the time `at`, and the last 20 things that people did to them, the oldest first."""

    at: datetime
    holds: list[Hold]
    pauses: list[Pause]
    bot_events: list[BotEvent]
    blocked: list[BlockedBudget]


@dataclass(frozen=True, slots=True)
class SessionStory:
    """One session as JSON: its row in `archive_sessions`, its rows in `archived_recordings`, its history in order of time.
    `history_removed`: older entries were pruned.
    """

    session: dict[str, Any]
    recordings: list[dict[str, Any]]
    events: list[dict[str, Any]]
    history_removed: bool


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """The state of one session."""

    session_id: str
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class FlaggedFile:
    """A recorded file that an auditor should look at, and why."""

    session_id: str
    flags: list[str]


class HeldSession(TypedDict):
    """A session that a worker has claimed."""

    bot: str
    session_id: str
    kind: str
    since: str


class WorkerDocument(TypedDict):
    """A worker as JSON. One that is not registered any more, but holds sessions still, has its ID alone."""

    id: int
    host: str | None
    pid: int | None
    version: str | None
    started_at: str | None
    renewed_at: str | None
    lease_until: str | None
    alive: bool
    claimed: int
    sessions: list[HeldSession]


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker, and the progress of its large transfers when it last wrote it: JSON, empty for a dead one."""

    worker: WorkerDocument
    progress: dict[str, Any]
    progress_at: datetime | None


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """A worker of one host. `silent`: since it last renewed its lease; `alive`: the lease holds."""

    id: int
    pid: int
    alive: bool
    silent: timedelta


@dataclass(frozen=True, slots=True)
class OldestVerification:
    """When a recording was read again last, or archived, which counts as reading it, and how many seconds ago that was."""

    at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionFile:
    """A recorded file, as one of its session."""

    ordinal: int
    source_name: str
    file_name: str
    store_key: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SessionFiles:
    """What is recorded of one session."""

    queue_id: int
    bot: str
    session_id: str
    kind: str
    state: str
    reason: str | None
    files: list[SessionFile]


class CallFile(TypedDict):
    """A recorded file of a call. `ordinal` is 0 for what the answer said besides its files; `seconds` None if unknown."""

    store_key: str
    bytes: int
    seconds: float | None
    ordinal: int
    media_type: str | None


@dataclass(frozen=True, slots=True)
class CallStory:
    """What became of a call that is in the queue. `started_at` and `ended_at` come from listings alone; `calls`: how often the
    platform was asked; `files`: how many it listed; `unanswered`: why nobody spoke; `accepted`: the mismatches that somebody
    accepted, None where nobody accepted anything.
    """

    n: int
    queue_id: int
    session_id: str
    kind: str
    state: str
    reason: str | None
    detail: dict[str, Any]
    run_at: datetime
    first_asked_at: datetime | None
    last_asked_at: datetime | None
    finished_at: datetime | None
    calls: int
    files: int | None
    unanswered: str | None
    started_at: datetime | None
    ended_at: datetime | None
    accepted_at: datetime | None
    accepted_by: str | None
    accept_reason: str | None
    accepted: list[dict[str, Any]] | None
    stored: list[CallFile]


@dataclass(frozen=True, slots=True)
class UnlistedSession:
    """An archived session that a listing of its time leaves out."""

    session_id: str
    kind: str
    state: str
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class SessionCost:
    """What an archived session takes on average: calls to the platform, bytes in the store. None where none is archived."""

    calls: float | None
    bytes: float | None


class Reports:
    """Every read-only query that commands and audits make."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """The database's time."""
        row = await self._database.row(sql("report/clock"))
        assert row is not None
        now: datetime = row["now"]
        return now

    async def count_sessions(self) -> list[SessionCount]:
        """Sessions by bot and state, and pending ones by kind, too."""
        return [SessionCount(**row) for row in await self._database.rows(sql("report/session_counts"))]

    async def recorded_totals(self) -> RecordedTotals:
        """What is in the archive."""
        row = await self._database.row(sql("report/recorded_totals"))
        assert row is not None
        return RecordedTotals(**row)

    async def count_reasons(self) -> list[ReasonCount]:
        """Why sessions ended without a recording, and why others wait; within a state the most frequent first."""
        rows = await self._database.rows(sql("report/reason_counts"))
        return [
            ReasonCount(state=row["state"], reason=row["reason"], sessions=row["sessions"], accepted=row["accepted"])
            for row in rows
        ]

    async def fleet(self) -> Fleet:
        """Holds, pauses, what people last did to bots, and blocked budgets."""
        row = await self._database.row(sql("report/fleet"))
        assert row is not None
        return Fleet(**row)

    async def find_session(self, session_id: str, bot: str | None, kind: str | None) -> list[SessionStory]:
        """The sessions of this ID, whole, in order of bot and kind; None stands for any."""
        rows = await self._database.rows(sql("report/session"), session_id=session_id, bot=bot, kind=kind)
        return [SessionStory(**row) for row in rows]

    async def find_files(self, session_id: str, bot: str | None, kind: str | None) -> list[SessionFiles]:
        """The sessions of this ID with their recorded files, in order of bot and kind; None stands for any."""
        rows = await self._database.rows(sql("report/session_files"), session_id=session_id, bot=bot, kind=kind)
        return [SessionFiles(**{**row, "files": [SessionFile(**file) for file in row["files"]]}) for row in rows]

    async def oldest_verification(self) -> OldestVerification | None:
        """Of the recording that was not read for longest; None where nothing is recorded."""
        row = await self._database.row(sql("report/oldest_verification"))
        return None if row is None else OldestVerification(**row)

    async def list_outcomes(self) -> list[SessionOutcome]:
        """Every session, in the order in which they were enqueued. Grows with the queue: for small ones, such as the demo's."""
        return [SessionOutcome(**row) for row in await self._database.rows(sql("report/outcomes"))]

    async def list_flagged_files(self) -> list[FlaggedFile]:
        """Recorded files that have flags, in order of their sessions."""
        return [FlaggedFile(**row) for row in await self._database.rows(sql("report/flagged_files"))]

    async def list_workers(self, *, all_sessions: bool) -> list[WorkerReport]:
        """Every worker with the sessions that it holds, the longest held first; without `all_sessions` only the first one."""
        rows = await self._database.rows(sql("report/workers"), all_sessions=all_sessions)
        return [WorkerReport(**row) for row in rows]

    async def list_workers_of_host(self, host: str) -> list[LocalWorker]:
        """The workers that are registered from this host."""
        return [LocalWorker(**row) for row in await self._database.rows(sql("report/workers_of_host"), host=host)]

    async def find_calls(self, bot: str, keys: Sequence[tuple[str, str]]) -> dict[int, CallStory]:
        """What became of these calls (session ID and kind) of a bot, by their position in `keys`, from 1; those alone that are
        in the queue.
        """
        ids, kinds = _columns(keys)
        rows = await self._database.rows(sql("report/call_stories"), bot=bot, session_ids=ids, kinds=kinds)
        return {row["n"]: CallStory(**row) for row in rows}

    async def find_unlisted(
        self, bot: str, start: datetime, end: datetime, listed: Sequence[tuple[str, str]]
    ) -> list[UnlistedSession]:
        """Archived sessions of a bot whose call began in [start, end), and that are not among those `listed` (ID and kind)."""
        ids, kinds = _columns(listed)
        rows = await self._database.rows(
            sql("report/unlisted_sessions"), bot=bot, start=start, end=end, session_ids=ids, kinds=kinds
        )
        return [UnlistedSession(**row) for row in rows]

    async def count_enqueued(self, bot: str, keys: Sequence[tuple[str, str]]) -> int:
        """How many of these sessions (ID and kind) of a bot are in the queue, in whatever state."""
        ids, kinds = _columns(keys)
        return len(await self._database.rows(sql("report/enqueued_sessions"), bot=bot, session_ids=ids, kinds=kinds))

    async def mean_cost(self, bot: str) -> SessionCost:
        """The mean over the sessions of a bot that were archived last."""
        row = await self._database.row(sql("report/session_cost"), bot=bot)
        assert row is not None
        return SessionCost(**row)

    async def has_due_work(self, *bots: str) -> bool:
        """Whether a session of these bots is due, and a worker is alive that could claim it."""
        row = await self._database.row(sql("report/due_work"), bots=list(bots))
        assert row is not None
        return bool(row["has_due_work"])


def _columns(keys: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Session IDs and kinds as arrays of one length."""
    return [session_id for session_id, _ in keys], [kind for _, kind in keys]
