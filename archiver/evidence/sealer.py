"""The sealer: takes what waits in the outbox, makes entries and records of it, seals them, and brings them into the store.

A batch is made in one transaction: after that all its bytes are fixed. Then they are published: the claim first, the checkpoint
last, each create-only. So it does not matter who publishes, or how often; and of two databases that seal into one store, the one
whose claim comes second publishes nothing. There is one sealer at a time, by a lease: only so that nothing is done twice.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from archiver import __version__
from archiver.config import EvidenceSettings
from archiver.config.bots import BOT_NAME
from archiver.config.path_template import PathTemplate
from archiver.errors import DatabaseError, EvidenceError, LedgerNotBegun, LedgerRefused, SealedElsewhere
from archiver.evidence import documents
from archiver.evidence.checkpoints import Checkpoint, sshsig
from archiver.evidence.entries import Made, made_of
from archiver.evidence.keys import PublicKey, SealingKey
from archiver.evidence.merkle import EMPTY_ROOT, Frontier, leaf_hash
from archiver.evidence.publisher import Publisher
from archiver.observe.logs import logger
from archiver.queue.ledger import MAX_ENTRIES, Batch, Head, HistoryRow, Index, Ledger, OutboxRow, Sequencing, epochs_of
from archiver.stores import Store

log = logger(__name__)

CHUNK = 512
"""Rows that are taken at a time: their history has to fit into memory."""

MAX_OBJECTS = 32 * 2**20
"""Bytes of records after which a batch takes no more."""

WAIT_SECONDS = 0.5
"""How often somebody who waits for another sealer looks again."""

BEGIN_TRIES = 3
"""How often it is tried to begin the ledger while somebody holds the sessions."""

_NOTHING = {"sessions": 0, "files": 0, "unnamed": 0, "lost": 0, "by": "worker"}
"""An entry `rebuilt` that only fills a place, where a batch that was given up ended."""

OURS = ("key", "rebuilt")
"""Events that the sealer alone makes: an outbox row that says so is nobody's word."""


@dataclass(frozen=True)
class Terms:
    """How to seal. `lease`: how long a sealer may be silent until another one takes over."""

    evidence: EvidenceSettings
    path: PathTemplate
    lease: timedelta


@dataclass(frozen=True)
class Sealed:
    """What one round brought: entries that were published, those adopted for the next one, and the size of the ledger since."""

    entries: int
    adopted: int
    size: int


class Sealer:
    """Seals what waits in one database into one store. `round` and `finish` are not called at the same time."""

    def __init__(self, ledger: Ledger, store: Store, terms: Terms) -> None:
        self._ledger = ledger
        self._publisher = Publisher(store, self._guard)
        self._terms = terms
        self._id = uuid4()
        self._until = 0.0
        self._said_origin = False

    async def begin(self) -> Head:
        """Begin the ledger, if it is not: whatever ends from now on is sealed. Raises KeyUnusable, LedgerRefused where the store
        has a ledger already, LedgerNotBegun, StoreError.
        """
        head = await self._ledger.head()
        if head is None:
            key = await self._load_key()
            await self._publisher.check_empty()
            origin = self._terms.evidence.origin or f"archiver/{secrets.token_hex(8)}"
            for tries_left in reversed(range(BEGIN_TRIES)):
                try:
                    await self._ledger.begin(origin, key.public.openssh, EMPTY_ROOT)
                    break
                except LedgerNotBegun:
                    if not tries_left:
                        raise
                await asyncio.sleep(WAIT_SECONDS)  # in which others can go on
            head = await self._ledger.head()
            assert head is not None
            log.info("ledger_begun", origin=head.origin, key=key.public.fingerprint)
        if self._terms.evidence.origin not in ("", head.origin) and not self._said_origin:
            self._said_origin = True
            log.warning("evidence_origin_ignored", origin=head.origin, configured=self._terms.evidence.origin,
                        hint="the first entry fixed it: let evidence.origin say the same, or leave it empty")  # fmt: skip
        return head

    @property
    def adopts(self) -> bool:
        """Whether sessions that ended before the ledger was begun are adopted, if there are any."""
        return self._terms.evidence.adopt_per_minute > 0

    async def round(self, *, adopt: bool = True) -> Sealed:
        """Publish what is sealed already, else seal what waits, at most one batch, and publish it; then `adopt` for the next one,
        unless enough waits. Raises SealedElsewhere where another sealer is at it, LedgerRefused, KeyUnusable, StoreError,
        DatabaseError; what was not published the next one does.
        """
        await self.begin()
        async with self._leased():
            batch = await self._ledger.unpublished()
            if batch is not None:
                await self._publisher.check_before(batch.first)
                await self._publisher.sweep(batch, self._terms.lease)
            else:
                batch = await self._seal()
            if batch is not None:
                await self._publish(batch)
            head = await self._ledger.head()
            assert head is not None
            adopted = 0
            per_minute = self._terms.evidence.adopt_per_minute
            if adopt and head.adopts and per_minute and (await self._ledger.waiting()).rows < MAX_ENTRIES:
                adopted, done = await self._ledger.adopt(per_minute)
                if done:
                    log.info("adoption_finished")
        entries = 0 if batch is None else batch.last - batch.first + 1
        return Sealed(entries, adopted, head.size)

    async def finish(self, on_sealed: Callable[[Sealed], None] = lambda _: None) -> int:
        """Seal and publish all that waits now; another sealer is waited for. Adopts once, and again only where the rate
        allows whole batches: else it would end with the last of all sessions. How many entries this one published. Raises as
        `round`.
        """
        entries = 0
        await self.begin()
        newest = await self._ledger.newest()
        first = adopt = True
        while first or await self._ledger.is_left(newest):
            try:
                sealed = await self.round(adopt=adopt)
            except SealedElsewhere:
                await asyncio.sleep(WAIT_SECONDS)
                continue
            first = False
            entries += sealed.entries
            if sealed.adopted:
                adopt = sealed.adopted >= MAX_ENTRIES
                newest = await self._ledger.newest()
            on_sealed(sealed)
        return entries

    async def rotate(self, new: SealingKey, *, lost: bool = False) -> Head:
        """Let `new` sign all that follows: the old key seals an entry that says so; if it is `lost`, the new one does, and
        nothing vouches for that. Raises as `round`.
        """
        if not lost:
            await self.finish()
        async with self._leased():
            if lost and (sealed := await self._ledger.unpublished()) is not None:
                await self._publish(sealed)
            batch = await self._seal(new=new, lost=lost)
            if batch is None:
                raise SealedElsewhere("another sealer was faster", hint="run it again")
            await self._publish(batch)
        rotated = await self._ledger.head()
        assert rotated is not None
        return rotated

    async def publish_left(self) -> None:
        """Publish what is sealed already, if the store takes it: where it has another batch in its place, that counts. Raises
        StoreError, SealedElsewhere.
        """
        async with self._leased():
            if (batch := await self._ledger.unpublished()) is not None:
                with suppress(LedgerRefused):
                    await self._publisher.check_before(batch.first)
                    await self._publish(batch)

    async def finish_claimed(self, size: int, checkpoint: bytes) -> None:
        """Publish the checkpoint of a batch that this key claimed, and whose entries are in the store: for a database that knows
        of no ledger, and of no lease. Raises StoreError, KeyUnusable, LedgerRefused.
        """
        key = await self._load_key()
        self._until = time.monotonic() + self._terms.lease.total_seconds()
        await self._publisher.finish(size, checkpoint, sshsig(checkpoint, key))

    async def rebuilt(
        self, said: Mapping[str, int], *, again: int, barred: Sequence[str] = (), by: bytes = b"", lost: bool = False
    ) -> None:
        """Seal that the database was rebuilt, by a batch that supersedes those that were claimed and given up. Whoever made those
        can go on no more: the keys that it needs are `barred` by this content. `lost`: the ledger's key is, and the configured
        one signs from now on. Raises as `round`.
        """
        new = await self._load_key() if lost else None
        async with self._leased():
            await self._publisher.bar(barred, by)
            batch = await self._seal(new=new, lost=lost, rebuilt=said, again=again)
            if batch is None:
                raise SealedElsewhere("another sealer was faster", hint="run `archiver rebuild --catch-up`")
            await self._publish(batch)

    # --- one sealer at a time

    @asynccontextmanager
    async def _leased(self) -> AsyncIterator[None]:
        length = self._terms.lease
        asked = time.monotonic()
        if not await self._ledger.lease(self._id, length):
            raise SealedElsewhere(
                "another sealer is at it", hint="it is taken over from one that died, after worker.lease_seconds"
            )
        self._until = asked + length.total_seconds()
        keeper = asyncio.create_task(self._keep(length), name="sealer's lease")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
            with suppress(DatabaseError):  # then it runs out
                await self._ledger.release(self._id)

    async def _keep(self, length: timedelta) -> None:
        while True:
            await asyncio.sleep(length.total_seconds() / 3)
            asked = time.monotonic()
            try:
                if not await self._ledger.lease(self._id, length):
                    return
            except DatabaseError as error:
                log.warning("sealer_lease_not_renewed", error=error.message)
                continue
            self._until = asked + length.total_seconds()

    def _guard(self) -> None:
        if time.monotonic() >= self._until:
            raise SealedElsewhere("the lease of this sealer ran out", hint="another one goes on; nothing is lost")

    # --- sealing

    async def _load_key(self) -> SealingKey:
        file = self._terms.evidence.key_file
        assert file is not None, "nobody seals without a key"
        return await asyncio.to_thread(SealingKey.load, file)

    async def _publish(self, batch: Batch) -> None:
        await self._publisher.publish(batch)
        await self._ledger.published(batch)
        log.info("entries_sealed", first=batch.first, last=batch.last, size=batch.last + 1)

    async def _seal(
        self,
        *,
        new: SealingKey | None = None,
        lost: bool = False,
        rebuilt: Mapping[str, int] | None = None,
        again: int = 1,
    ) -> Batch | None:
        """Make a batch of what waits, or of a change of keys or of the database alone; None where there is nothing, or another
        sealer has come.
        """
        known = await self._ledger.head()
        assert known is not None
        await self._publisher.check(known, again)
        key = new if lost and new is not None else await self._load_key()
        if new is not None and known.public_key == new.public.openssh:
            raise EvidenceError("this key signs the ledger already", hint="name another one with --new")
        if known.size and known.public_key != key.public.openssh and not lost:  # before the first entry no key is named anywhere
            signs = PublicKey.from_openssh(known.public_key).fingerprint
            raise LedgerRefused(
                f"evidence.key_file is {key.public.fingerprint}, and the ledger is signed by {signs}",
                hint="let it name that key, or its copy; `archiver key rotate` changes to another, also when that is lost",
            )
        async with self._ledger.sequencing(self._id) as sequencing:
            if sequencing is None:
                return None
            head = sequencing.head
            if (head.size, head.public_key) != (known.size, known.public_key):
                return None  # held up for longer than its lease: what was found right with the store and the key may not be
            made: list[tuple[int | None, Made]] = []
            objects: list[tuple[str, bytes]] = []
            signers = head.signers
            if head.size == 0 or new is not None:
                signers += 1
                public = (new or key).public
                previous = None if new is None else PublicKey.from_openssh(known.public_key).fingerprint
                body, files = await asyncio.to_thread(documents.naming, head.origin, public, signers, previous)
                made.append((None, self._said_by_us("key", body)))
                objects += files
            if rebuilt is not None:
                made.append((None, self._said_by_us("rebuilt", {**rebuilt, "by": "person"})))
            elif new is None:
                made += await self._take(sequencing, MAX_ENTRIES - len(made))
            if not made:
                return None
            while head.size + len(made) <= head.given_up and await self._publisher.ends_there(head.size, head.size + len(made)):
                made.append((None, self._said_by_us("rebuilt", _NOTHING | {"size": head.size, "given_up": head.given_up})))
            objects += [(entry.record_key, entry.record) for _, entry in made if entry.record is not None and entry.record_key]
            frontier = Frontier(head.size, head.frontier)
            for _, entry in made:
                frontier.append(leaf_hash(entry.line))
            checkpoint = Checkpoint(head.origin, frontier.size, frontier.root())
            note = checkpoint.signed(key)
            lines = b"".join(entry.line + b"\n" for _, entry in made)
            batch = Batch(head.size, frontier.size - 1, note, sshsig(note, key), lines, objects, again)
            await sequencing.seal(
                batch,
                [Index(queue_id, entry.edition, None if entry.record is not None else entry.salt) for queue_id, entry in made],
                root=checkpoint.root,
                frontier=frontier.hashes,
                tiles=frontier.tiles,
                public_key=(new or key).public.openssh,
                signers=signers,
            )
        return batch

    def _said_by_us(self, event: str, body: Mapping[str, Any]) -> Made:
        return self._make(OutboxRow(0, uuid4(), datetime.now(UTC), event, None, dict(body)), 0, [], b"")

    def _make(self, row: OutboxRow, earlier: int, history: Sequence[HistoryRow], salt: bytes) -> Made:
        return made_of(
            row,
            path=self._terms.path,
            earlier_editions=earlier,
            asks=history,
            is_bot_name=lambda name: BOT_NAME.fullmatch(name) is not None,
            version=__version__,
            salt=salt,
        )

    async def _take(self, sequencing: Sequencing, most: int) -> list[tuple[int | None, Made]]:
        """Entries of what has waited longest, with the sessions that they are about."""
        made: list[tuple[int | None, Made]] = []
        editions: dict[int, int] = {}
        size = 0
        while len(made) < most and size < MAX_OBJECTS:
            wanted = min(CHUNK, most - len(made))
            rows = await sequencing.take(wanted)
            if not rows:
                break
            sessions = [row.queue_id for row in rows if row.queue_id is not None]
            editions = await sequencing.editions([each for each in sessions if each not in editions]) | editions
            history = await sequencing.history(epochs_of(rows))

            # Some hundred milliseconds, in which others may need the loop.
            made += await asyncio.to_thread(self._make_all, rows, editions, history)
            size = sum(len(entry.record or b"") for _, entry in made)
        return made

    def _make_all(
        self, rows: Sequence[OutboxRow], editions: dict[int, int], history: Mapping[int, Sequence[HistoryRow]]
    ) -> list[tuple[int | None, Made]]:
        """`editions` is kept up to date."""
        made: list[tuple[int | None, Made]] = []
        for row in rows:
            session = row.queue_id or 0
            told = replace(row, event="forged") if row.event in OURS else row
            entry = self._make(told, editions.get(session, 0), history.get(session, ()), secrets.token_bytes(16))
            if entry.edition is not None:
                editions[session] = entry.edition
            made.append((row.queue_id, entry))
        return made
