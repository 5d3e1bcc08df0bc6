"""Other ways to enqueue than a batch by itself: all or nothing, and only looking what would become of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import asyncpg

from archiver.errors import DatabaseError
from archiver.postgres.database import DEADLOCK_TRIES, Database, pause_after_deadlock
from archiver.queue.producers import enqueue_statement
from archiver.queue.sessions import NewSession, columns_of
from archiver.queue.sql import sql

AT_THE_END = (
    "the connection broke at the very end: either all of these sessions were enqueued or none; run the same again, known "
    "sessions are left as they are"
)

_RANKS = {"high": 1, "normal": 2, "low": 3}


async def enqueue_all(
    database: Database, batches: Callable[[], Iterable[Sequence[NewSession]]], *, actor: str
) -> tuple[int, int]:
    """`Queue.enqueue` for all of these or for none, in one transaction; each batch has the time that a statement may take. Others
    that insert one of these sessions wait for its end, so `batches` must be at hand; after a deadlock they are asked for again.
    Returns (new, raised).
    """
    for tries_left in reversed(range(DEADLOCK_TRIES)):
        added = raised = 0
        complete = deadlocked = False
        try:
            async with database.transaction() as run:
                statement = await enqueue_statement(run)
                for sessions in batches():
                    try:
                        (row,) = await run(statement, **columns_of(sessions), actor=actor)
                    except asyncpg.DeadlockDetectedError:
                        deadlocked = True
                        raise
                    added, raised = added + row["added"], raised + row["raised"]
                complete = True
        except DatabaseError as error:
            if deadlocked and tries_left:
                await pause_after_deadlock()
                continue
            # Where the answer to COMMIT is lost on the way, nobody here knows what it was.
            error.hint = AT_THE_END if complete else f"nothing was enqueued; {error.hint or 'run the same again'}"
            raise
        return added, raised
    raise AssertionError("the last try returns or raises")


class Preview:
    """What would become of sessions, batch after batch, if they were enqueued. It only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: set[int] = set()  # hashes of what would be new: some 70 bytes a session

    async def look(self, sessions: Sequence[NewSession]) -> tuple[int, int]:
        """How many are new, and how many waiting ones would be raised, as `Queue.enqueue` returns it."""
        rows = await self._database.rows(sql("enqueue/known"), session_ids=[session.session_id for session in sessions])
        waiting = {(row["bot"], row["session_id"], row["kind"]): row["waits_as"] for row in rows}
        new, raised = 0, set()
        for session in sessions:
            key = (session.bot, session.session_id, session.kind)
            if key in waiting:
                waits_as = waiting[key]
                if waits_as is not None and _RANKS[session.priority] < _RANKS[waits_as]:
                    raised.add(key)
            elif hash(key) not in self._seen:
                self._seen.add(hash(key))
                new += 1
        return new, len(raised)
