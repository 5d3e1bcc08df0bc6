"""What a process finds out, beside its work, of the database, the tables, the budgets and the store, to say whether it is ready.

Each is looked at again and again by a task of its own, within a bound, and what was found is kept: whoever asks does not wait.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from archiver.errors import ArchiverError, DatabaseError, DatabaseTooNew, DatabaseUnreachable, NotMigrated, StoreError
from archiver.observe.figures import Figures
from archiver.observe.logs import logger
from archiver.observe.readiness import Readiness
from archiver.outcome import facts_of
from archiver.postgres.database import Database
from archiver.postgres.schema import check_version
from archiver.queue.figures import FleetFigures
from archiver.queue.reports import Reports
from archiver.runtime.cancellation import in_thread, within
from archiver.stores import MARKER, Store

log = logger(__name__)

DATABASE_SECONDS = 5.0
"""How often the database is asked, and how long it may take to answer."""

SCHEMA_SECONDS = 30.0
"""How often its version is looked at."""

FIGURES_SECONDS, SOON_SECONDS = 15.0, 1.0
"""How often the figures of the archive are looked at; and while it is just beginning."""

STORE_SECONDS = 15.0
"""How often it is seen whether a folder is there, and what room it has."""

BUCKET_SECONDS = 60.0
"""How often a bucket is asked, which costs a request."""

STORE_PATIENCE = 20.0
"""How long a store may take to answer."""

LONG_SECONDS = 120.0
"""A budget that gives no call for so long is blocked for long: longer waits are not those of its pace."""


class Watch:
    """Keeps `readiness` as it is. Each of its loops never returns, and is ended by cancelling it; whatever goes wrong in them is
    a reason, or a line of the log, and stops nobody's work.
    """

    def __init__(self, readiness: Readiness, bots: Collection[str]) -> None:
        self.readiness = readiness
        self.bots = list(bots)
        self.space: tuple[int, int] | None = None
        """Bytes that are free, and bytes in all, where the store's folder is; None: not known, or it is a bucket."""
        self.store_trouble = ""
        """Why the store does not answer, as far as it was asked here."""
        self._spent_since: dict[str, float] = {}
        self._schema_at = float("-inf")

    async def database(self, database: Database) -> None:
        """Whether it answers, and whether this program works with its tables."""
        await _again(lambda: DATABASE_SECONDS, lambda: self.look_at_database(database))

    async def look_at_database(self, database: Database) -> None:
        """Once, until it has answered, or the statement's own time is over. Not cancelled before: while a database hangs, what is
        cancelled keeps its connection for a while, and one after another would leave none to those who work.
        """
        asked = asyncio.create_task(Reports(database).now())
        try:
            await _answered(asked, DATABASE_SECONDS, lambda for_: self.readiness.set("database", f"the database {for_}"))
        except DatabaseError as error:
            self.readiness.set("database", error.message)
            return
        finally:
            asked.cancel()
        self.readiness.clear("database")
        if time.monotonic() < self._schema_at:
            return
        try:
            await within(DATABASE_SECONDS, check_version(database))
        except (DatabaseUnreachable, TimeoutError):
            return  # the next look says it
        except (DatabaseTooNew, NotMigrated, DatabaseError) as error:
            self.readiness.set("schema", error.message)
        else:
            self.readiness.clear("schema")
        self._schema_at = time.monotonic() + SCHEMA_SECONDS

    async def figures(self, figures: FleetFigures) -> None:
        """The figures of the archive, and what they say of the budgets."""
        logged = ""

        async def look() -> None:
            nonlocal logged
            if self.readiness.has("database"):  # to ask for much would only take one more connection
                self.judge_budgets(figures.latest, figures.age)
                return
            try:
                await figures.look()
                logged = ""
            except (ArchiverError, TimeoutError) as error:
                if (message := _message(error, "they could not be read in time")) != logged:
                    log.warning("figures_not_read", message=message)
                logged = message
            self.judge_budgets(figures.latest, figures.age)

        await _again(lambda: SOON_SECONDS if figures.lacking else FIGURES_SECONDS, look)

    def judge_budgets(self, figures: Figures | None, age: float) -> None:
        """Whether any bot may make calls: `age` seconds ago the figures said when."""
        now = time.monotonic()
        spent: list[str] = []
        for name in self.bots:
            bot = None if figures is None else figures.bots.get(name)
            account = None if bot is None or bot.configured is None else bot.configured.budgets.get("account")
            wait = 0.0 if account is None else account.wait - age
            if wait <= 0:
                self._spent_since.pop(name, None)
            elif wait >= LONG_SECONDS or now - self._spent_since.setdefault(name, now) >= LONG_SECONDS:
                spent.append(f"{name}: none for the next {wait:.0f} s")
        # As long as one bot gets on, so does its worker: which budget is blocked the metrics say.
        if spent and len(spent) == len(self.bots):
            self.readiness.set("budget", f"the platform's limits let no call through ({'; '.join(spent)})")
        else:
            self.readiness.clear("budget")

    async def folder(self, folder: Path) -> None:
        """Whether the store's folder answers, and what room it has. A disk that hangs keeps one thread waiting, no more."""
        await _again(lambda: STORE_SECONDS, lambda: self._ask_store(in_thread(lambda: self._see_folder(folder))))

    def _see_folder(self, folder: Path) -> None:
        seen = os.statvfs(folder)
        self.space = seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize

    async def bucket(self, store: Store) -> None:
        """Whether the store's bucket answers."""
        await _again(lambda: BUCKET_SECONDS, lambda: self._ask_store(asyncio.ensure_future(store.size(MARKER))))

    async def _ask_store(self, asked: asyncio.Future[Any]) -> None:
        """Until it is answered: of a store that hangs it is said after STORE_PATIENCE, and nothing more is asked of it."""
        try:
            await _answered(asked, STORE_PATIENCE, lambda for_: self._store_is(f"the store {for_}"))
        except StoreError as error:
            self._store_is(error.message)
        except OSError as error:
            self._store_is(f"the store's folder cannot be seen: {error.strerror}")
        else:
            self._store_is("")
        finally:
            asked.cancel()

    def _store_is(self, trouble: str) -> None:
        self.store_trouble = trouble


def _message(error: Exception, none: str) -> str:
    return error.message if isinstance(error, ArchiverError) else f"{none} ({error})" if str(error) else none


async def _answered(asked: asyncio.Future[Any], patience: float, late: Callable[[str], None]) -> None:
    """Return, or raise, when it has; `late` is called each time that this was in vain."""
    began = time.monotonic()
    while not asked.done():
        await asyncio.wait([asked], timeout=patience)
        if not asked.done():
            late(f"has not answered for {time.monotonic() - began:.0f} s")
    asked.result()


async def _again(pause: Callable[[], float], look: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await look()
        except Exception as error:  # a look that fails is no reason for anybody to end
            facts = facts_of(error) if isinstance(error, ArchiverError) else {"error": type(error).__name__}
            log.error("readiness_look_failed", **facts, exc_info=True)
        await asyncio.sleep(pause())


def merged(troubles: Collection[Mapping[str, str]]) -> dict[str, str]:
    """Those of several workers; of one reason the first message."""
    found: dict[str, str] = {}
    for each in troubles:
        for reason, message in each.items():
            found.setdefault(reason, message)
    return found
