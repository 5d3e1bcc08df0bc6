"""Bringing a sealed batch into the store: its claim first, its checkpoint last, each create-only."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from archiver.errors import KeyConflict, LedgerRefused, StoreError, StoreUnavailable
from archiver.evidence.objects import (
    FOLDER,
    checkpoint_key,
    claim_key,
    record_fallback_key,
    segment_key,
    signature_key,
)
from archiver.observe.logs import logger
from archiver.queue.ledger import Batch, Head
from archiver.stores import Store

log = logger(__name__)

AT_ONCE = 16
"""Objects that are put into the store at a time."""


class Publisher:
    """Publishes into one store. `guard` is called before each object, and in the last moment before it appears; it may raise."""

    def __init__(self, store: Store, guard: Callable[[], None]) -> None:
        self._store = store
        self._guard = guard
        self._swept: int | None = None

    async def check_empty(self) -> None:
        """Hold a database without a ledger against the store. Raises LedgerRefused."""
        if await self._store.size(claim_key(0)) is not None:
            raise LedgerRefused(
                "the store has a ledger, and this database has none: it is not the database that the ledger was sealed from",
                hint="if the database is lost: `archiver rebuild`; else correct storage.url or database.url, whichever leads to "
                "the other archive",
            )

    async def check(self, head: Head, again: int = 1) -> None:
        """Hold the head against the store. Raises LedgerRefused: what would be sealed could contradict what the store has.
        `again`: which claim is to follow; those before are known, and given up.
        """
        await self.check_before(head.size)
        claim = claim_key(head.size, again)
        if await self._store.size(claim) is not None:
            raise LedgerRefused(
                f"the store has {claim}, of which this database does not know: the database is an older one, or a "
                "copy whose original goes on sealing",
                hint="end whichever should not be running; if the database was restored from a dump: "
                "`archiver rebuild --catch-up`",
            )

    async def check_before(self, size: int) -> None:
        """Make sure that the store has what is before these entries: it may not be mounted any more. Raises LedgerRefused."""
        if size and not await self._store.size(checkpoint_key(size)):
            raise LedgerRefused(
                f"the store lacks {checkpoint_key(size)}, its newest checkpoint: it is an older copy, or another one",
                hint="correct storage.url, or bring the store back to what it was; if nobody has it any more: "
                "`archiver rebuild --catch-up`",
            )

    async def ends_there(self, first: int, size: int) -> bool:
        """Whether a batch that was given up began at `first` or ended at `size`, so that none may end there again."""
        keys = (checkpoint_key(size), claim_key(size), segment_key(first, size - 1), signature_key(size))
        return any([await self._store.size(key) is not None for key in keys])

    async def publish(self, batch: Batch) -> None:
        """Store all of it, or what is not there yet. Raises LedgerRefused where something else lies there, StoreError."""
        claim = claim_key(batch.first, batch.again)
        try:
            await self._put(claim, batch.checkpoint)
        except KeyConflict:
            raise LedgerRefused(
                f"{claim} in the store is another database's: two databases seal into one store, and this one publishes nothing",
                hint="end whichever should not be running: it is a copy of the other one, or was restored while that went on",
                store_key=claim,
            ) from None
        size = batch.last + 1
        await self._put_evidence(segment_key(batch.first, batch.last), batch.lines)
        await self._put_objects(batch.objects)
        await self._put_evidence(signature_key(size), batch.signature)
        await self._put_evidence(checkpoint_key(size), batch.checkpoint)

    async def bar(self, keys: Sequence[str], content: bytes) -> None:
        """Take the places that whoever sealed what is given up needs next: it may only sleep. Raises LedgerRefused where it was
        faster.
        """
        for key in keys:
            try:
                await self._put(key, content)
            except KeyConflict:
                raise LedgerRefused(
                    f"{key} came into the store meanwhile: another database seals into it",
                    hint="end what seals there, then `archiver rebuild --catch-up`",
                    store_key=key,
                ) from None

    async def finish(self, size: int, checkpoint: bytes, signature: bytes) -> None:
        """Store what a batch lacks whose records and entries are there. Raises as `publish`."""
        await self._put_evidence(signature_key(size), signature)
        await self._put_evidence(checkpoint_key(size), checkpoint)

    async def sweep(self, batch: Batch, left_for: timedelta) -> None:
        """Remove the temporary objects that a sealer left which died while it published this batch. Once: a store that refuses
        something of it is asked again and again. Never in the way of publishing it.
        """
        if self._swept == batch.first:
            return
        self._swept = batch.first

        async def discard(key: str, content: bytes) -> None:
            try:
                await self._store.discard(key, part=_part_of(key, content), left_for=left_for)
            except StoreUnavailable:
                raise
            except StoreError as error:  # not a key of this store: nothing lies there
                log.info("leftover_not_removed", store_key=key, error=error.message)

        size = batch.last + 1
        beside = [
            (claim_key(batch.first, batch.again), batch.checkpoint),
            (segment_key(batch.first, batch.last), batch.lines),
            (signature_key(size), batch.signature),
            (checkpoint_key(size), batch.checkpoint),
        ]
        try:
            await self._each([*beside, *batch.objects], discard)
        except StoreUnavailable as error:  # or one that lets nobody list uploads
            log.warning("leftovers_not_removed", error=error.message)

    async def _each(self, objects: Sequence[tuple[str, bytes]], do: Callable[[str, bytes], Awaitable[None]]) -> None:
        waiting = iter(objects)

        async def do_some() -> None:
            for key, content in waiting:
                await do(key, content)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(objects))):
                    group.create_task(do_some())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the one that stopped the others

    async def _put_objects(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """All of them. One folder that takes nothing, such as a read-only or a full one, is not the store: records that cannot be
        kept there, even when all others are, are put aside.
        """
        left: list[tuple[str, bytes]] = []

        async def put(key: str, content: bytes) -> None:
            try:
                await self._put_object(key, content)
            except StoreUnavailable as error:
                if key.startswith(FOLDER):
                    raise
                if len(left) < AT_ONCE:
                    left.append((key, content))
                else:  # so many: the store, if this fails too
                    await self._put_aside(key, content, error)

        await self._each(objects, put)
        for key, content in left:
            try:
                await self._put_object(key, content)
            except StoreUnavailable as error:
                await self._put_aside(key, content, error)

    async def _put_object(self, key: str, content: bytes) -> None:
        await (self._put_evidence(key, content) if key.startswith(FOLDER) else self._put_record(key, content))

    async def _put_evidence(self, key: str, content: bytes) -> None:
        try:
            await self._put(key, content)
        except KeyConflict:
            raise LedgerRefused(
                f"{key} in the store is not what this ledger has there: somebody wrote it",
                hint="find out who; move it away, and what is sealed here takes its place: `archiver seal`",
                store_key=key,
            ) from None

    async def _put_record(self, key: str, content: bytes) -> None:
        """A record beside its recordings; where the store refuses that, or something else lies there, among the evidence."""
        try:
            await self._put(key, content)
        except StoreUnavailable:
            raise
        except StoreError as error:
            await self._put_aside(key, content, error)

    async def _put_aside(self, key: str, content: bytes, error: StoreError) -> None:
        fallback = record_fallback_key(hashlib.sha256(content).hexdigest())
        await self._put_evidence(fallback, content)
        log.warning("record_put_aside", store_key=key, kept_as=fallback, error=error.message)

    async def _put(self, key: str, content: bytes) -> None:
        self._guard()
        async with self._store.upload(key, part=_part_of(key, content)) as upload:
            upload.expect(len(content))
            await upload.write(content)
            await upload.save(guard=self._guard)


def _part_of(key: str, content: bytes) -> str:
    """The same for whoever publishes a batch: what one has left, another one finds."""
    return f".{hashlib.sha256(key.encode() + content).hexdigest()[:32]}.sealed.part"
