"""The sessions that a worker has in hand: each is attempted in a task of its own, at most `concurrency` at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from archiver.archive.context import Archive, BotAccess
from archiver.archive.route import archive_session
from archiver.config import TransferSettings
from archiver.errors import CredentialsRejected, LeaseLost, MediaHostRefused
from archiver.observe.logs import bind_subject, logger
from archiver.observe.transfers import Transfer, Transfers
from archiver.outcome import HandedBack, Outcome, Retry, classify, facts_of
from archiver.session import Attempt, Session
from archiver.worker.accounting import Accounting
from archiver.worker.bots import Bots
from archiver.worker.holds import Holds
from archiver.worker.judging import Judge
from archiver.worker.lease import Lease
from archiver.worker.settling import Ended, Settling
from archiver.worker.slots import Slots
from archiver.worker.store_gate import StoreGate

log = logger(__name__)

SLOW_BYTES_A_SECOND = 8 * 2**10
SLOW_STALLS = 2
"""Where all slots are held and work is due, the slowest download that brings less than this, over so many times
`transfer.stall_timeout`, yields. One at a time: where it is our own line that is slow, the others get its share.
"""


class Attempts:
    """Starts attempts, ends them, and gives what came of each to `settling`: the outcome of a cancelled one, too.

    `wake` is called when one has ended. A session whose lease was lost is counted as lost, and written by nobody here.
    """

    def __init__(
        self,
        bots: Bots,
        archive: Archive,
        judge: Judge,
        holds: Holds,
        gate: StoreGate,
        settling: Settling,
        accounting: Accounting,
        transfers: Transfers,
        *,
        concurrency: int,
        longest_pause: timedelta,
        wake: Callable[[], None],
    ) -> None:
        self._bots = bots
        self._archive = archive
        self._judge = judge
        self._holds = holds
        self._gate = gate
        self._settling = settling
        self._accounting = accounting
        self._transfers = transfers
        self._longest_pause = longest_pause
        self._wake = wake
        self._slots = Slots(concurrency)
        self._running: dict[asyncio.Task[None], Session] = {}
        self._lost: set[tuple[int, int]] = set()  # (id, epoch) of what runs and is no longer ours
        self._yielding: dict[int, dict[str, Any]] = {}  # by id: what runs, and is to make room for others; and why

    def __len__(self) -> int:
        return len(self._running)

    @property
    def concurrency(self) -> int:
        """How many may run at once."""
        return self._slots.size

    @property
    def any_waiting(self) -> bool:
        """Whether a session was claimed for which there is no slot yet."""
        return self._slots.waiting > 0

    def change(self, concurrency: int, terms: TransferSettings) -> None:
        """So many at once, and under these terms, from now on. What runs goes on, though it may be more than that."""
        self._slots.resize(concurrency)
        self._archive = replace(self._archive, terms=terms)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Those that run."""
        return list(self._running)

    def of_worker(self, worker_id: int) -> list[Session]:
        """Sessions in hand that this registration of the worker claimed."""
        return [session for session in self._running.values() if session.worker_id == worker_id]

    def start(self, session: Session, lease: Lease) -> None:
        """Attempt a session that was claimed under this lease."""
        if lease.lost:
            # It ran out under the claim, and with it this session went to others.
            self._accounting.count_lost(session)
            return
        task = asyncio.create_task(self._work(session, lease), name=f"session {session.id}")
        self._running[task] = session
        task.add_done_callback(self._ended)

    def stop(self) -> None:
        """End all of them. Each outcome is given to `settling` all the same."""
        for task in list(self._running):
            task.cancel()

    def stop_lost(self, sessions: Collection[int]) -> None:
        """End those whose rows are no longer ours, by ID of the row."""
        for task, session in list(self._running.items()):
            if session.id in sessions:
                self._lost.add((session.id, session.epoch))
                task.cancel()

    async def finished(self) -> None:
        """Return when none runs."""
        while self._running:
            await asyncio.wait(list(self._running))

    def slow_transfer(self) -> Transfer | None:
        """The download that has to make room if work is due: all slots are held, and it is slow. None: there is none."""
        slots = self._slots
        if len(self._running) < slots.size or len(self._settling) >= slots.size or self._yielding or slots.in_use > slots.size:
            return None
        return self._transfers.slowest(SLOW_BYTES_A_SECOND)

    def make_room(self, slow: Transfer) -> None:
        """A session was claimed for which there is no slot: end the slowest download for it."""
        task = next((task for task, session in self._running.items() if session.id == slow.hosts.queue_id), None)
        if task is None or slow not in self._transfers.running or slow.hosts.rate is None:
            return  # it has ended meanwhile, and left its slot
        facts = {
            "file_name": slow.file_name,
            "received": slow.received,
            "expected": slow.total,
            "bytes_per_second": round(slow.hosts.rate),
        }
        log.info("transfer_yielded", **self._running[task].naming(), **facts)
        self._transfers.restart_windows()
        self._yielding[slow.hosts.queue_id] = facts
        task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        session = self._running.pop(task, None)
        if session is not None:
            self._yielding.pop(session.id, None)
        if not self._running:
            self._settling.flush()
        self._wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session_task_failed", **(session.naming() if session else {}), error=repr(error), exc_info=error)

    async def _work(self, session: Session, lease: Lease) -> None:
        """One session, from its claim to its outcome."""
        bind_subject(session.naming)
        attempt = Attempt(session)
        try:
            async with self._slots:
                outcome = await self._attempt(attempt, lease)
        except LeaseLost:
            self._accounting.count_lost(session)
            return
        except asyncio.CancelledError:
            if lease.lost or (session.id, session.epoch) in self._lost:
                self._lost.discard((session.id, session.epoch))
                self._accounting.count_lost(session)
                return
            facts = self._yielding.get(session.id)
            outcome = self._yielded(session, facts) if facts else HandedBack("worker_stopped")
        self._settling.add(Ended(attempt, outcome, lease))

    async def _attempt(self, attempt: Attempt, lease: Lease) -> Outcome:
        session = attempt.session
        if session.bot not in self._bots:
            return HandedBack("worker_stopped")  # its bot was removed while it was claimed
        with self._bots.using(session.bot) as bot:
            try:
                outcome = await archive_session(attempt, bot, self._archive, lease.guard)
            except LeaseLost:
                raise
            except (CredentialsRejected, MediaHostRefused) as error:
                if self._bots.serves(bot):
                    outcome = await self._judged(session, error, bot)
                else:  # refused for what is no longer in force: that says nothing of the session, nor of what is
                    outcome = HandedBack(error.reason, detail=facts_of(error))
            except Exception as error:  # noqa: BLE001  # the last catch of a session: nothing of it may stop the others
                outcome = await self._judged(session, error, bot)
        if attempt.stored:
            self._holds.forget_host_refusals(session.bot)
            self._gate.open()
        return outcome

    async def _judged(self, session: Session, error: Exception, bot: BotAccess) -> Outcome:
        try:
            return await self._judge.judge(session, error, bot)
        except Exception as defect:  # the attempt has an outcome all the same: what it stored is recorded with that
            log.exception("internal_error", error=repr(defect))
            return classify(error)

    def _yielded(self, session: Session, facts: dict[str, Any]) -> Outcome:
        """It comes again later, when there may be room. That costs no attempt the first time, the next one does: for ever it must
        not go on. Of a recheck nobody knows how the last attempt ended.
        """
        detail = {"message": "slower than any other, while others waited for a slot", **facts}
        if session.put_back_for == "yielded" or session.recheck:
            return Retry("recording_slow", detail)
        return HandedBack("yielded", after=self._longest_pause, detail=detail)
