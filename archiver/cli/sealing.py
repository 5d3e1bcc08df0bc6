"""The sealers of commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from archiver.config import Settings
from archiver.errors import ArchiverError
from archiver.evidence.publisher import AT_ONCE
from archiver.evidence.sealer import Sealer, Terms
from archiver.observe.logs import logger
from archiver.outcome import facts_of
from archiver.postgres.database import Database
from archiver.queue.ledger import Ledger
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores import Store
from archiver.stores.open import open_store
from archiver.worker.claiming import Drained

log = logger(__name__)


def sealer_of(settings: Settings, database: Database, store: Store) -> Sealer:
    """What seals this database into this store."""
    lease = timedelta(seconds=settings.worker.lease_seconds)
    return Sealer(Ledger(database), store, Terms(settings.evidence, settings.storage.path, lease))


def sealer_beside(settings: Settings, database: Database, store: Store) -> Sealer | None:
    """The sealer of a worker that keeps recordings in `store`; None where there is no key."""
    return None if settings.evidence.key_file is None else sealer_of(settings, database, store.sharing(_buffers(settings)))


def _buffers(settings: Settings) -> Buffers:
    """What is put into the store is in memory anyway: nothing of it waits for the memory of recordings."""
    return Buffers(AT_ONCE * max(settings.storage.part_size, 2**20))


@asynccontextmanager
async def evidence_store(settings: Settings) -> AsyncIterator[Store]:
    """The archive's store, for a command that reads or writes evidence."""
    async with open_store(settings.storage, _buffers(settings), Network.of(settings.network)) as store:
        yield store


@asynccontextmanager
async def composed_sealer(settings: Settings, database: Database) -> AsyncIterator[Sealer | None]:
    """None where there is no key."""
    if settings.evidence.key_file is None:
        yield None
        return
    async with evidence_store(settings) as store:
        yield sealer_of(settings, database, store)


async def drained_and_sealed(sealer: Sealer | None, ended: Drained, received: Sequence[int]) -> Drained:
    """How a worker ended, with what is to be said of sealing what it did; one that was stopped seals no more."""
    if sealer is None or received:
        return ended
    return replace(ended, unsealed=not await sealed_all(sealer))


async def sealed_all(sealer: Sealer) -> bool:
    """Seal all that waits; if that cannot be, the log says why."""
    try:
        await sealer.finish()
    except ArchiverError as error:
        log.error("sealing_failed", **facts_of(error))  # noqa: TRY400  # what is wrong is in it; how it was found helps nobody
        return False
    return True
