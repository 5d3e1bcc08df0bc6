"""Settling in batches: outcomes that come within a moment of each other are written by one statement and one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, replace

from archiver.errors import DatabaseUnreachable, NotMigrated
from archiver.observe.logs import logger
from archiver.observe.redact import redact
from archiver.outcome import Failed, HandedBack, Outcome, Retry, Unavailable
from archiver.queue.sessions import Queue
from archiver.session import Attempt, Session, State
from archiver.worker.lease import Lease

log = logger(__name__)

DELAY_SECONDS = 0.05
"""No outcome waits longer than this for others to join it."""

BATCH = 200
"""So many are written at once, at most."""

LATER_SECONDS = 1.0
"""After so long a batch is tried again that could not be written."""

PATIENCE = 3
"""So often the database may refuse an outcome before a plainer one is written in its place: first without what was noted on the
way, then without the rows of its files, which are named in its detail.
"""


@dataclass(eq=False)
class Ended:
    """An attempt that is over and not written yet, with the lease under which it was made."""

    attempt: Attempt
    outcome: Outcome
    lease: Lease


class Settling:
    """Gathers outcomes and writes them, trying for as long as their lease holds. What is not written by then, or when the process
    dies, is still claimed: others do it again, and compare it with what is stored.
    """

    def __init__(self, queue: Queue, *, written: Callable[[Attempt, Outcome, State | None], Awaitable[None]]) -> None:
        """`written` is told of each the state that its session is in now; None: the session was no longer this claim's."""
        self._queue = queue
        self._written = written
        self._open: dict[Ended, None] = {}
        self._waiting: list[Ended] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> list[Session]:
        """Those whose outcome is not written yet."""
        return [ended.attempt.session for ended in self._open]

    def __len__(self) -> int:
        return len(self._open)

    def add(self, ended: Ended) -> None:
        """Have this outcome written, within DELAY_SECONDS if the database can."""
        self._open[ended] = None
        self._waiting.append(ended)
        if len(self._waiting) >= BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits, now: nothing else is going to join it."""
        self._stop_timer()
        batch, self._waiting = self._waiting, []
        if batch:
            self._begin(batch)

    async def finished(self) -> None:
        """Return when everything is written, or lost, or given up."""
        self.flush()
        while self._writes:
            await asyncio.wait(list(self._writes))
            self.flush()

    def cancel(self) -> None:
        """Give up what isn't written yet."""
        self._stop_timer()
        for write in self._writes:
            write.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, batch: list[Ended]) -> None:
        # In a context of its own: it is about all of them, not about the session that happened to come first.
        write = asyncio.create_task(self._write(batch), name=f"settle {len(batch)}", context=Context())
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _write(self, batch: list[Ended]) -> None:
        refused = 0
        while True:
            states: list[State | None] = [None] * len(batch)
            if not all(ended.lease.lost for ended in batch):
                try:
                    states = await self._queue.settle([(ended.attempt, ended.outcome) for ended in batch])
                except Exception as error:  # noqa: BLE001  # a session that nobody settles would stay ours for as long as we live
                    log.warning("settling_delayed", sessions=len(batch), error=redact(f"{type(error).__name__}: {error}"))
                    if len(batch) > 1:
                        # One of them cannot be written, or somebody has its row locked: that is not the others' doing.
                        for ended in batch:
                            self._begin([ended])
                        return
                    refused += not isinstance(error, DatabaseUnreachable | NotMigrated)
                    if refused == PATIENCE:
                        _drop_notes(batch[0])
                    elif refused == 2 * PATIENCE:
                        _name_files(batch[0])
                    await asyncio.sleep(min(LATER_SECONDS, max(batch[0].lease.remaining, 0.05)))
                    continue
            for ended, state in zip(batch, states, strict=True):
                await self._report(ended, state)
            return

    async def _report(self, ended: Ended, state: State | None) -> None:
        try:
            await self._written(ended.attempt, ended.outcome, state)
        except Exception as error:  # the others of the batch are written too, and must be told so
            log.exception("outcome_report_failed", error=repr(error))
        finally:
            # Only now: while a hold is being released the drain must not think that everything is done.
            del self._open[ended]


# It is not the connection but what is said that the database refuses.


def _drop_notes(ended: Ended) -> None:
    """Leave out what came from outside and proves nothing by itself. What is stored stays recorded."""
    attempt, outcome = ended.attempt, ended.outcome
    ended.attempt = replace(attempt, events=[])
    ended.attempt.note("notes_refused", events=len(attempt.events))
    if isinstance(outcome, Unavailable | Retry | Failed | HandedBack):
        ended.outcome = replace(outcome, detail={"message": "the database refused the details; the archiver's log has them"})
    log.error("outcome_notes_refused", **attempt.session.naming(), outcome=outcome.name, events=attempt.events)


def _name_files(ended: Ended) -> None:
    """Leave out the rows of the files, too, and name them where any text can stand: in the session's detail."""
    attempt = ended.attempt
    files = [ascii(file.as_row()) for file in attempt.stored]
    ended.attempt = replace(attempt, stored=[], events=[])
    ended.outcome = Retry(
        "internal_error",
        {"message": "the database refused the outcome; the archiver's log has more"} | ({"stored": files} if files else {}),
    )
    log.error("stored_files_refused", **attempt.session.naming(), files=files)
