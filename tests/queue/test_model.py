"""The queue beside a model of it that fits in memory: whatever is done, in whatever order, both say the same.

Time is moved in the database, never waited for. ARCHIVER_MODEL_EXAMPLES=2000 tries that many random histories instead of the
same few; what fails is shrunk to the shortest one. One Python tries them all, in SHARDS that run beside each other, the others
the first shard alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, assert_never

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from archiver.config import RetrySettings
from archiver.outcome import Archived, Failed, HandedBack, NotReady, Outcome, Retry, Unavailable
from archiver.postgres.database import Database
from archiver.queue.counts import Counts
from archiver.queue.ledger import Ledger
from archiver.queue.quota import Quota
from archiver.queue.sessions import MAX_CRASHES, NewSession, Queue
from archiver.queue.sql import sql
from archiver.session import OF_A_RECHECK, OF_ONE_ARCHIVED_BEFORE, TRANSITIONS, Attempt, KnownFile, Session, State
from tests.queue.conftest import QueueHarness, stored_file

RANDOM_EXAMPLES = int(os.environ.get("ARCHIVER_MODEL_EXAMPLES", "0"))

EXAMPLES, SHARDS = RANDOM_EXAMPLES or 80, 4

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RETRY = RetrySettings(
    max_attempts=2,
    backoff_base=HOUR,
    backoff_max=2 * HOUR,
    not_ready_delays=(HOUR, 2 * HOUR),
    not_ready_give_up=9 * HOUR,
    recheck_unavailable=(DAY, 3 * DAY),
)
ASKS = 6
"""Of an hour and then of two, five fill the nine hours: with the sixth ask they have passed."""
EMPTY = bytes(32)

WAITING = """
    SELECT q.id, q.state, q.finished_at IS NOT NULL AS ended, o.event,
           CASE WHEN q.finished_at IS NOT NULL THEN
               (o.body #>> '{session,state}', o.body #>> '{session,reason}', o.body #> '{session,detail}')
                   IS NOT DISTINCT FROM (q.state, q.reason, q.detail)
               AND (SELECT coalesce(jsonb_agg(f ->> 'store_key' ORDER BY f ->> 'store_key'), '[]')
                    FROM jsonb_array_elements(o.body -> 'files') f)
                   = (SELECT coalesce(jsonb_agg(r.store_key ORDER BY r.store_key), '[]')
                      FROM archived_recordings r WHERE r.queue_id = q.id)
           END AS same
    FROM archive_queue q
    LEFT JOIN LATERAL (SELECT event, body FROM archive_ledger_outbox WHERE queue_id = q.id ORDER BY id DESC LIMIT 1) o ON true"""
"""Each session, and the last that was written of it for the ledger."""

LIMITS = {"free": (), "counted": ("600/hour", "9/day"), "paced": ("3/minute",)}
"""Of `counted` a claim gets six at once, then one in six seconds, and nine a day; of `paced` one in twenty seconds or so."""

KINDS = ("recording", "voicemail")
PRIORITIES = ("high", "normal", "low")
ENDED = (State.ARCHIVED, State.UNAVAILABLE, State.FAILED, State.CANCELLED)
TABLES = (
    "archive_ledger_outbox",
    "archive_ledger_head",
    "archived_recordings", "archive_queue", "archive_events", "archive_leftovers", "archive_workers", "archive_bots",
    "archive_holds", "archive_budgets", "archive_calls",
)  # fmt: skip

bots = st.sampled_from(tuple(LIMITS))
kinds = st.sampled_from(KINDS)
picks = st.integers(0, 99)
"""Which of those that there are, counted from the latest: what can be drawn must not depend on what was."""

new_sessions = st.lists(
    st.builds(
        NewSession,
        bot=bots,
        session_id=st.sampled_from(("s-1", "s-2", "s-3", "s-4", "s-5")),
        kind=kinds,
        priority=st.sampled_from(PRIORITIES),
    ),
    min_size=1,
    max_size=8,
)
outcomes = st.sampled_from(
    (
        Archived(),
        NotReady("media_in_progress"),
        Unavailable("media_unavailable", {"answer": 1}),
        Retry("api_unreachable"),
        Failed("conflict"),
        HandedBack("rate_limited"),
        HandedBack("worker_stopped", after=HOUR),
    )
)
End = tuple[int, Outcome, int, set[str], bool]
"""Which claim, how it ends, the calls that it spent, the files that it stored, and whether one that was listed is not."""

ends: st.SearchStrategy[list[End]] = st.lists(
    st.tuples(picks, outcomes, st.integers(0, 2), st.sets(st.sampled_from(("k-1", "k-2"))), st.booleans()), min_size=3, max_size=8
)
skews = st.sampled_from((timedelta(0), timedelta(0), -30 * DAY, 30 * DAY))


@dataclass
class Row:
    """What a session ought to look like."""

    id: int
    bot: str
    session_id: str
    kind: str
    priority: str
    state: State = State.PENDING
    reason: str | None = None
    epoch: int = 0
    owner: int | None = None
    failures: int = 0
    checks: int = 0
    crashes: int = 0
    calls: int = 0
    rests: bool = False
    """Surely not due. Otherwise it may be."""
    recheck: bool | None = None
    """Whether the recheck to come may be due; None: there is none."""
    rechecks: int = 0
    tries: int = 0
    unavailable_for: timedelta = timedelta(0)
    archived_before: bool = False
    claimed_long_ago: bool = False
    asked_long_ago: bool | None = None
    files: dict[str, int] = field(default_factory=dict)
    history: list[tuple[str, int]] = field(default_factory=list)

    def to(self, state: State, event: str, reason: str | None, *, takes_away: bool = False, rests: bool = False) -> None:
        may = TRANSITIONS[self.state]
        if self.owner is not None:
            may |= OF_A_RECHECK.get(self.state, frozenset())
        if self.archived_before:
            may |= OF_ONE_ARCHIVED_BEFORE.get(self.state, frozenset())
        assert state in may, (self, state)
        self.state, self.reason, self.rests = state, reason, rests
        self.recheck, self.tries = None, 0
        self.archived_before &= state in {State.PENDING, State.CLAIMED, State.FAILED}
        self.let_go(event, takes_away=takes_away)

    def let_go(self, event: str, *, takes_away: bool = False) -> None:
        self.owner = None
        self.epoch += takes_away
        self.history.append((event, self.epoch))

    def claim(self, worker: int) -> None:
        if self.state is State.UNAVAILABLE:
            self.let_go("claimed", takes_away=True)
        else:
            self.to(State.CLAIMED, "claimed", self.reason, takes_away=True)
        self.owner, self.claimed_long_ago = worker, False

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """As the docstrings of the outcomes have it."""
        asked_again = self.state is State.UNAVAILABLE
        kept = self.archived_before and not attempt.missing
        self.archived_before = kept
        for file in attempt.stored:
            self.files.setdefault(file.store_key, file.ordinal)
        self.history += [(event["event"], self.epoch) for event in attempt.events]
        gave_up = self.claimed_long_ago if self.asked_long_ago is None else self.asked_long_ago
        if attempt.calls and self.asked_long_ago is None:
            self.asked_long_ago = self.claimed_long_ago
        self.calls += attempt.calls
        self.checks += isinstance(outcome, NotReady)
        self.failures += isinstance(outcome, Retry | Failed)
        if asked_again:
            self.rechecks += bool(attempt.calls)
            self.settle_recheck(outcome)
        else:
            self.settle_ask(outcome, gave_up, kept)

    def settle_ask(self, outcome: Outcome, gave_up: bool, kept: bool) -> None:
        last = self.failures >= RETRY.max_attempts if isinstance(outcome, Retry) else gave_up or not isinstance(outcome, NotReady)
        match outcome:
            case Archived():
                self.to(State.ARCHIVED, "archived", None)
            case Unavailable() | Failed() | Retry() | NotReady() if kept and last:
                self.to(State.ARCHIVED, "archived", "kept")
            case Unavailable(reason) if not self.files:
                self.to(State.UNAVAILABLE, "unavailable", reason)
                self.unavailable_for, self.recheck = timedelta(0), False
            case NotReady(status) if not gave_up:
                self.to(State.PENDING, "not_ready", status, rests=True)
            case Retry(reason) if self.failures < RETRY.max_attempts:
                self.to(State.PENDING, "retry", reason)
            case HandedBack(reason, after):
                self.to(State.PENDING, "handed_back", reason, rests=bool(after))
            case NotReady():
                self.to(State.FAILED, "failed", "partial" if self.files else "not_ready")
            case Unavailable(reason) | Retry(reason) | Failed(reason):
                self.to(State.FAILED, "failed", "partial" if self.files else reason)

    def settle_recheck(self, outcome: Outcome) -> None:
        match outcome:
            case Archived():
                self.to(State.ARCHIVED, "archived", None)
                return
            case HandedBack():
                event, over = "handed_back", False
            case NotReady():
                event, over = "not_ready", self.tries + 1 >= ASKS
            case Retry():
                event, over = "retry", self.tries + 1 >= RETRY.max_attempts
            case Failed():
                event, over = "recheck_failed", True
            case Unavailable(reason):
                self.reason = reason
                event, over = "unavailable", True
            case _:
                assert_never(outcome)
        if over and self.files:
            self.to(State.FAILED, "failed", "partial")
            return
        self.tries = 0 if over else self.tries + (not isinstance(outcome, HandedBack))
        # A retry's delay has full jitter: it may be over at once, as one of nothing is.
        self.recheck = not over and isinstance(outcome, Retry | HandedBack)
        if over and not any(delay > self.unavailable_for for delay in RETRY.recheck_unavailable):
            self.recheck = None
        self.let_go(event)

    def rescue(self) -> None:
        self.crashes += 1
        if self.state is State.UNAVAILABLE:
            self.let_go("rescued", takes_away=True)
            self.recheck = None if self.crashes >= MAX_CRASHES else self.recheck
        elif self.crashes < MAX_CRASHES:
            self.to(State.PENDING, "rescued", "worker_lost", takes_away=True, rests=self.crashes > 1)
        else:
            self.to(State.FAILED, "failed", "partial" if self.files else "crashed_workers", takes_away=True)

    def retry(self) -> None:
        self.archived_before |= self.state is State.ARCHIVED
        self.to(State.PENDING, "retried", None, takes_away=True)
        self.failures = self.checks = self.crashes = self.rechecks = 0
        self.asked_long_ago = None

    def columns(self) -> dict[str, Any]:
        names = ("bot", "session_id", "kind", "priority", "state", "reason", "epoch", "failures", "checks", "crashes", "calls")
        late = {"rechecks": self.rechecks, "recheck_tries": self.tries, "archived_before": self.archived_before}
        return {**{name: getattr(self, name) for name in names}, "worker_id": self.owner, **late}


@dataclass(frozen=True)
class Grant:
    """A call that the budget granted, no earlier and no later than so, in the time of the test."""

    earliest: datetime
    latest: datetime


@contextmanager
def clock_of(skew: timedelta) -> Iterator[None]:
    """This process's wall clock, wrong by that much."""
    right = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + skew.total_seconds())
        yield


class Machine(RuleBasedStateMachine):
    """Every rule does something to the queue and the same to the model, and compares the answers; the invariant the rest."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], harness: QueueHarness) -> None:
        super().__init__()
        self.run = run
        self.harness = harness
        self.queue = harness.queue
        self.counts = Counts(harness.database)
        self.rows: dict[int, Row] = {}
        self.workers: dict[int, bool] = {}
        """Whether its lease holds."""
        self.attempts: list[Session] = []
        """Every claim that a worker was told of, the latest first, ended or not."""
        self.paused: set[str] = set()
        self.held: dict[tuple[str, str], bool] = {}
        """Whether one may be claimed to try again."""
        self.leftovers: set[tuple[int, int, int]] = set()
        self.ahead = timedelta(0)
        self.grants: dict[str, list[Grant]] = {bot: [] for bot in LIMITS}
        self.blocked: dict[str, datetime] = {}
        self.history: dict[int, list[tuple[str, int]]] = {}
        self.quotas = {bot: self._quota(bot) for bot in LIMITS}

    def _quota(self, bot: str) -> Quota:
        return self.harness.quota(bot, *LIMITS[bot])

    @initialize()
    def start(self) -> None:
        for table in TABLES:
            self.run(self.harness.fetch(f"DELETE FROM {table}"))
        self.run(self.queue.record_bots(list(LIMITS), complete=True))
        self.run(Ledger(self.harness.database).begin("archive.example/calls", "a key", EMPTY))
        for _ in range(3):
            self._start_worker()
        self.enqueue([NewSession(bot, f"s-{n}", kind) for bot in LIMITS for kind in KINDS for n in (1, 2)])

    # --- producers

    @rule(sessions=new_sessions)
    def enqueue(self, sessions: list[NewSession]) -> None:
        best: dict[tuple[str, str, str], str] = {}
        for one in sessions:
            key = one.bot, one.session_id, one.kind
            best[key] = min(best.get(key, "low"), one.priority, key=PRIORITIES.index)
        known = {(row.bot, row.session_id, row.kind): row for row in self.rows.values()}
        raised = [
            row
            for key, row in known.items()
            if row.state is State.PENDING and key in best and PRIORITIES.index(best[key]) < PRIORITIES.index(row.priority)
        ]
        assert self.run(self.queue.enqueue(sessions, actor="me")) == (len(best.keys() - known.keys()), len(raised))
        for row in raised:
            row.priority = best[row.bot, row.session_id, row.kind]
            row.history.append(("raised", row.epoch))
        self._learn({key: priority for key, priority in best.items() if key not in known})

    @rule(bot=bots, kind=kinds, name=st.sampled_from(("s-1", "s-6", "in valid")))
    def insert(self, bot: str, kind: str, name: str) -> None:
        """Plain SQL of another program, which may say of state and counters what it likes."""
        forged = {"state": "archived", "epoch": 7, "failures": 2, "worker_id": 1, "finished_at": None, "archived_before": True}
        self.run(self.harness.add(name, bot=bot, kind=kind, priority="low", **forged))
        if not any((row.bot, row.session_id, row.kind) == (bot, name, kind) for row in self.rows.values()):
            self._learn({(bot, name, kind): "low"})

    def _learn(self, new: dict[tuple[str, str, str], str]) -> None:
        for (bot, name, kind), priority in new.items():
            query = "SELECT id FROM archive_queue WHERE (bot, session_id, kind) = ($1, $2, $3)"
            row = Row(self.run(self.harness.value(query, bot, name, kind)), bot, name, kind, priority, history=[("enqueued", 0)])
            if name == "in valid":
                row.state, row.reason = State.FAILED, "invalid_session_id"
            self.rows[row.id] = row

    # --- workers

    def _start_worker(self) -> None:
        self.workers[self.run(self.harness.worker(*LIMITS))] = True

    def _worker(self, pick: int) -> int:
        """Four times of five one whose lease holds, if there is one."""
        alive = [worker for worker, holds in self.workers.items() if holds]
        chosen = alive if alive and pick % 5 else list(self.workers)
        return chosen[pick % len(chosen)]

    @rule(
        pick=picks,
        slots=st.sampled_from((9, 3, 1, 0)),
        served=st.sampled_from((("free", "counted", "paced"), ("free", "counted"), ("free",), ("paced",))),
        skew=skews,
        lost=st.integers(0, 5),
    )
    def claim(self, pick: int, slots: int, served: tuple[str, ...], skew: timedelta, lost: int) -> None:
        """One in six answers is lost on its way to the worker."""
        self._claim(self._worker(pick), slots, served, skew, lost)

    def _claim(self, worker: int, slots: int, served: tuple[str, ...], skew: timedelta, lost: int) -> None:
        may = [row for row in self.rows.values() if row.bot in served and self._claimable(row)]
        work = [row for row in may if row.state is State.PENDING]  # a recheck may have to stand behind it
        before = self._now()
        with clock_of(skew):
            claim = self.run(self.queue.claim(worker, {bot: self.quotas[bot] for bot in served}, slots))
        after = self._now()
        assert len(claim.sessions) <= slots
        assert self.workers[worker] or not claim.sessions
        for session in claim.sessions:
            self._claimed(session, worker, may)
            if not lost:
                continue
            wrong = replace(session, claimed_tick=session.claimed_tick - skew.total_seconds())
            self.attempts.insert(0, wrong)
        for bot in served:
            self._granted(bot, sum(session.bot == bot for session in claim.sessions), before, after)
        surely = [row for row in work if not LIMITS[row.bot] and row.bot not in self.blocked and row.reason != "api_unreachable"]
        if self.workers[worker] and slots > len(LIMITS) * len(KINDS):  # then each that has something gets a slot
            assert {(row.bot, row.kind) for row in surely} <= {(session.bot, session.kind) for session in claim.sessions}

    def _claimable(self, row: Row) -> bool:
        if row.bot in self.paused or row.owner is not None:
            return False
        if row.state is State.UNAVAILABLE:
            return bool(row.recheck) and (row.bot, row.kind) not in self.held
        return row.state is State.PENDING and not row.rests and self.held.get((row.bot, row.kind), True)

    def _claimed(self, session: Session, worker: int, may: list[Row]) -> None:
        row = self.rows[session.id]
        assert any(row is one for one in may), (row, session)
        assert self._claimable(row), "one session tries a held kind again, not two"
        assert session.probe == ((row.bot, row.kind) in self.held)
        if session.probe:
            self.held[row.bot, row.kind] = False
        put_back_for = row.reason
        assert session.recheck == (row.state is State.UNAVAILABLE)
        row.claim(worker)
        told = (session.epoch, session.worker_id, session.failures, session.checks, session.crashes, session.put_back_for)
        if session.recheck:
            assert told == (row.epoch, worker, row.tries, row.tries, row.crashes, None)
        else:
            assert told == (row.epoch, worker, row.failures, row.checks, row.crashes, put_back_for)
        assert {known.store_key: known.ordinal for known in session.known} == row.files
        assert all(isinstance(known, KnownFile) for known in session.known)
        due = "SELECT coalesce(recheck_at, run_at) <= claimed_at AND claimed_at = $2 FROM archive_queue WHERE id = $1"
        assert self.run(self.harness.value(due, session.id, session.claimed_at))

    @rule(pick=picks, chosen=ends, again=st.booleans(), skew=skews, waits=st.sampled_from((None, False, True)))
    def work(self, pick: int, chosen: list[End], again: bool, skew: timedelta, waits: bool | None) -> None:
        if waits is not None:
            self.time_passes_for_sessions(waits)
        self.claim(pick, 9, tuple(LIMITS), skew, lost=1)
        self.settle(chosen, again, skew)

    @rule(chosen=ends, again=st.booleans(), skew=skews)
    def settle(self, chosen: list[End], again: bool, skew: timedelta) -> None:
        """A batch of ends, also of claims that hold no more, or that were settled before."""
        batch: dict[tuple[int, int], tuple[Attempt, Outcome]] = {}
        for pick, outcome, calls, keys, missing in chosen:
            if self.attempts:
                session = self.attempts[pick % min(len(self.attempts), 20)]
                files = [stored_file(number, f"{session.id}/{key}") for number, key in enumerate(sorted(keys), 1)]
                attempt = Attempt(session, files, calls=calls, missing={(9, "x.wav")} if missing else set())
                if calls:
                    attempt.note("asked", calls=calls)
                batch[session.id, session.epoch] = attempt, outcome
        if not batch:
            return
        ends: list[State | None] = []
        written: list[tuple[Row, Outcome]] = []
        for attempt, outcome in batch.values():
            row = self.rows[attempt.session.id]
            if row.epoch == attempt.session.epoch and row.owner is not None:
                row.settle(attempt, outcome)
                written.append((row, outcome))
            ends.append(row.state if row.epoch == attempt.session.epoch else None)
        before = self.run(self.queue.clock())
        with clock_of(skew):
            assert self.run(self.queue.settle(list(batch.values()))) == ends
        after = self.run(self.queue.clock())
        self._delayed(written, before, after)
        if again:
            assert self.run(self.queue.settle(list(batch.values()))) == ends

    def _delayed(self, written: list[tuple[Row, Outcome]], before: datetime, after: datetime) -> None:
        """Delays count from the database's time."""
        for row, outcome in written:
            if row.state is State.UNAVAILABLE and not row.tries and not isinstance(outcome, HandedBack):
                self._scheduled(row, before, after)
            if row.state is not State.PENDING and not row.tries:
                continue
            match outcome:
                case NotReady():
                    least = most = RETRY.not_ready_delays[min((row.tries or row.checks) - 1, 1)]
                case HandedBack(after=wait):
                    least = most = wait
                case _:
                    most = min(RETRY.backoff_base * 2 ** ((row.tries or row.failures) - 1), RETRY.backoff_max)
                    least = timedelta(0)
            run_at = self.run(self.harness.value("SELECT coalesce(recheck_at, run_at) FROM archive_queue WHERE id = $1", row.id))
            assert before + least <= run_at <= after + most, (row, outcome)

    def _scheduled(self, row: Row, before: datetime, after: datetime) -> None:
        """The recheck to come is the next of the schedule."""
        recheck_at = self.run(self.harness.value("SELECT recheck_at FROM archive_queue WHERE id = $1", row.id))
        coming = [delay for delay in RETRY.recheck_unavailable if delay > row.unavailable_for]
        if coming:
            # What the test itself takes is less than a minute, but not nothing.
            assert (
                before + coming[0] - row.unavailable_for - timedelta(minutes=1)
                <= recheck_at
                <= after + coming[0] - row.unavailable_for
            )
        else:
            assert recheck_at is None

    @rule(chosen=ends, again=st.booleans(), days=st.booleans(), fate=st.sampled_from(("", "", "rescue", "disown", "crash")))
    def recheck(self, chosen: list[End], again: bool, days: bool, fate: str) -> None:
        """Of all that there was none of, with nothing else to do."""
        self._resume(None)
        self.time_passes_for_sessions(False)
        self._claim(self._worker(1), 4, ("free",), timedelta(0), 1)
        self.settle(
            [(place, Unavailable("media_unavailable"), 1, set(), False) for place in range(4)], again=False, skew=timedelta(0)
        )
        self.run(self.harness.fetch("UPDATE archive_queue SET run_at = now() + interval '1 hour' WHERE state = 'pending'"))
        for row in self.rows.values():
            row.rests |= row.state is State.PENDING
        self.time_passes_for_rechecks(days)
        worker = self._worker(1)
        self._claim(worker, 4, ("free",), timedelta(0), 1)
        match fate:
            case "crash":
                self.crashes_passed()
                self._rescue(worker)
            case "rescue":
                self._rescue(worker)
            case "disown":
                self.disown(1, {0, 1})
            case _:
                pass
        self.settle(chosen, again, timedelta(0))

    def _rescue(self, worker: int) -> None:
        self.workers[worker] = False
        self.run(self.harness.expire(worker))
        self.rescue(0)

    @rule(pick=picks, fate=st.sampled_from(("start", "lease runs out", "renew", "stop")))
    def worker(self, pick: int, fate: str) -> None:
        worker = self._worker(pick)
        match fate:
            case "start":
                self._start_worker()
            case "lease runs out":
                self.workers[worker] = False
                self.run(self.harness.expire(worker))
                self._claim(worker, 9, tuple(LIMITS), timedelta(0), 1)
                assert not self.run(self.queue.renew(worker, HOUR))
            case "renew":
                assert self.run(self.queue.renew(worker, HOUR)) == self.workers[worker]
            case "stop":
                self.run(self.queue.stop_worker(worker))
                if not any(row.owner == worker for row in self.rows.values()):
                    self.workers[worker] = False

    @rule(pick=picks)
    def rescue(self, pick: int) -> None:
        """Half the time of what a worker held whose lease has just run out."""
        if pick % 2:
            self.worker(pick, "lease runs out")
        lost = [row for row in self.rows.values() if row.owner is not None and not self.workers[row.owner]]
        expected = set()
        for row in lost:
            assert row.owner is not None
            self.leftovers.add((row.id, row.owner, row.epoch))
            worker = row.owner
            row.rescue()
            expected.add((row.bot, row.session_id, row.state.value, row.crashes, worker))
        rescued = self.run(self.queue.rescue(actor="other"))
        assert len(rescued) == len(lost)
        assert {(one.bot, one.session_id, one.state, one.crashes, one.lost_worker) for one in rescued} == expected

    @rule(pick=picks, forgets=st.sets(st.integers(0, 3), max_size=2))
    def disown(self, pick: int, forgets: set[int]) -> None:
        worker = self._worker(pick)
        working_on = {
            session.id
            for number, session in enumerate(self.attempts)
            if number not in forgets and self.rows[session.id].owner == worker and self.rows[session.id].epoch == session.epoch
        }
        self.run(self.queue.release_orphans(worker, sorted(working_on)))
        for row in self.rows.values():
            if row.owner == worker and row.id not in working_on:
                if row.state is State.UNAVAILABLE:
                    row.let_go("handed_back", takes_away=True)
                else:
                    row.to(State.PENDING, "handed_back", "claim_unanswered", takes_away=True)

        self._taken_away()

    def _taken_away(self) -> None:
        held = [s for s in self.attempts if self.rows[s.id].epoch == s.epoch and self.rows[s.id].owner is not None]
        gone = {session.id for session in self.attempts if session not in held}
        assert self.run(self.queue.find_lost_claims(self.attempts)) == gone

    @rule(empty=st.booleans())
    def fold_counts(self, empty: bool) -> None:
        self.run(self.counts.fold())
        if empty:
            self.run(self.counts.remove_empty())

    # --- operators

    @rule(bot=bots, everything=st.booleans(), pauses=st.booleans())
    def pause_or_resume(self, bot: str, everything: bool, pauses: bool) -> None:
        if pauses:
            assert self.run(self.harness.operators.pause([bot], actor="me")) == [bot]
            self.paused.add(bot)
        else:
            self._resume(None if everything else bot)

    def _resume(self, bot: str | None) -> None:
        holds = {one: sum(held == one for held, _ in self.held) for one in LIMITS if bot in (None, one)}
        assert self.run(self.harness.operators.resume(bot and [bot], actor="me")) == holds
        self.paused -= {bot} if bot else set(LIMITS)
        self.held = {held: open_ for held, open_ in self.held.items() if held[0] not in holds}

    @rule(bot=bots, kind=kinds, act=st.sampled_from(("hold", "try again", "release", "time to try again", "disprove another")))
    def hold_or_release(self, bot: str, kind: str, act: str) -> None:
        match act:
            case "hold":
                self._hold(bot, kind)
            case "time to try again":
                self.run(self.harness.fetch("UPDATE archive_holds SET probe_at = now()"))
                self.held = dict.fromkeys(self.held, True)
            case "try again":
                self._hold(bot, kind)
                self.run(self.harness.fetch("UPDATE archive_holds SET probe_at = now()"))
                self.held = dict.fromkeys(self.held, True)
                for _ in range(2):
                    self.claim(1, 9, (bot,), timedelta(0), 1)
            case "release":
                self._release(bot, kind, "credentials_rejected")
            case _:
                self._hold(bot, kind)
                self._release(bot, kind, "media_host_refused")

    def _hold(self, bot: str, kind: str) -> None:
        assert self.run(self.queue.hold(bot, kind, "credentials_rejected", {})) == ((bot, kind) not in self.held)
        self.held.setdefault((bot, kind), False)

    def _release(self, bot: str, kind: str, reason: str) -> None:
        held = (bot, kind) in self.held and reason == "credentials_rejected"
        assert self.run(self.queue.release(bot, kind, [reason])) == held
        if held:
            del self.held[bot, kind]

    @rule(pick=picks, bot=st.none() | bots, everything=st.booleans())
    def cancel(self, pick: int, bot: str | None, everything: bool) -> None:
        ids = None if everything and bot else [f"s-{pick % 6 + 1}"]
        chosen = [row for row in self._matching(ids, bot) if row.state in {State.PENDING, State.CLAIMED}]
        for row in chosen:
            if row.owner is not None:
                self.leftovers.add((row.id, row.owner, row.epoch))
            if row.archived_before:
                row.to(State.ARCHIVED, "cancelled", "kept", takes_away=True)
            else:
                row.to(State.CANCELLED, "cancelled", "a wrong list", takes_away=True)
        cancelled = self.run(self.harness.operators.cancel(ids=ids, bot=bot, kind=None, reason="a wrong list", actor="me"))
        assert cancelled == [row.session_id for row in chosen]

    @rule(
        pick=picks,
        bot=st.none() | bots,
        everything=st.booleans(),
        states=st.sampled_from((ENDED, (State.FAILED, State.PENDING, State.CLAIMED), (State.ARCHIVED, State.CANCELLED), ENDED)),
    )
    def retry(self, pick: int, bot: str | None, everything: bool, states: tuple[State, ...]) -> None:
        """Those that come back are asked for at once, as if for the first time."""
        self.time_passes_for_sessions(everything)
        ids = None if everything else [f"s-{pick % 6 + 1}", "in valid"]
        chosen = [row for row in self._matching(ids, bot) if row.state in ENDED and row.state in states]
        chosen = [row for row in chosen if row.reason != "invalid_session_id" and row.owner is None]
        for row in chosen:
            row.retry()
        retried = self.run(self.harness.operators.retry(ids=ids, bot=bot, kind=None, states=states, actor="me"))
        assert retried == [row.session_id for row in chosen]
        self.claim(1, 9, tuple(LIMITS), timedelta(0), 1)
        self.settle(
            [(place, NotReady("media_in_progress"), 1, set(), False) for place in range(4)], again=False, skew=timedelta(0)
        )

    def _matching(self, ids: list[str] | None, bot: str | None) -> list[Row]:
        rows = (self.rows[id_] for id_ in sorted(self.rows))
        return [row for row in rows if (ids is None or row.session_id in ids) and bot in (None, row.bot)]

    # --- time

    @rule(days=st.booleans())
    def time_passes_for_sessions(self, days: bool) -> None:
        self.run(self.harness.make_due())
        for row in self.rows.values():
            row.rests = False
        self.time_passes_for_rechecks(days)

    def time_passes_for_rechecks(self, days: bool) -> None:
        self.run(self.harness.make_rechecks_due())
        for row in self.rows.values():
            row.recheck = None if row.recheck is None else True
        if days:
            ago = """UPDATE archive_queue SET first_asked_at = first_asked_at - $1::interval, claimed_at = claimed_at - $1,
                     finished_at = finished_at - $1"""
            self.run(self.harness.fetch(ago, 2 * DAY))
            for row in self.rows.values():
                row.claimed_long_ago = True
                row.unavailable_for += 2 * DAY
                row.asked_long_ago = row.asked_long_ago is not None or None

    @rule()
    def crashes_passed(self) -> None:
        """What waits or runs has taken down all but one of the workers that it may."""
        for row in self.rows.values():
            if row.state is State.PENDING or row.owner is not None:
                row.crashes = MAX_CRASHES - 1
        sql = "UPDATE archive_queue SET crashes = $1 WHERE state = 'pending' OR worker_id IS NOT NULL"
        self.run(self.harness.fetch(sql, MAX_CRASHES - 1))

    # --- the budget

    @rule(seconds=st.sampled_from((1, 7, 21, 61, 3700, 90_000)))
    def time_passes_for_budgets(self, seconds: int) -> None:
        self._pass(timedelta(seconds=seconds))

    def _pass(self, passed: timedelta) -> None:
        self.ahead += passed
        self.run(
            self.harness.fetch(
                """WITH b AS (UPDATE archive_budgets SET arrival = arrival - $1::interval, blocked_until = blocked_until - $1)
                UPDATE archive_calls SET at = at - $1""",
                passed,
            )
        )

    @rule(bot=bots, refused=st.booleans(), times=st.integers(1, 10))
    def draw(self, bot: str, refused: bool, times: int) -> None:
        """Whatever can be had, as soon as it can be had."""
        if refused:
            self._refused(bot)
        quota = self.quotas[bot]
        for _ in range(times):
            before = self._now()
            (row,) = self.run(
                self.harness.database.rows(sql("budget/draw"), budget=quota.key, windows=quota.windows, limits=quota.limits)
            )
            self._granted(bot, row["granted"], before, self._now())
            if not row["granted"]:
                self._pass(row["wait"])

    def _refused(self, bot: str) -> None:
        """The platform said: not before ten seconds have passed."""
        before = self._now()
        self.run(self.quotas[bot].block(timedelta(seconds=10)))
        self.blocked[bot] = before + timedelta(seconds=10)

    def _now(self) -> datetime:
        now = self.run(self.queue.clock())
        assert isinstance(now, datetime)
        return now + self.ahead

    def _granted(self, bot: str, count: int, before: datetime, after: datetime) -> None:
        assert not count or bot not in self.blocked or after >= self.blocked[bot]
        new = [Grant(before, after)] * count
        if len(LIMITS[bot]) > 1:  # then every call is written down
            calls = self.run(self.harness.fetch("SELECT at FROM archive_calls WHERE key = $1 ORDER BY at", self.quotas[bot].key))
            new = [Grant(at, at) for at in (call["at"] + self.ahead for call in calls) if at >= before]
            assert len(new) == count, "one call a session"
        self.grants[bot] += new
        for window, limit in zip(self.quotas[bot].windows, self.quotas[bot].limits, strict=True):
            for first, over in zip(self.grants[bot], self.grants[bot][limit:], strict=False):
                assert over.latest - first.earliest > window, f"{limit + 1} calls, and {limit} are allowed in {window}"

    # --- what holds after each step

    @invariant()
    def the_database_agrees(self) -> None:
        found = self.run(self.harness.fetch("SELECT * FROM archive_queue"))
        assert {row["id"] for row in found} == self.rows.keys()
        for row in found:
            columns = self.rows[row["id"]].columns()
            assert {name: row[name] for name in columns} == columns
            assert (row["recheck_at"] is not None) == (self.rows[row["id"]].recheck is not None)
        states = self.run(self.harness.states())
        assert states == Counter(row.state.value for row in self.rows.values())

    @invariant()
    def every_count_is_exact(self) -> None:
        assert self.run(self.counts.recount(mend=False)) == []

    @invariant()
    def recordings_are_written_once_and_by_owners_only(self) -> None:
        found = self.run(self.harness.fetch("SELECT queue_id, store_key, ordinal FROM archived_recordings"))
        files = Counter((row["queue_id"], row["store_key"], row["ordinal"]) for row in found)
        assert files == Counter((row.id, key, ordinal) for row in self.rows.values() for key, ordinal in row.files.items())
        left = self.run(self.harness.fetch("SELECT queue_id, worker_id, epoch FROM archive_leftovers"))
        assert {tuple(row.values()) for row in left} == self.leftovers

    @invariant()
    def what_waits_to_be_sealed_says_how_each_session_is(self) -> None:
        for row in self.run(self.harness.fetch(WAITING)):
            assert row["same"] is (True if row["ended"] else None), row
            assert row["event"] in (("settled",) if row["ended"] else (None, "reopened")), row

    @invariant()
    def the_history_tells_it_all_in_order(self) -> None:
        found = self.run(self.harness.fetch("SELECT queue_id, event, epoch FROM archive_history ORDER BY id, place"))
        self.history = {}
        for row in found:
            self.history.setdefault(row["queue_id"], []).append((row["event"], row["epoch"]))
        assert self.history == {row.id: row.history for row in self.rows.values()}
        for one in {row["queue_id"] for row in found}:
            assert all(before[1] <= after[1] for before, after in pairwise(self.history[one])), "an epoch that fell"


@pytest.mark.timeout(0 if RANDOM_EXAMPLES else 600)
@pytest.mark.parametrize("shard", [0, *(pytest.param(number, marks=pytest.mark.once) for number in range(1, SHARDS))])
def test_the_queue_agrees_with_its_model(database_url: str, shard: int) -> None:
    profile = settings(
        max_examples=-(-EXAMPLES // SHARDS),
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with asyncio.Runner() as runner:
        database = Database(database_url, pool_size=2)
        runner.run(database.__aenter__())
        harness = QueueHarness(database, Queue(database, RETRY))

        class MachineHere(Machine):
            def __init__(self) -> None:
                super().__init__(runner.run, harness)

        try:
            run_state_machine_as_test(MachineHere if RANDOM_EXAMPLES else seed(shard)(MachineHere), settings=profile)
        finally:
            runner.run(database.__aexit__(None, None, None))
