"""A worker notices that the database it works with was migrated meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from archiver.errors import DatabaseError, DatabaseTooNew, DatabaseUnreachable, NotMigrated
from archiver.observe.logs import logger
from archiver.outcome import facts_of
from archiver.postgres.database import Database
from archiver.postgres.schema import check_version

log = logger(__name__)

LOOK_EVERY_SECONDS = 60.0


async def watch_schema(database: Database, version: int, on_unusable: Callable[[], None]) -> None:
    """Never returns as long as this program works with the tables; `version` is theirs when it begins. Raises DatabaseTooNew or
    NotMigrated once it does not any more, after it has called `on_unusable`: as little as possible is to be written then.
    """
    while True:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        try:
            schema = await check_version(database)
        except (DatabaseTooNew, NotMigrated) as error:
            log.error("database_unusable", **facts_of(error))  # noqa: TRY400  # where it was found says nothing
            on_unusable()
            raise
        except DatabaseUnreachable:
            pass  # whoever has something to do there says so
        except DatabaseError as error:
            log.warning("database_version_unknown", **facts_of(error))
        else:
            if schema.version != version:
                log.info("database_migrated", before=version, now=schema.version)
                schema.log()
            version = schema.version
