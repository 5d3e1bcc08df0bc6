"""How a database is filled from what the store knows: sessions as their records have them, and the ledger that they are in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from archiver.postgres.database import Database
from archiver.queue.ledger import Head
from archiver.queue.sql import sql

PAGE = 500
"""Rows that are read at a time."""

REFUSED = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)
"""What the database says of a row that it does not take."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a database has. `owns_tables`: this role may put rows in as they were; `workers`: how many live; `is_sealing`:
    somebody seals.
    """

    has_sessions: bool
    has_recordings: bool
    owns_tables: bool
    workers: int
    is_sealing: bool


@dataclass(frozen=True, slots=True)
class RestoredSession:
    """A session as it is to be: `columns` of its row, `files` and `history` as the rows of each, `entries` of the ledger with the
    edition of the record that each names.
    """

    columns: Mapping[str, Any]
    files: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    entries: Sequence[tuple[int, int | None]]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A session that entries are about which the store does not have any more. `told`: earlier ones are, too."""

    id: int
    bot: str
    session_id: str
    kind: str
    state: str
    told: bool


@dataclass(frozen=True, slots=True)
class RestoredHead:
    """The ledger as it is to be, with the batches and tiles that the database does not have: first, last, checkpoint of each."""

    origin: str
    public_key: str
    signers: int
    size: int
    root: bytes
    frontier: Sequence[bytes]
    given_up: int
    batches: Iterable[tuple[int, int, bytes]]
    tiles: Mapping[int, bytes]


class Rebuilding:
    """One transaction, in which nobody else adds sessions. `ids` are the rows of those that were put in; `head`: the ledger as it
    was when nobody could any more.
    """

    def __init__(
        self, run: Callable[..., Awaitable[list[asyncpg.Record]]], head: Head | None, recheck_unavailable: Sequence[timedelta]
    ) -> None:
        self._run = run
        self.head = head
        self._recheck_unavailable = list(recheck_unavailable)

    async def restore(
        self, sessions: Sequence[RestoredSession], *, by: str
    ) -> tuple[list[int], list[tuple[RestoredSession, str]]]:
        """Put these in, in place of what is there. Their rows, and those that the database refused, with what it said."""
        await self._run(sql("rebuild/savepoint"))
        try:
            ids = await self._restore(sessions, by)
        except REFUSED as error:
            await self._run(sql("rebuild/undo"))
            if len(sessions) == 1:
                return [], [(sessions[0], str(error).partition("\n")[0])]
            ids, refused = [], []
            for session in sessions:
                one, wrong = await self.restore([session], by=by)
                ids += one
                refused += wrong
            return ids, refused
        await self._run(sql("rebuild/release"))
        return ids, []

    async def _restore(self, sessions: Sequence[RestoredSession], by: str) -> list[int]:
        given = [{**session.columns, "n": n} for n, session in enumerate(sessions)]
        rows = await self._run(sql("rebuild/sessions"), sessions=given, recheck_unavailable=self._recheck_unavailable)
        placed = {row["n"]: (row["id"], row["known"]) for row in rows}
        ids = [placed[n][0] for n in range(len(sessions))]
        pairs = list(zip(ids, sessions, strict=True))
        await self._run(
            sql("rebuild/files"), files=[{**file, "queue_id": id_} for id_, session in pairs for file in session.files]
        )
        told = [
            {**event, "queue_id": id_}
            for n, (id_, session) in enumerate(pairs)
            if not placed[n][1]  # else the database has it, perhaps with more
            for event in session.history
        ]
        told += [{"queue_id": id_, "event": "rebuilt", "actor": by} for id_ in ids]
        await self._run(sql("rebuild/history"), events=told)
        entries = [(seq, id_, edition) for id_, session in pairs for seq, edition in session.entries]
        await self._run(
            sql("rebuild/ledger"),
            seqs=[seq for seq, _, _ in entries],
            queue_ids=[id_ for _, id_, _ in entries],
            editions=[edition for _, _, edition in entries],
        )
        return ids

    async def drop_waiting(self, uids: Sequence[UUID], queue_ids: Sequence[int]) -> int:
        """Forget what waits to be sealed of these entries, and of these sessions. How much that was."""
        (row,) = await self._run(sql("rebuild/drop_waiting"), uids=list(uids), queue_ids=list(queue_ids))
        return int(row["dropped"])

    async def say_again(self, events: Sequence[tuple[str, int]], *, by: str) -> None:
        """Let it be sealed what became of sessions: each event with a row's number."""
        names, ids = [name for name, _ in events], [queue_id for _, queue_id in events]
        await self._run(sql("rebuild/say_again"), events=names, queue_ids=ids, by=by)

    async def forgotten(self, size: int) -> AsyncGenerator[list[Forgotten], None]:
        """Sessions that entries behind the first `size` are about, a page at a time. Whoever leaves off early closes it."""
        after = 0
        while rows := await self._run(sql("rebuild/forgotten"), size=size, after=after, page=PAGE):
            yield [Forgotten(**dict(row)) for row in rows]
            after = rows[-1]["id"]

    async def checkpoint(self, size: int) -> bytes | None:
        """That of the first `size` entries, if a batch ended there."""
        rows = await self._run(sql("rebuild/checkpoint"), size=size)
        return bytes(rows[0]["checkpoint"]) if rows else None

    async def set_head(self, head: RestoredHead, *, adopts: bool, accounts: int) -> None:
        """Let the ledger be this one. Where there was none, and it `adopts`: what ended without it is adopted."""
        await self._run(sql("rebuild/drop_unpublished"))
        await self._run(sql("rebuild/set_back"), size=head.size)
        batches = list(head.batches)
        for start in range(0, len(batches), 1000):
            firsts, lasts, checkpoints = zip(*batches[start : start + 1000], strict=True)
            await self._run(sql("rebuild/batches"), firsts=firsts, lasts=lasts, checkpoints=checkpoints)
        await self._run(sql("rebuild/tiles"), tiles=list(head.tiles), roots=list(head.tiles.values()))
        await self._run(
            sql("rebuild/head"),
            origin=head.origin,
            public_key=head.public_key,
            signers=head.signers,
            size=head.size,
            root=head.root,
            frontier=list(head.frontier),
            given_up=head.given_up,
            adopts=adopts,
        )
        await self._run(sql("rebuild/accounts"), last=accounts)

    async def unknown_keys(self, keys: Sequence[str]) -> list[str]:
        """Those that no recorded file has."""
        rows = await self._run(sql("rebuild/unknown_keys"), keys=list(keys))
        return [row["key"] for row in rows]

    async def known_sessions(self, sessions: Sequence[tuple[str, str, str]]) -> set[int]:
        """The places of those that the database has: bot, ID and kind of each."""
        bots, session_ids, kinds = zip(*sessions, strict=True)
        rows = await self._run(sql("rebuild/known_sessions"), bots=bots, session_ids=session_ids, kinds=kinds)
        return {row["n"] - 1 for row in rows}


async def standing(database: Database) -> Standing:
    """What the database has."""
    row = await database.row(sql("rebuild/standing"))
    assert row is not None
    return Standing(**dict(row))


@asynccontextmanager
async def rebuilding(database: Database, recheck_unavailable: Sequence[timedelta]) -> AsyncIterator[Rebuilding]:
    """All that is done in it comes to be when it is left well, or nothing of it."""
    async with database.transaction() as run:
        await run(sql("ledger/durable"))
        await run(sql("rebuild/begin"))
        rows = await run(sql("ledger/head"))
        yield Rebuilding(run, Head(**dict(rows[0])) if rows else None, recheck_unavailable)
        await run(sql("rebuild/end"))
