"""A backfill: calls of a time long past are read and archived at low priority, which takes weeks, and is watched meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from archiver.account.reading import Shift
from archiver.account.status import pause_after, status_document
from archiver.config import BotSettings
from archiver.errors import DatabaseError
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.discoveries import Discoveries

log = logger(__name__)

PURPOSE = "backfill"

LOOK = timedelta(seconds=10)
"""How often the queue is looked at, at most."""

LOG_SECONDS = 60.0
"""How often the log says how far it is."""


async def finish_backfill(database: Database, shift: Shift) -> None:
    """All that was read is archived: only now its readings are over. One that was interrupted behind its last page need not read
    them all again. Raises DatabaseError.
    """
    for found in shift.found:
        await Discoveries(database).finish(found.readings)


async def watch_backfill(
    database: Database, bots: Sequence[BotSettings], show: Callable[[int, int], None], *, to_log: bool
) -> None:
    """Give `show` how many sessions are done, and how many there are; or, with `to_log`, say it there each minute. Warns once of
    each bot of which there is more than can be archived before the platform deletes it. Never returns.
    """
    warned: set[str] = set()
    logged_at = time.monotonic()
    while True:
        began = time.monotonic()
        try:
            document = await status_document(database, bots)
        except DatabaseError as error:
            log.warning("progress_read_failed", error=error.message)
        else:
            for warning in document["warnings"]:
                if warning["bot"] not in warned:
                    log.warning("retention_deadline_at_risk", **warning)
                    warned.add(warning["bot"])
            sessions = document["sessions"]
            total = sum(sessions.values())
            show(total - sessions["pending"] - sessions["claimed"], total)
            if to_log and began - logged_at >= LOG_SECONDS:
                log.info("backfill_progressed", **sessions, time_left_seconds=document["time_left_seconds"])
                logged_at = began
        await asyncio.sleep(pause_after(time.monotonic() - began, LOOK))
