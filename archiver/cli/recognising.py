"""Whether a store is this archive's, for commands that write evidence into it or judge it."""

from __future__ import annotations

from archiver.archive.store_identity import Standing, claim_store, recognise, to_rebuild
from archiver.config import Settings
from archiver.errors import WrongStore
from archiver.postgres.database import Database
from archiver.queue.identity import Identities
from archiver.stores import Store


async def check_store(settings: Settings, database: Database, store: Store) -> None:
    """Raises WrongStore where it is another archive's, or lacks the marker that this one's has."""
    found = await recognise(Identities(database), store, settings.storage.url)
    if found.standing is Standing.TO_REBUILD:
        raise to_rebuild(settings.storage.url)
    if found.standing is Standing.TO_TAKE:
        raise WrongStore(
            f"{settings.storage.url} is the store of another archive, and this database has no sessions",
            hint="correct storage.url or database.url, whichever leads to the other archive",
        )


async def claim_checked_store(settings: Settings, database: Database, store: Store) -> None:
    """As `check_store`, for what may be the first to write into a store: one that is empty is marked as this archive's, since the
    evidence that comes into it would make it look like somebody else's to the first worker.
    """
    await check_store(settings, database, store)
    await claim_store(database, store, settings.storage.url, adopt_known=False)
