"""The worker: claims sessions, archives a bounded number at once, keeps its lease, and leaves in order.

What it promises: a session is never archived by two workers at once (the lease and the epoch see to that), a finished one is
written down or handed back before the worker ends, and whatever happens to one session, the others go on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from archiver.archive.route import Archive, BotAccess, archive_session
from archiver.config import Settings
from archiver.errors import (
    ApiDefect,
    BudgetSpent,
    CredentialsRejected,
    DatabaseError,
    KoreError,
    LeaseLost,
    MediaHostRefused,
    MediaUnreachable,
    RateLimited,
    StoreError,
    StoreUnavailable,
)
from archiver.observe.logs import logger, speak_of
from archiver.observe.tally import Tally
from archiver.observe.transfers import Transfer
from archiver.outcome import MAX_WAIT, Archived, HandedBack, Outcome, Retry, classify, facts_of
from archiver.postgres.database import Database
from archiver.queue.sessions import PROBE_EVERY, Backlog, Queue
from archiver.runtime.cancellation import to_its_end, within
from archiver.session import Attempt, Session, State, part_name
from archiver.stores import ANY_FILE
from archiver.worker.lease import Lease, steady_seconds
from archiver.worker.probes import Probes
from archiver.worker.progress import read_and_tell, write_down
from archiver.worker.settling import Ended, Settling

log = logger(__name__)

POLL_SECONDS = 1.0
"""How often the queue is looked at when nothing wakes the worker: polling is the truth, notifications only come earlier."""

LISTENER_CHECK_SECONDS = 15.0
"""How often the connection is tried on which the worker is woken: one that is gone says nothing."""

UPKEEP_SECONDS = 5.0
"""How often dead workers are looked for, and rows of this one that it does not know of."""

PRUNE_PAUSE = 3600.0
"""Seconds after which old history is looked for again, once none is left that is due."""

REFUSALS_TO_HOLD = 10
"""So many sessions refused for one public media host, and nothing stored between, hold their bot: its list is short."""

REFUSED_HOSTS = 100
"""Of so many hosts of a bot the refusals are counted; whoever makes up more of them has the oldest forgotten."""

ALONE_SECONDS = 60.0
"""How long a session waits, at least, that is refused alone, or while nobody could say whether its bot is, too."""

BUDGET_LOOK_SECONDS = 5.0
"""How often budgets are looked at that may be blocked for long."""

SLOW_BYTES_A_SECOND = 8 * 2**10
SLOW_STALLS = 2
"""Where all slots are held and work is due, the slowest download that brings less than this, over so many times
`transfer.stall_timeout`, yields. One at a time: where it is our own line that is slow, the others get its share.
"""

STORE_PATIENCE = 5
"""A drain gives up when the store has failed so many times in a row, in pauses of 1, 2, 4 ... seconds."""

FAREWELL_SECONDS = 5.0
"""What handing back and signing off may take after the grace, whatever hangs."""


@dataclass(frozen=True)
class Drained:
    """How a run ended. `complete`: nothing failed meanwhile, and nothing had to be left."""

    failed: int = 0
    left_pending: list[dict[str, Any]] = field(default_factory=list)
    store_unavailable: bool = False
    timed_out: int = 0
    """What falls due only after as long as a drain waits, or could not be done for the store."""
    next_due_in: timedelta | None = None
    """When the first of these falls due."""

    @property
    def complete(self) -> bool:
        """Exit code 0 or 3."""
        return not (self.failed or self.left_pending or self.store_unavailable or self.timed_out)


class Worker:
    """One worker process. `run` may be called once; `stop` ends it in order."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        queue: Queue,
        bots: Mapping[str, BotAccess],
        archive: Archive,
        *,
        host: str,
        pid: int,
        version: str,
        tally: Tally | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._bots = bots
        self._archive = archive
        self._identity: dict[str, Any] = {"host": host, "pid": pid, "version": version}
        self._lease_length = timedelta(seconds=settings.worker.lease_seconds)
        self._slots = asyncio.Semaphore(settings.worker.concurrency)
        self._running: dict[asyncio.Task[None], Session] = {}
        self._settling = Settling(queue, written=self._written)
        self._taken: set[tuple[int, int]] = set()  # (id, epoch) of what runs and is no longer ours
        self._yielding: dict[int, dict[str, Any]] = {}  # by id: what runs, and is to make room for others; and why
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lease: Lease | None = None
        self._warned: set[str] = set()
        self._refusals: dict[str, dict[str, set[str]]] = {}  # by bot and media host: the IDs of sessions
        self._probes = Probes(bots)
        self._trying: asyncio.Task[None] | None = None
        self._store_failures = 0
        self._store_retry_at = 0.0
        self._prune_at = 0.0
        self._compare_at = time.monotonic() + UPKEEP_SECONDS
        self.tally = tally or Tally(archive.transfers)
        self.tally.transfers.window = SLOW_STALLS * settings.transfer.stall_timeout.total_seconds()

    @property
    def running(self) -> int:
        """Sessions that it has in hand."""
        return len(self._running)

    @property
    def lease_remaining(self) -> float:
        """Seconds that it may still act, unless it renews its lease before."""
        return 0.0 if self._lease is None else self._lease.remaining

    def stop(self) -> None:
        """Claim nothing more, finish or hand back what runs, end. Callable from a signal handler."""
        self._stopping.set()
        self._wake.set()

    def hurry(self) -> None:
        """Hand back what runs at once, without waiting for the grace."""
        self.stop()
        self._hurry.set()

    async def run(
        self,
        *,
        drain: bool = False,
        max_wait: timedelta | None = None,
        feeding: asyncio.Task[Any] | None = None,
        night: bool = False,
    ) -> Drained:
        """Work until stopped, or, with `drain`, until nothing is left that could be done now or within `max_wait`, by default
        within the time after which a recording that is not ready is given up. As long as `feeding` runs there will be more: a
        drain goes on.

        A drain makes rechecks of unavailable sessions beside other work only; that of a `night` makes all that were due when it
        began, and does not wait for sessions of low priority: a backfill may take weeks.
        """
        started = await self._queue.clock()
        await self._enlist()
        helpers = [
            asyncio.create_task(self._keep_lease(), name="lease"),
            asyncio.create_task(self._listen(), name="listen"),
            asyncio.create_task(self._upkeep(), name="upkeep"),
            asyncio.create_task(read_and_tell(self.tally.transfers), name="readings"),
            asyncio.create_task(write_down(self.tally.transfers, self._queue, lambda: self._lease), name="progress"),
            asyncio.create_task(self._open_budgets(), name="budgets"),
        ]
        self._trying = asyncio.create_task(self._try_credentials(), name="credentials")
        work = asyncio.create_task(self._claim_until_done(drain, max_wait, started, feeding, night), name="claim")
        told_to_stop = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([work, told_to_stop, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a helper ends by an error of ours only: it goes to the caller
            return work.result() if work in done else Drained()
        finally:
            told_to_stop.cancel()
            self._trying.cancel()
            # Cancelled once more it hurries, but is not left half way: sessions would stay claimed.
            await to_its_end(self._leave(work, helpers), on_cancel=self.hurry)

    # --- claiming

    async def _claim_until_done(
        self, drain: bool, max_wait: timedelta | None, started: datetime, feeding: asyncio.Task[Any] | None, night: bool
    ) -> Drained:
        waited = 0.0  # for sessions that fall due later, with nothing else to do
        idle, looked_at = False, 0.0
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                again_in = await self._claim_once(idle_rechecks=night or not drain, due_by=started if drain else None)
                # What is held may be released as soon as our own credentials have been tried.
                fed = (feeding is None or feeding.done()) and (self._trying is None or self._trying.done())
                still = not self._running and not self._settling and again_in > 0
                now = time.monotonic()
                # A night may be over while others' work goes on here.
                if drain and fed and (still or (night and now >= looked_at + UPKEEP_SECONDS)):
                    backlog = await self._queue.backlog(list(self._bots), started, night=night)
                    waited += now - looked_at if idle else 0.0
                    ended = self._drained(backlog, max_wait, waited)
                    if ended is not None:
                        return ended
                    due_now = backlog.claimed or backlog.rechecks or backlog.due_in is None or backlog.due_in <= timedelta(0)
                    idle, looked_at = not due_now, now
                elif not night:
                    idle = False
            except DatabaseError as error:
                log.warning("database_unavailable", **facts_of(error))
                again_in, idle = POLL_SECONDS, False
            if again_in > 0:
                await self._wait_for_wake(again_in)
        return Drained()

    async def _claim_once(self, *, idle_rechecks: bool, due_by: datetime | None) -> float:
        """Claim for the free slots and start what was claimed. Returns seconds until it is worth coming again."""
        lease = self._lease
        if lease is None or lease.lost:
            return POLL_SECONDS
        if time.monotonic() >= self._compare_at:
            self._compare_at = time.monotonic() + UPKEEP_SECONDS
            await self._compare_with_the_rows(lease)
        # A session leaves its slot before its outcome is written. While that takes long, no more of them gather than slots.
        concurrency, running = self._settings.worker.concurrency, len(self._running)
        slots = min(concurrency - running, 2 * concurrency - running - len(self._settling))
        slow = self._in_the_way()
        if slow is not None and running > concurrency:
            self._make_room(slow)  # a session waits for a slot already
        elif slow is not None:
            slots = 1  # one more than there are: if work is due, and the budget allows it, this one yields to it
        if slots <= 0:
            return POLL_SECONDS
        if self._store_failures:
            if self._running or not await self._store_is_back():
                return POLL_SECONDS
            slots = 1
        # What is in hand goes first: where calls are few, each new session would take the one that another waits for.
        quotas = {name: bot.quota for name, bot in self._bots.items() if not bot.quota.waiting}
        idle_rechecks = idle_rechecks and slow is None
        kept = {name: bot.settings.source_retention for name, bot in self._bots.items()}
        claim = await self._queue.claim(
            lease.worker_id, quotas, slots, idle_rechecks=idle_rechecks, due_by=due_by, retentions=kept
        )
        for session in claim.sessions:
            self._start(session, lease)
        if slow is not None:
            if claim.sessions:
                self._make_room(slow)
            return POLL_SECONDS
        wait = POLL_SECONDS if claim.again_in is None else min(claim.again_in.total_seconds(), POLL_SECONDS)
        return wait if len(claim.sessions) < slots else POLL_SECONDS

    def _in_the_way(self) -> Transfer | None:
        """The download that would have to make room if work is due: all slots are held, and it is slow. None: there is none."""
        concurrency = self._settings.worker.concurrency
        if len(self._running) < concurrency or len(self._settling) >= concurrency or self._yielding:
            return None
        return self.tally.transfers.slowest(SLOW_BYTES_A_SECOND)

    def _make_room(self, slow: Transfer) -> None:
        """A session was claimed for which there is no slot: it waits for that of the slowest download."""
        task = next((task for task, session in self._running.items() if session.id == slow.hosts.queue_id), None)
        if task is None or slow not in self.tally.transfers.running or slow.hosts.rate is None:
            return  # it has ended meanwhile, and left its slot
        facts = {
            "file_name": slow.file_name,
            "received": slow.received,
            "expected": slow.total,
            "bytes_per_second": round(slow.hosts.rate),
        }
        log.info("transfer_yielded", **self._running[task].naming(), **facts)
        self.tally.transfers.judge_anew()
        self._yielding[slow.hosts.queue_id] = facts
        task.cancel()

    def _yielded(self, session: Session, facts: dict[str, Any]) -> Outcome:
        """It comes again later, when there may be room. That costs no attempt the first time, the next one does: for ever it must
        not go on. Of a recheck's session nobody knows what was the last time.
        """
        detail = {"message": "slower than any other, while others waited for a slot", **facts}
        if session.put_back_for == "yielded" or session.recheck:
            return Retry("recording_slow", detail)
        return HandedBack("yielded", after=self._settings.retry.backoff_max, detail=detail)

    async def _compare_with_the_rows(self, lease: Lease) -> None:
        """Put back rows that are ours and that nobody works on; stop working on rows that are no longer ours (cancelled)."""
        mine = {task: session for task, session in self._running.items() if session.worker_id == lease.worker_id}
        ours = [session.id for session in (*mine.values(), *self._settling.sessions)]
        await self._queue.disown(lease.worker_id, ours)
        taken = await self._queue.taken_away(list(mine.values()))
        for task, session in mine.items():
            if session.id in taken and task in self._running:
                self._taken.add((session.id, session.epoch))
                task.cancel()

    def _start(self, session: Session, lease: Lease) -> None:
        if lease.lost:
            # It ran out under the claim, and with it this session went to others.
            self._lost(session)
            return
        task = asyncio.create_task(self._work(session, lease), name=f"session {session.id}")
        self._running[task] = session
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        session = self._running.pop(task, None)
        if session is not None:
            self._yielding.pop(session.id, None)
        if not self._running:
            self._settling.flush()
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session_task_failed", **(session.naming() if session else {}), error=repr(error), exc_info=error)

    async def _wait_for_wake(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _drained(self, backlog: Backlog, max_wait: timedelta | None, waited: float) -> Drained | None:
        if backlog.workable == backlog.claimed == backlog.rechecks == 0:
            return Drained(backlog.failed, backlog.left_pending)
        if self._store_failures >= STORE_PATIENCE:
            return Drained(backlog.failed, backlog.left_pending, store_unavailable=True, timed_out=backlog.workable)
        if backlog.claimed or backlog.rechecks or backlog.due_in is None or backlog.due_in <= timedelta(0):
            # What is due now is done however long it takes: only the wait for what falls due later is bounded.
            return None
        retry = self._settings.retry
        # By default as long as a recording that is not ready may take, to the ask that gives it up; what a producer put off for
        # longer makes no drain endless.
        most = retry.not_ready_give_up + max(retry.not_ready_delays) if max_wait is None else max_wait
        too_late = max_wait is None and backlog.due_in > retry.not_ready_give_up
        if too_late or waited + backlog.due_in.total_seconds() > most.total_seconds():
            return Drained(backlog.failed, backlog.left_pending, timed_out=backlog.workable, next_due_in=backlog.due_in)
        return None

    # --- the store, while it fails

    def _store_failed(self, error: StoreError) -> timedelta:
        """Claim nothing for a while, doubling up to a minute. Sessions that fail together count once. Returns what is left."""
        now = time.monotonic()
        if now >= self._store_retry_at:
            self._store_failures += 1
            self._store_retry_at = now + min(2.0 ** (self._store_failures - 1), 60.0)
            log.error("store_unavailable", failures=self._store_failures, **facts_of(error))
        return timedelta(seconds=self._store_retry_at - now)

    async def _store_is_back(self) -> bool:
        """Try the store before a session is spent on it: that would cost a call to the platform."""
        if time.monotonic() < self._store_retry_at:
            return False
        try:
            await self._archive.store.check()
        except StoreError as error:
            self._store_failed(error)
            return False
        return True

    # --- one session

    async def _work(self, session: Session, lease: Lease) -> None:
        """One session, from its claim to its row. A cancellation ends the attempt; what came of it is written all the same."""
        speak_of(session.naming)
        attempt = Attempt(session)
        try:
            async with self._slots:
                outcome = await self._attempt(attempt, lease)
        except LeaseLost:
            self._lost(session)
            return
        except asyncio.CancelledError:
            if lease.lost or (session.id, session.epoch) in self._taken:
                self._taken.discard((session.id, session.epoch))
                self._lost(session)
                return
            facts = self._yielding.get(session.id)
            outcome = self._yielded(session, facts) if facts else HandedBack("worker_stopped")
        self._settling.add(Ended(attempt, outcome, lease))

    async def _attempt(self, attempt: Attempt, lease: Lease) -> Outcome:
        session = attempt.session
        bot = self._bots[session.bot]
        try:
            outcome = await archive_session(attempt, bot, self._archive, lease.guard)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001  # the last catch of a session: nothing of it may stop the others
            outcome = await self._judge(session, error)
        if attempt.stored:
            self._refusals.pop(session.bot, None)
            self._store_failures = 0
        return outcome

    async def _judge(self, session: Session, error: Exception) -> Outcome:
        """What an exception means for the session, and for the bot, its budget and the store besides."""
        outcome = classify(error)
        bot = self._bots[session.bot]
        try:
            match error:
                case BudgetSpent():
                    log.info("budget_spent")
                case RateLimited() if await self._limited_alone(session):
                    log.warning("session_rate_limited", hint="the bot is not: the session waits alone")
                    after = max(error.retry_after or timedelta(0), timedelta(seconds=ALONE_SECONDS))
                    return HandedBack(error.reason, after=min(after, MAX_WAIT), detail=facts_of(error))
                case RateLimited():
                    wait = await bot.quota.block(error.retry_after)
                    told = {"retry_after_seconds": round(error.retry_after.total_seconds())} if error.retry_after else {}
                    log.warning("rate_limit_reached", wait_seconds=round(wait.total_seconds(), 1), **told)
                case CredentialsRejected() | ApiDefect(reason="api_http_404"):
                    return await self._refused(session, error, outcome)
                case MediaHostRefused(public=True):
                    return await self._count_refusal(session, error, outcome)
                case StoreUnavailable():
                    # Not the session's doing, the first time: a full disk over a weekend must not use up the attempts of all.
                    # The second time it may be: a recording too large for what is free would come again for ever.
                    wait = self._store_failed(error)
                    # So it may be of a recheck, whose session tells nothing of the last time.
                    if session.put_back_for != "store_unavailable" and not session.recheck:
                        return HandedBack("store_unavailable", after=wait, detail=facts_of(error))
                case MediaUnreachable(reason="proxy_refused") if session.put_back_for != error.reason and not session.recheck:
                    # The list of the proxy is short, and whoever keeps it may need a while. For ever it must not go on: the
                    # host may be this session's alone.
                    return HandedBack(error.reason, after=self._settings.retry.backoff_max, detail=facts_of(error))
                case DatabaseError():
                    log.warning("database_unavailable", **facts_of(error))
                    return HandedBack("database_unavailable", after=timedelta(seconds=1), detail=facts_of(error))
                case _ if getattr(outcome, "reason", "") == "internal_error":
                    log.error("internal_error", exc_info=error)
                case _:
                    pass
        except DatabaseError as failure:
            log.warning("database_unavailable", **facts_of(failure))
        return outcome

    async def _limited_alone(self, session: Session) -> bool:
        """Whether the rate limit is this session's own: it has waited before, is refused again, and a harmless call is not. It
        must not stop all the others each time that it comes.
        """
        if session.put_back_for != RateLimited.reason and not session.recheck:
            return False
        return (await self._probes.access(session.bot, session.kind, session.claimed_tick)).let_in

    async def _refused(self, session: Session, error: KoreError, outcome: Outcome) -> Outcome:
        """A 401, 403 or 404. Whether the bot is refused or this session alone, a call says that concerns no session."""
        verdict = await self._probes.access(session.bot, session.kind, session.claimed_tick)
        match verdict.error:
            case CredentialsRejected() as refusal:
                await self._hold_for_credentials(session.bot, session.kind, refusal)
                # What isn't there may be the session all the same: the next one to try the bot is another.
                turn_over = session.probe and refusal.facts.get("http_status") == 404
                after = 2 * PROBE_EVERY if turn_over else timedelta(0)
                return HandedBack(refusal.reason, after=after, detail=facts_of(refusal))
            case RateLimited() as limit:
                if not isinstance(limit, BudgetSpent):
                    await self._bots[session.bot].quota.block(limit.retry_after)
                return classify(limit)
            case _ if not isinstance(error, CredentialsRejected):
                return outcome
            case None:
                log.warning("session_refused", http_status=error.facts.get("http_status"), harmless_call=verdict.said)
                return Retry("access_denied", _denied(error, f"let in: {verdict.said}"))
            case _:
                # Nobody knows. Not the session's doing, the first time; a platform that never answers the call would have it
                # come again for ever.
                detail = _denied(error, verdict.error.message)
                if session.put_back_for == "access_unclear" or session.recheck:
                    return Retry("access_unclear", detail)
                return HandedBack("access_unclear", after=timedelta(seconds=ALONE_SECONDS), detail=detail)

    async def _count_refusal(self, session: Session, error: MediaHostRefused, outcome: Outcome) -> Outcome:
        hosts = self._refusals.setdefault(session.bot, {})
        refused = hosts.setdefault(error.host, set())
        refused.add(session.session_id)
        if len(hosts) > REFUSED_HOSTS:
            hosts.pop(next(iter(hosts)))
        if len(refused) < REFUSALS_TO_HOLD and not session.probe:
            return outcome
        await self._hold(session, error.reason, facts_of(error))
        return HandedBack(error.reason, detail=facts_of(error))

    async def _hold(self, session: Session, reason: str, detail: dict[str, Any]) -> None:
        if await self._queue.hold(session.bot, session.kind, reason, detail):
            log.error("bot_held", reason=reason, **detail)

    async def _hold_for_credentials(self, bot: str, kind: str, error: CredentialsRejected) -> None:
        """Hold a kind of a bot, and remember by whose credentials, for a worker that has others."""
        detail = facts_of(error)
        fingerprint = await asyncio.to_thread(self._bots[bot].client.signer.fingerprint)
        if await self._queue.hold(bot, kind, error.reason, detail | {"credentials": fingerprint}):
            log.error("bot_held", **{"bot": bot, "kind": kind, "reason": error.reason, **detail})

    async def _written(self, ended: Ended, state: State | None) -> None:
        """The outcome is in the database, or the session was lost to others. Wakes the claim loop when all is said."""
        try:
            await self._tell(ended, state)
        finally:
            # The last of its batch is still counted as open: looked at once this turn of the loop is over.
            asyncio.get_running_loop().call_soon(self._wake.set)

    async def _tell(self, ended: Ended, state: State | None) -> None:
        attempt, outcome, session = ended.attempt, ended.outcome, ended.attempt.session
        if state is None:
            self._lost(session)
            return
        if attempt.calls and not isinstance(outcome, HandedBack | Retry):
            with suppress(DatabaseError):  # the next answer tells it again
                await self._bots[session.bot].quota.answered()
        asked_again = session.recheck and state is State.UNAVAILABLE
        name = "rechecked" if asked_again else outcome.name if state is State.PENDING else state.value
        facts = {"files": len(attempt.stored), "bytes": sum(f.bytes for f in attempt.stored), "calls": attempt.calls}
        reason = getattr(outcome, "reason", None)
        self.tally.ended[name] = self.tally.ended.get(name, 0) + 1
        self.tally.attempts[session.bot, state.value, str(reason or getattr(outcome, "status", ""))] += 1
        self.tally.stored[session.bot] += facts["files"]
        self.tally.stored_bytes[session.bot] += facts["bytes"]
        if session.probe:
            await self._release(attempt, outcome)
        tell = log.warning if state.value == "failed" else log.info
        tell(
            f"session_{name}",
            **session.naming(),
            **facts,
            **({"reason": reason} if reason else {}),
        )

    async def _release(self, attempt: Attempt, outcome: Outcome) -> None:
        """End a hold, if this probe proves that its reason is gone."""
        answered = any(event["event"] == "asked" and event["data"]["http_status"] == 200 for event in attempt.events)
        # Refused alone, while the harmless call was let in: that proves as much.
        answered = answered or getattr(outcome, "reason", "") == "access_denied"
        disproven = ["credentials_rejected"] if answered else []
        if isinstance(outcome, Archived):
            disproven.append("media_host_refused")
        session = attempt.session
        try:
            if await self._queue.release(session.bot, session.kind, disproven):
                log.info("bot_released", bot=session.bot, kind=session.kind)
        except DatabaseError as error:
            # It stays held until the next probe.
            log.warning("database_unavailable", **facts_of(error))

    def _lost(self, session: Session) -> None:
        self.tally.lost += 1
        log.warning("session_lease_lost", session=session.session_id, bot=session.bot, epoch=session.epoch, lost=self.tally.lost)

    # --- the lease

    async def _enlist(self) -> None:
        asked_at = steady_seconds()
        worker_id = await self._queue.start_worker(**self._identity, lease=self._lease_length, bots=list(self._bots))
        self._lease = Lease(worker_id, self._lease_length, asked_at)
        log.info("worker_started", worker=worker_id, concurrency=self._settings.worker.concurrency, bots=list(self._bots))

    async def _keep_lease(self) -> None:
        """Lost: stop everything that was begun under it, then start again as a new worker."""
        assert self._lease is not None
        while True:
            await self._lease.keep(self._queue.renew)
            log.error("worker_lease_lost", worker=self._lease.worker_id, running=len(self._running))
            for task in list(self._running):
                task.cancel()
            while self._lease.lost:
                try:
                    await within(5, self._enlist())
                except (DatabaseError, TimeoutError) as error:
                    log.warning("worker_registration_failed", error=str(error))
                    await asyncio.sleep(1)
            self._wake.set()

    # --- helpers beside the claim loop

    async def _listen(self) -> None:
        """Wake the claim loop when somebody enqueues. Checked, and opened again; without it polling goes on."""
        told = False
        while True:
            try:
                async with self._database.listening(self._wake) as connection:
                    told = False
                    self._wake.set()
                    while True:
                        await asyncio.sleep(LISTENER_CHECK_SECONDS)
                        await connection.execute("SELECT 1", timeout=10)
            except Exception as error:  # noqa: BLE001  # whatever breaks a listener, polling remains
                if not told:
                    log.warning("listener_disconnected", error=str(error) or type(error).__name__)
                told = True
            await asyncio.sleep(2)

    async def _try_credentials(self) -> None:
        """Kinds that are held for other credentials than these: whether these will do is tried at once, not in five minutes."""
        try:
            held = await self._queue.refused_credentials(list(self._bots))
            await asyncio.gather(*(self._try_those_of(*refused) for refused in held))
        except Exception as error:  # noqa: BLE001  # whatever goes wrong here, a session tries again within five minutes
            log.warning("credential_probe_failed", error=str(error) or type(error).__name__)
        finally:
            self._wake.set()

    async def _try_those_of(self, bot: str, kind: str, refused: str | None) -> None:
        access = self._bots[bot]
        if await asyncio.to_thread(access.client.signer.recognises, refused):
            return
        verdict = await self._probes.access(bot, kind, time.monotonic())
        match verdict.error:
            case None:
                if await self._queue.release(bot, kind, ["credentials_rejected"]):
                    log.info("bot_released", bot=bot, kind=kind)
            case CredentialsRejected():
                await self._hold_for_credentials(bot, kind, verdict.error)
            case BudgetSpent():
                pass
            case RateLimited():
                await access.quota.block(verdict.error.retry_after)
            case _:
                log.warning("credential_probe_failed", bot=bot, **facts_of(verdict.error))

    async def _open_budgets(self) -> None:
        """Try budgets that the platform has blocked for longer than one should believe: each by one worker at a time."""
        keys = {bot.quota.key for bot in self._bots.values()}
        while True:
            wait = BUDGET_LOOK_SECONDS
            try:
                turns = await self._queue.probes_of_budgets(list(keys))
                wait = min([wait, *(due.total_seconds() for due in turns.values() if due > timedelta(0))])
                due = [key for key, due_in in turns.items() if due_in <= timedelta(0)]
                askable = await self._askable(due)
                opened = await asyncio.gather(*(self._probes.budget(askable[key]) for key in askable))
                for key in itertools.compress(askable, opened):
                    log.info("budget_unblocked", budget=key)
                    self._wake.set()
            except Exception as error:  # noqa: BLE001  # whatever breaks a probe, the block ends by itself
                log.warning("budget_probing_failed", error=str(error) or type(error).__name__)
            await asyncio.sleep(max(wait, 0.1))

    async def _askable(self, keys: Collection[str]) -> dict[str, list[tuple[str, str]]]:
        """The bots of these budgets that may be asked for, each with a kind: what is paused or held waits for a person. A budget
        that has none opens by itself.
        """
        names = [name for name, bot in self._bots.items() if bot.quota.key in keys]
        found: dict[str, list[tuple[str, str]]] = {}
        for bot, kind in await self._queue.askable(names) if names else ():
            found.setdefault(self._bots[bot].quota.key, []).append((bot, kind))
        return found

    async def _upkeep(self) -> None:
        """Take over from dead workers, sweep what they left, warn of bots that nobody serves, remove old history."""
        while True:
            try:
                lease = self._lease
                assert lease is not None
                for rescued in await self._queue.rescue(actor=f"worker {lease.worker_id}"):
                    log.warning("session_rescued", session=rescued.session_id, bot=rescued.bot, state=rescued.state,
                                crashes=rescued.crashes, from_worker=rescued.lost_worker)  # fmt: skip
                    self._wake.set()
                await self._sweep()
                await self._warn_of_unknown_bots()
                await self._prune()
            except DatabaseError as error:
                log.warning("database_unavailable", **facts_of(error))
            await asyncio.sleep(min(UPKEEP_SECONDS, self._lease_length.total_seconds() / 3))

    async def _sweep(self) -> None:
        asked = time.monotonic()
        for left in await self._queue.leftovers():
            key = self._archive.path.render(
                bot=left["bot"], date=left["archive_date"], session_id=left["session_id"], kind=left["kind"], file_name=ANY_FILE
            )
            part = part_name(left["queue_id"], left["worker_id"], left["epoch"])
            try:
                # Those before it in the list took their time.
                left_for = left["left_for"] + timedelta(seconds=time.monotonic() - asked)
                found = await self._archive.store.discard(key, part=part, left_for=left_for)
            except StoreUnavailable as error:
                log.warning("leftover_removal_failed", **facts_of(error))
                return
            except StoreError as error:
                found = False
                # Else it is not a key, so nothing can lie there: a row that others wrote, of a kind that we don't know.
                if "error" in error.facts:
                    log.warning("upload_left_behind", session=left["session_id"], bot=left["bot"], **facts_of(error))
            await self._queue.leftover_gone(left["queue_id"], left["epoch"])
            if found:
                log.info("leftover_removed", session=left["session_id"], bot=left["bot"], from_worker=left["worker_id"])

    async def _prune(self) -> None:
        keep = self._settings.database.keep_history
        if keep is None or time.monotonic() < self._prune_at:
            return
        if sessions := await self._queue.prune(keep):
            log.info("history_pruned", sessions=sessions)
        else:
            self._prune_at = time.monotonic() + PRUNE_PAUSE

    async def _warn_of_unknown_bots(self) -> None:
        for name, count in (await self._queue.unknown_bots(list(self._bots))).items():
            if name not in self._warned:
                self._warned.add(name)
                log.warning(
                    "unknown_bot_found", bot=name, sessions=count, hint="add a [[bots]] block of this name, or cancel them"
                )

    async def _leave(self, work: asyncio.Task[Drained], helpers: list[asyncio.Task[None]]) -> None:
        """Claim nothing more, finish what runs within the grace, hand back the rest, sign off. Bounded, whatever hangs."""
        self.stop()
        grace = self._settings.worker.drain_grace_seconds
        if self._running:
            log.info("worker_stopping", running=len(self._running), grace_seconds=grace)
        finished = asyncio.create_task(self._finish(work))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([finished, hurried], timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        farewell = asyncio.create_task(self._hand_back(work, finished))
        await asyncio.wait([farewell], timeout=FAREWELL_SECONDS)
        for task in (farewell, finished, work, *helpers):
            task.cancel()
        assert self._lease is not None
        # What is not written by now is left to the lease, which nobody renews any more.
        self._lease.give_up()
        for task in self._running:
            task.cancel()
        self._settling.cancel()
        await asyncio.wait([farewell, finished, work, *helpers, *self._running], timeout=1)
        done = self.tally
        log.info("worker_stopped", **done.ended, files=done.files, bytes=done.transfers.bytes, lost=done.lost)

    async def _finish(self, work: asyncio.Task[Drained]) -> None:
        # The claim loop ends by itself: cancelled in the middle of a claim, it would leave rows claimed by nobody.
        await asyncio.wait([work])
        while self._running:
            await asyncio.wait(list(self._running))
        await self._settling.finished()

    async def _hand_back(self, work: asyncio.Task[Drained], finished: asyncio.Task[None]) -> None:
        await asyncio.wait([work])
        if self._running:
            log.info("handback_started", sessions=len(self._running))
        for task in list(self._running):
            task.cancel()
        await asyncio.wait([finished])
        assert self._lease is not None
        try:
            await self._queue.stop_worker(self._lease.worker_id)
        except DatabaseError as error:
            # The lease runs out by itself.
            log.warning("worker_deregistration_failed", error=str(error))


def _denied(error: CredentialsRejected, harmless_call: str) -> dict[str, Any]:
    """The facts of a session that was refused, alone as far as is known."""
    hint = "look at this session on the platform (of another app, deleted, restricted?), then `archiver retry`"
    message = f"the platform refuses this session (HTTP {error.facts.get('http_status')})"
    return {"message": message, **error.facts, "harmless_call": harmless_call, "hint": hint}
