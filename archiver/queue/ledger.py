"""What the database knows of the ledger: what waits to be sealed, in which order it was, and who seals it now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from archiver.errors import LedgerNotBegun
from archiver.postgres.database import Database
from archiver.queue.sql import sql

MAX_ENTRIES = 4096
"""Of one batch."""

MAX_TAKEN = 8 * 2**20
"""Bytes that are taken at a time, about: a row may have 64 KiB of metadata, and a history of many long answers."""


MAX_WAITING = 100_000
"""What waits is counted up to here."""


@dataclass(frozen=True, slots=True)
class Head:
    """The ledger as the database knows it. `public_key`: as OpenSSH writes it, of the key that signs next; `signers`: how many
    keys there have been; `frontier`: roots of the perfect subtrees, largest first; `published`: entries that the store has;
    `adopts`: sessions that ended before are still to be adopted; `given_up`: up to this size something lies in the store that was
    given up when the database was rebuilt.
    """

    origin: str
    public_key: str
    signers: int
    size: int
    root: bytes
    frontier: list[bytes]
    published: int
    published_at: datetime | None
    begun_at: datetime
    adopts: bool
    given_up: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row of the outbox. Others may have inserted it: `body` is any JSON, `event` any text."""

    id: int
    uid: UUID
    at: datetime
    event: str
    queue_id: int | None
    body: Any


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """An ask, or what a person did, as the history of a session has it."""

    at: datetime
    event: str
    actor: str | None
    data: Any


@dataclass(frozen=True, slots=True)
class Batch:
    """A segment, sealed, with all that the store is to have: `objects` by their keys, in this order. `again`: which claim to its
    place it is, above 1 where something was claimed there before and given up.
    """

    first: int
    last: int
    checkpoint: bytes
    signature: bytes
    lines: bytes
    objects: list[tuple[str, bytes]]
    again: int = 1


@dataclass(frozen=True, slots=True)
class Index:
    """What the database keeps of an entry."""

    queue_id: int | None = None
    edition: int | None = None
    salt: bytes | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """`rows` wait, at most as many as were asked for, the first for so many `seconds` (below 0: the clock was set back);
    `unpublished`: a batch does, too.
    """

    rows: int
    seconds: float
    unpublished: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How far what happened is sealed. `origin` and `public_key` are None where no ledger was begun: then nothing is proven.
    `sealed`: entries that the store has; `waiting`: those that it has not yet, at most MAX_WAITING, the first for `seconds`.
    """

    origin: str | None
    public_key: str | None
    sealed: int
    published_at: datetime | None
    adopts: bool
    waiting: int
    seconds: float
    checkpoint: bytes | None
    """The newest that the store has, to be kept elsewhere."""

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        return {
            "proven": self.origin is not None,
            "origin": self.origin,
            "entries": self.sealed,
            "sealed_at": self.published_at and self.published_at.isoformat(),
            "unsealed": self.waiting,
            "unsealed_seconds": round(self.seconds),
            "adopting": self.adopts,
            "checkpoint": self.checkpoint and self.checkpoint.decode(errors="replace"),
        }


def epochs_of(rows: Sequence[OutboxRow]) -> dict[int, int]:
    """Up to which epoch of each session its history is told."""
    found: dict[int, int] = {}
    for row in rows:
        session = row.body.get("session") if isinstance(row.body, dict) else None
        epoch = session.get("epoch") if isinstance(session, dict) else None
        if row.queue_id is not None and isinstance(epoch, int) and 0 <= epoch < 2**63:
            found[row.queue_id] = max(epoch, found.get(row.queue_id, 0))
    return found


class Sequencing:
    """One transaction that holds the head. Nobody else can add to the ledger until it ends."""

    def __init__(self, run: Any, head: Head) -> None:
        self._run = run
        self.head = head

    async def take(self, max_rows: int = MAX_ENTRIES) -> list[OutboxRow]:
        """What has waited longest. It is out of the outbox when this transaction ends well."""
        rows = await self._run(sql("ledger/take"), max_rows=max_rows, max_bytes=MAX_TAKEN)
        return [OutboxRow(**dict(row)) for row in rows]

    async def editions(self, queue_ids: Sequence[int]) -> dict[int, int]:
        """The last edition of the record of each session that has one."""
        rows = await self._run(sql("ledger/editions"), ids=list(queue_ids))
        return {row["queue_id"]: row["edition"] for row in rows}

    async def history(self, epochs: dict[int, int]) -> dict[int, list[HistoryRow]]:
        """Of sessions by row ID, up to an epoch of theirs, in order."""
        found: dict[int, list[HistoryRow]] = {}
        for row in await self._run(sql("ledger/history"), ids=list(epochs), epochs=list(epochs.values())):
            event = HistoryRow(row["at"], row["event"], row["actor"], row["data"])
            found.setdefault(row["queue_id"], []).append(event)
        return found

    async def seal(
        self,
        batch: Batch,
        index: Sequence[Index],
        *,
        root: bytes,
        frontier: Sequence[bytes],
        tiles: Mapping[int, bytes],
        public_key: str,
        signers: int,
    ) -> None:
        """Keep the batch, and move the head behind it. `tiles`: those that became whole."""
        await self._run(
            sql("ledger/seal"),
            first=batch.first,
            last=batch.last,
            checkpoint=batch.checkpoint,
            signature=batch.signature,
            lines=batch.lines,
            object_keys=[key for key, _ in batch.objects],
            objects=[content for _, content in batch.objects],
            queue_ids=[each.queue_id for each in index],
            editions=[each.edition for each in index],
            salts=[each.salt for each in index],
            root=root,
            frontier=list(frontier),
            tiles=list(tiles),
            tile_roots=list(tiles.values()),
            again=batch.again,
            public_key=public_key,
            signers=signers,
        )


class Ledger:
    """That of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self) -> Head | None:
        """None before it is begun."""
        row = await self._database.row(sql("ledger/head"))
        return None if row is None else Head(**dict(row))

    async def begin(self, origin: str, public_key: str, empty_root: bytes) -> None:
        """Begin it, if it is not: what ends from now on waits to be sealed, and whatever ended before can be adopted. Raises
        LedgerNotBegun, after half a second, while somebody has changed sessions and not committed: whoever changes others waits
        for this, as long as this waits.
        """
        async with self._database.transaction() as run:
            await run(sql("ledger/soon"))
            try:
                await run(sql("ledger/lock_sessions"))
            except asyncpg.LockNotAvailableError:
                raise LedgerNotBegun(
                    "the ledger cannot begin: a transaction that has changed sessions goes on",
                    hint="it is tried again; end what holds archive_queue for long: an import, or a build of an index",
                ) from None
            await run(sql("ledger/begin"), origin=origin, public_key=public_key, root=empty_root)

    async def lease(self, sealer: UUID, length: timedelta) -> bool:
        """Be the one sealer, or stay it, for so long. False: another one is."""
        return await self._database.row(sql("ledger/lease"), sealer=sealer, lease=length) is not None

    async def release(self, sealer: UUID) -> None:
        """Let another one seal."""
        await self._database.rows(sql("ledger/release"), sealer=sealer)

    @asynccontextmanager
    async def sequencing(self, sealer: UUID) -> AsyncIterator[Sequencing | None]:
        """A transaction in which the ledger grows, durable when it is left; None if `sealer` is not the one sealer any more, or a
        batch waits to be published.
        """
        async with self._database.transaction() as run:
            await run(sql("ledger/durable"))
            rows = await run(sql("ledger/lock_head"), sealer=sealer)
            yield Sequencing(run, Head(**dict(rows[0]))) if rows else None

    async def tiles(self) -> dict[int, bytes]:
        """Roots of the tiles that became whole, by their number. Some may be missing: the store tells them."""
        return {row["tile"]: row["root"] for row in await self._database.rows(sql("ledger/tiles"))}

    async def unpublished(self) -> Batch | None:
        """The batch that the store does not have yet."""
        row = await self._database.row(sql("ledger/unpublished"))
        if row is None:
            return None
        objects = list(zip(row["object_keys"], row["objects"], strict=True))
        return Batch(row["first"], row["last"], row["checkpoint"], row["signature"], row["lines"], objects, row["again"])

    async def published(self, batch: Batch) -> None:
        """The store has it."""
        await self._database.rows(sql("ledger/published"), first=batch.first)

    async def waiting(self, enough: int = MAX_ENTRIES) -> Waiting:
        """What waits to be sealed; as if nothing did where there is no ledger."""
        row = await self._database.row(sql("ledger/waiting"), enough=enough)
        assert row is not None
        return Waiting(row["rows"], row["seconds"], row["unpublished"])

    async def standing(self) -> Standing:
        """How far what happened is sealed."""
        row = await self._database.row(sql("ledger/standing"), enough=MAX_WAITING)
        assert row is not None
        return Standing(**dict(row))

    async def newest(self) -> int:
        """The number of the newest row that waits; 0 if none does."""
        row = await self._database.row(sql("ledger/newest"))
        assert row is not None
        return row["id"] or 0

    async def is_left(self, newest: int) -> bool:
        """Whether something up to this row waits, or a batch is not published."""
        row = await self._database.row(sql("ledger/left_of"), id=newest)
        assert row is not None
        return bool(row["left"])

    async def adopt(self, per_minute: int, most: int = MAX_ENTRIES) -> tuple[int, bool]:
        """Let sessions that ended before the ledger was begun be sealed, newest first, as many as the rate allows since the last
        time. How many, and whether none are left.
        """
        async with self._database.transaction() as run:
            found = await run(sql("ledger/adopt_next"), per_minute=per_minute, most=most)
            if not found:
                return 0, False
            (next_ones,) = found
            allowed, ids = next_ones["allowed"], next_ones["ids"]
            where = {"before": next_ones["before"], "before_id": next_ones["before_id"]}
            (row,) = await run(sql("ledger/adopt"), ids=ids, allowed=allowed, last=len(ids) < allowed, **where)
        return row["adopted"], row["done"]

    async def note(self, event: str, body: dict[str, Any]) -> None:
        """Let something that is about no session be sealed, where there is a ledger."""
        await self._database.rows(sql("ledger/note"), event=event, body=body)
