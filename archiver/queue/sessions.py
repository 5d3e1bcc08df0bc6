"""The queue of sessions: the only code that writes their rows.

Every write of a claimed session names its epoch and learns whether it still owned the row; if not, it wrote nothing. Delays are
sent as delays: the database's clock alone decides when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from archiver.config import RetrySettings
from archiver.errors import DatabaseError
from archiver.observe.logs import logger
from archiver.outcome import Outcome, facts_of
from archiver.postgres.database import Database
from archiver.postgres.statements import Statement
from archiver.queue.claim_rows import RECHECKS, SESSIONS, plan_turns, read_sessions
from archiver.queue.outcome_rows import OutcomeRows
from archiver.queue.producers import enqueue_statement
from archiver.queue.quota import PROBE_TURN, Quota
from archiver.queue.rescue_rows import Leftover, Rescued
from archiver.queue.sql import sql
from archiver.session import Attempt, Session, State

log = logger(__name__)

PROBE_EVERY = timedelta(minutes=5)
"""How often one session may try a held bot again."""

PRUNE_BATCH = 500
"""Sessions whose old history one statement removes: some thousand rows."""

NO_RETENTIONS: Mapping[str, timedelta | None] = {}
"""Nobody knows for how long the platform keeps recordings."""

MAX_CRASHES = 5
"""A session that was held by so many dying workers is given up: it would only take the next one down."""

MAX_STALLS = 5
"""So often a session may be in the hands of a worker that loses its lease because its own event loop stalled, before that counts
as a crash. A loop may be stalled by its machine, or by what it works on.
"""


@dataclass(frozen=True)
class NewSession:
    """A session to enqueue."""

    bot: str
    session_id: str
    kind: str = "recording"
    priority: str = "normal"
    user_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: Mapping[str, Any] | None = None


def columns_of(sessions: Sequence[NewSession]) -> dict[str, Any]:
    """The parameters of a statement that enqueues them."""
    return {
        "bots": [session.bot for session in sessions],
        "session_ids": [session.session_id for session in sessions],
        "kinds": [session.kind for session in sessions],
        "priorities": [session.priority for session in sessions],
        "user_ids": [session.user_id for session in sessions],
        "started_at": [session.started_at for session in sessions],
        "ended_at": [session.ended_at for session in sessions],
        "metadata": [dict(session.metadata or {}) for session in sessions],
    }


@dataclass(frozen=True)
class CallFacts:
    """What a listing says of a session's call."""

    session_id: str
    kind: str
    started_at: datetime
    ended_at: datetime | None
    user_id: str | None
    facts: Mapping[str, Any]


def call_columns(bot: str, calls: Sequence[CallFacts]) -> dict[str, Any]:
    """The parameters of a statement that keeps them."""
    return {
        "bot": bot,
        "session_ids": [call.session_id for call in calls],
        "kinds": [call.kind for call in calls],
        "started_at": [call.started_at for call in calls],
        "ended_at": [call.ended_at for call in calls],
        "user_ids": [call.user_id for call in calls],
        "facts": [dict(call.facts) for call in calls],
    }


@dataclass(frozen=True)
class Claim:
    """What a claim brought, and after how long the next one may bring more (None: nothing is known to fall due)."""

    sessions: list[Session]
    again_in: timedelta | None


class LeftPending(TypedDict):
    """Sessions that a drain leaves waiting: unknown_bot, paused or held."""

    bot: str
    kind: str
    sessions: int
    because: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What stands between a drain and its end."""

    workable: int
    due_in: timedelta | None
    claimed: int
    failed: int
    left_pending: list[LeftPending]
    rechecks: int
    """Due, and waited for."""


class Queue:
    """The sessions of one database."""

    def __init__(self, database: Database, retry: RetrySettings) -> None:
        self._database = database
        self._retry = retry
        self._outcome_rows = OutcomeRows(retry)
        self._enqueue_by: Statement | None = None

    # --- producers

    async def enqueue(self, sessions: Sequence[NewSession], *, actor: str) -> tuple[int, int]:
        """Insert what is new; a waiting session with a lower priority is raised. Returns (new, raised)."""
        if self._enqueue_by is None:
            self._enqueue_by = await enqueue_statement(self._database.rows)
        row = await self._database.row(self._enqueue_by, **columns_of(sessions), actor=actor)
        assert row is not None
        return row["added"], row["raised"]

    async def add_call_facts(self, bot: str, calls: Sequence[CallFacts], *, lists_unanswered: bool = True) -> int:
        """Keep with sessions in the queue what a listing says of their calls. Returns to how many that was news.
        `lists_unanswered`: it would say of a campaign's dial that nobody answered; else what is stored of that stays.
        """
        row = await self._database.row(sql("discover/call_facts"), **call_columns(bot, calls), lists_unanswered=lists_unanswered)
        assert row is not None
        changed: int = row["changed"]
        return changed

    async def prune(self, keep: timedelta) -> int:
        """Remove the history of sessions that ended longer than `keep` ago, at most PRUNE_BATCH of them, the oldest first; their
        rows and recordings stay. Returns of how many it is removed now: none means that none is due.
        """
        row = await self._database.row(sql("upkeep/prune_history"), keep=keep, max_sessions=PRUNE_BATCH)
        assert row is not None
        sessions: int = row["sessions"]
        return sessions

    # --- a worker's claim

    async def claim(
        self,
        worker_id: int,
        bots: Mapping[str, Quota],
        slots: int,
        *,
        idle_rechecks: bool = True,
        due_by: datetime | None = None,
        retentions: Mapping[str, timedelta | None] = NO_RETENTIONS,
    ) -> Claim:
        """Claim at most `slots` due sessions, no more of a bot than its budget grants, least recently served bot first. Of a bot
        whose recordings the platform keeps for as long as `retentions` says, those that are nearest to their deletion go first.

        Rechecks that are due (were by `due_by`, if given) get about one claim in eight of a bot that has other work, and, with
        `idle_rechecks`, what slots are left over for bots that have none.

        When it raises, or an answer is lost on the way, rows may be claimed that nobody works on: see `release_orphans`.
        """
        due = await self._database.rows(sql("claim/due_kinds"), bots=list(bots))
        now = timedelta(0)
        work = [row for row in due if row["due_in"] is not None and row["due_in"] <= now]
        busy = {row["name"] for row in work}
        waits = [row["due_in"] for row in due if row["due_in"] is not None and row["due_in"] > now]
        rechecks = [row for row in due if idle_rechecks and row["recheck_in"] is not None and row["name"] not in busy]
        waits += [row["recheck_in"] for row in rechecks if row["recheck_in"] > now]
        rechecks = [row for row in rechecks if row["recheck_in"] <= now]
        sessions: list[Session] = []
        spent: set[str] = set()  # budgets of which this claim has had all that there is
        for ready, idle in ((work, False), (rechecks, True)):
            for position, row in enumerate(ready):
                share = -(-(slots - len(sessions)) // (len(ready) - position))
                if share <= 0:
                    waits.append(now)
                    break
                recheck_due = row["recheck_in"] is not None and row["recheck_in"] <= now
                for statement, count in [(RECHECKS, share)] if idle else plan_turns(share, recheck_due=recheck_due):
                    quota = bots[row["name"]]
                    if quota.key in spent:
                        continue
                    terms: dict[str, datetime | timedelta | None] = {"due_by": due_by}
                    if statement == SESSIONS:
                        terms = {"probe_every": PROBE_EVERY, "retention": retentions.get(row["name"])}
                    try:
                        rows = await self._database.rows(
                            sql(statement),
                            worker_id=worker_id,
                            bot=row["name"],
                            kind=row["kind"],
                            slots=count,
                            budget=quota.key,
                            windows=quota.windows,
                            limits=quota.limits,
                            **terms,
                        )
                    except DatabaseError:
                        if not sessions:
                            raise
                        return Claim(sessions, min(waits, default=None))
                    if not rows:
                        continue
                    claimed = read_sessions(rows, worker_id, recheck=statement == RECHECKS)
                    sessions += claimed
                    if (wait := rows[0]["wait"]) > now:  # for the budget
                        spent.add(quota.key)
                        waits.append(wait)
                    elif claimed or rows[0]["put_off"]:
                        waits.append(now)
        return Claim(sessions, min(waits, default=None))

    async def release_orphans(self, worker_id: int, working_on: Sequence[int]) -> None:
        """Put back what this worker has claimed and does not work on, such as after a claim whose answer was lost. Not to be
        called while a claim of this worker is under way.
        """
        await self._database.rows(sql("claim/release_orphans"), worker_id=worker_id, working_on=list(working_on))

    async def find_lost_claims(self, sessions: Sequence[Session]) -> set[int]:
        """The row IDs of those claims that no longer hold: cancelled, or rescued."""
        if not sessions:
            return set()
        ids, epochs = [session.id for session in sessions], [session.epoch for session in sessions]
        rows = await self._database.rows(sql("claim/lost"), ids=ids, epochs=epochs)
        return {row["id"] for row in rows}

    async def settle(self, ended: Sequence[tuple[Attempt, Outcome]]) -> list[State | None]:
        """Write how attempts ended, with the files they stored and their history, in one statement. Returns the state that each
        session is in now; None where another claim, a rescue or a cancel came before. Of these nothing was written.

        May be called again with the same after an error: it is written once.
        """
        if not ended:
            return []
        rows = await self._database.rows(sql("settle/outcomes"), **self._outcome_rows.parameters(ended))
        await self._learn_first_ask([(row["bot"], row["lesson"]) for row in rows if row["lesson"] is not None])
        return [row["state"] and State(row["state"]) for row in rows]

    async def _learn_first_ask(self, lessons: Sequence[tuple[str, str]]) -> None:
        """Adjust how long after their ends calls are first asked for, by what a batch taught."""
        if not lessons:
            return
        bots = sorted({bot for bot, _ in lessons})
        counts = Counter(lessons)
        try:
            await self._database.rows(
                sql("settle/first_ask"),
                bots=bots,
                too_early=[counts[bot, "too_early"] > 0 for bot in bots],
                in_time=[counts[bot, "in_time"] for bot in bots],
            )
        except DatabaseError as error:
            # The outcomes are written, and whoever waits for them is to know it; later batches teach as much.
            log.warning("first_ask_update_failed", **facts_of(error))

    # --- the fleet

    async def start_worker(
        self, *, host: str, pid: int, version: str, lease: timedelta, bots: Sequence[str], store: str | None = None
    ) -> int:
        """Record the configured bots and a new worker, which puts recordings into `store`; returns its ID."""
        await self.record_bots(bots, complete=False)
        row = await self._database.row(sql("worker/start"), host=host, pid=pid, version=version, store=store, lease=lease)
        assert row is not None
        worker_id: int = row["id"]
        return worker_id

    async def record_bots(self, names: Sequence[str], *, complete: bool) -> None:
        """Let the database know the configured bots; `complete` forgets those not named."""
        await self._database.rows(sql("worker/record_bots"), bots=list(names), complete=complete)

    async def renew(self, worker_id: int, lease: timedelta) -> bool:
        """Prolong a worker's lease. False: it has run out, its sessions may be with others."""
        return await self._database.row(sql("worker/renew"), worker_id=worker_id, lease=lease) is not None

    async def record_progress(self, worker_id: int, progress: Mapping[str, Any]) -> bool:
        """Write the progress of a worker's transfers. False: its lease has run out, and nothing was written."""
        return await self._database.row(sql("worker/progress"), worker_id=worker_id, progress=dict(progress)) is not None

    async def stop_worker(self, worker_id: int) -> None:
        """Take a worker off the list; if it still held something, its lease runs out instead."""
        await self._database.rows(sql("worker/stop"), worker_id=worker_id)

    async def take_back(
        self, worker_id: int, *, former: int, claims: Sequence[Session], stalled: bool = False
    ) -> tuple[int, int]:
        """Let a worker that lost its lease and lives, `former` of then, have no crash counted for what it held: `claims` were in
        hand. Those of one that `stalled` may be to blame: each is forgiven MAX_STALLS times. Returns how many were put back, and
        for how many a crash was counted that no longer is. May be called again.
        """
        ids, epochs = [session.id for session in claims], [session.epoch for session in claims]
        async with self._database.transaction() as run:
            # Whether a crash is withdrawn already is to be seen once nobody else can do it.
            await run(sql("worker/lock_claims"), former=former, ids=ids)
            (row,) = await run(
                sql("worker/take_back"),
                worker_id=worker_id,
                former=former,
                ids=ids,
                epochs=epochs,
                max_crashes=MAX_CRASHES,
                max_returns=MAX_STALLS if stalled else None,
                backoff_base=self._retry.backoff_base,
            )
        return row["put_back"], row["undone"]

    async def rescue(self, *, actor: str, worker_id: int | None = None) -> list[Rescued]:
        """Put back what dead workers held. A rescuer that is a worker, `worker_id`, must have a lease that holds."""
        rows = await self._database.rows(
            sql("upkeep/rescue"),
            max_crashes=MAX_CRASHES,
            backoff_base=self._retry.backoff_base,
            actor=actor,
            worker_id=worker_id,
        )
        return [Rescued(r["bot"], r["session_id"], r["state"], r["crashes"], r["lost_worker"]) for r in rows]

    async def list_leftovers(self) -> list[Leftover]:
        """Temporary files that dead workers may have left, at most a thousand, in no order."""
        return [Leftover(**row) for row in await self._database.rows(sql("upkeep/leftovers"))]

    async def delete_leftover(self, queue_id: int, epoch: int) -> None:
        """Take a temporary file off the list: it is known to be gone."""
        await self._database.rows(sql("upkeep/delete_leftover"), queue_id=queue_id, epoch=epoch)

    async def hold(self, bot: str, kind: str, reason: str, detail: Mapping[str, Any]) -> bool:
        """Hold a kind of a bot for every worker. True if it was not held before."""
        row = await self._database.row(
            sql("hold/set"), bot=bot, kind=kind, reason=reason, detail=dict(detail), probe_after=PROBE_EVERY
        )
        return row is not None and bool(row["fresh"])

    async def list_rejected_credentials(self, bots: Sequence[str]) -> list[tuple[str, str, str | None]]:
        """Bot and kind of each that is held for its credentials, and the fingerprint of these, if it is known."""
        rows = await self._database.rows(sql("hold/rejected_credentials"), bots=list(bots))
        return [(row["bot"], row["kind"], row["credentials"]) for row in rows]

    async def due_probes(self, keys: Sequence[str]) -> dict[str, timedelta]:
        """In how long each budget that is blocked for long is to be probed; see Quota.take_probe."""
        rows = await self._database.rows(sql("budget/due_probes"), budgets=list(keys), turn=PROBE_TURN)
        return {row["key"]: row["due_in"] for row in rows}

    async def find_open_kinds(self, bots: Sequence[str]) -> list[tuple[str, str]]:
        """Those of these bots that are not paused, each with a kind that is not held: recordings, if it can be."""
        rows = await self._database.rows(sql("hold/open_kinds"), bots=list(bots))
        return [(row["bot"], row["kind"]) for row in rows]

    async def release(self, bot: str, kind: str, reasons: Sequence[str]) -> bool:
        """These reasons to hold are disproven. True if the kind was held for one of them."""
        return await self._database.row(sql("hold/release"), bot=bot, kind=kind, reasons=list(reasons)) is not None

    async def backlog(self, bots: Sequence[str], since: datetime, *, night: bool = False) -> Backlog:
        """What a drain that began at `since` still waits for, and what it has to leave. That of a `night` waits for rechecks that
        were due then, and for nothing of low priority.
        """
        row = await self._database.row(sql("report/backlog"), bots=list(bots), since=since, night=night)
        assert row is not None
        return Backlog(**row)

    async def unknown_bots(self, bots: Sequence[str]) -> dict[str, int]:
        """Waiting sessions of bots that no configuration knows, counted by name."""
        rows = await self._database.rows(sql("report/unknown_bots"), bots=list(bots))
        return {row["bot"]: row["sessions"] for row in rows}

    async def clock(self) -> datetime:
        """The database's time."""
        row = await self._database.row(sql("report/clock"))
        assert row is not None
        now: datetime = row["now"]
        return now
