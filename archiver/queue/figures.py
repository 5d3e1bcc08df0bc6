"""The figures of the whole archive, for metrics: read once for the fleet, however many processes show them.

They are kept in one row (`archive_figures`). Whoever finds it older than FRESH takes the turn to read them anew, and all others
read the row. A database that has no such row yet, or a role that may not write it, is read by each process for itself. No figure
counts the queue: they come from the roll-up, from small tables, and from first entries of indexes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from archiver.config import BotSettings, Budget, account_budgets, sessions_budgets
from archiver.errors import DatabaseError, DatabaseUnreachable
from archiver.observe.figures import BotFigures, BudgetFigures, ConfiguredFigures, Figures, Hold, Notifications
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.postgres.features import Feature, Features
from archiver.postgres.statements import Statement
from archiver.queue.findings import Findings
from archiver.queue.reports import Reports
from archiver.queue.sql import sql
from archiver.runtime.cancellation import within

log = logger(__name__)

FRESH = timedelta(seconds=15)
"""Figures that are older are read anew."""

SOON, FIRST_LOOKS = timedelta(seconds=1), 5
"""The same for so many first looks, as long as a bot is lacking."""

TURN = timedelta(seconds=20)
"""So long whoever took the turn may take to read them; then it is somebody else's. So no two read at once, and a database that
takes longer is asked no more often than that."""

READ_SECONDS = 15.0
"""So long they are read; less than a turn."""

MAX_AGE_SECONDS = 120.0
"""Figures that are older are shown by nobody: of several processes the one that lost the database would go on saying what was."""

KEPT_SECONDS = 300.0
"""So long what was read of a bot by a process that has it in its configuration counts, if others read the rest meanwhile."""

# Not among the statements that every database can run: it may lack the table.
_NOTIFICATIONS = Statement.parse(
    "figures/notifications",
    """SELECT count(*) AS waiting,
              greatest(coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0), 0)::double precision AS oldest
       FROM archive_notifications WHERE sent_at IS NULL AND given_up_at IS NULL""",
)

_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


class FleetFigures:
    """What one process knows of them. `bots` are those of its configuration."""

    def __init__(self, database: Database, bots: Sequence[BotSettings]) -> None:
        self._database = database
        self._features = Features(database)
        self._bots = list(bots)
        self._me = uuid.uuid4()
        self._figures: Figures | None = None
        self._as_of = float("-inf")  # by the monotonic clock
        self._shares = True
        self._looks = 0

    def change(self, bots: Sequence[BotSettings]) -> None:
        """Those of the configuration are these from now on."""
        self._bots = list(bots)
        self._looks = 0

    @property
    def latest(self) -> Figures | None:
        """As they were last seen, unless that is too long ago."""
        return self._figures if self.age <= MAX_AGE_SECONDS else None

    @property
    def seen_at(self) -> float | None:
        """When those that were last seen were read, however long ago: Unix time by the database's clock."""
        return None if self._figures is None else self._figures.at

    @property
    def age(self) -> float:
        """Seconds since they were read, whatever the clocks of this host and of the database say."""
        return time.monotonic() - self._as_of

    @property
    def lacking(self) -> bool:
        """Whether a bot is missing in them that is just being recorded: a worker does that as it begins."""
        return self._looks <= FIRST_LOOKS and (
            self._figures is None or any(bot.name not in self._figures.bots for bot in self._bots)
        )

    async def look(self) -> None:
        """See what they are, and read them if it is time and nobody else does. Raises DatabaseError, TimeoutError."""
        self._looks += 1
        if not await self._features.has(Feature.FIGURES):
            if self.age > FRESH.total_seconds():
                self._take(await within(READ_SECONDS, self._read({})))
            return
        asked = time.monotonic()
        row = await self._database.row(sql("figures/look"), fresh=FRESH, turn=TURN)
        if row is None:  # somebody removed it
            self._take(await within(READ_SECONDS, self._read({})))
            with suppress(DatabaseError):
                await self._database.rows(sql("figures/begin"))
            return
        before = row["document"]
        readable = self._see(before, asked - max(row["age"], 0.0))
        if before and not readable and not row["due"] and self.age > FRESH.total_seconds():
            # Of a program that keeps other figures, and goes on doing so.
            self._take(await within(READ_SECONDS, self._read({})))
        elif row["due"] or self.lacking:
            await self._read_in_turn(SOON if self.lacking else FRESH)

    async def read_now(self) -> None:
        """Read them, however fresh those are that are there, and leave them to the others. Raises DatabaseError, TimeoutError."""
        before = {} if self._figures is None else self._figures.as_document()
        figures = await within(READ_SECONDS, self._read(before))
        self._take(figures)
        if await self._features.has(Feature.FIGURES):
            with suppress(DatabaseError):  # it has them all the same
                await self._write(figures, None)

    async def _read_in_turn(self, fresh: timedelta) -> None:
        try:
            taken = await self._database.row(sql("figures/take"), fresh=fresh, turn=TURN, me=self._me)
        except DatabaseError as error:  # a role, or a server, that only reads: each time, it may become another
            if self._shares:
                log.info("figures_not_shared", message=error.message)
            self._shares = False
            self._take(await within(READ_SECONDS, self._read({})))
            return
        self._shares = True
        if taken is None:
            return
        figures = await within(READ_SECONDS, self._read(taken["document"]))
        self._take(figures)
        await self._write(figures, self._me)

    async def _write(self, figures: Figures, me: uuid.UUID | None) -> None:
        at = datetime.fromtimestamp(figures.at, UTC)
        await self._database.rows(sql("figures/write"), at=at, document=figures.as_document(), me=me)

    def _see(self, document: Mapping[str, Any], as_of: float) -> bool:
        """What others read. What is no such document is not shown."""
        try:
            figures = Figures.of(document)
        except _UNREADABLE:
            return False
        if self._figures is None or figures.at != self._figures.at:
            self._figures, self._as_of = figures, as_of
        return True

    def _take(self, figures: Figures) -> None:
        self._figures, self._as_of = figures, time.monotonic()

    async def _read(self, before: Mapping[str, Any]) -> Figures:
        """All of them, one statement after another: whoever reads them must not take all connections. `before` are those that
        were read last.
        """
        run, reports = self._database.rows, Reports(self._database)
        (fleet,) = await run(sql("figures/fleet"))
        at = fleet["at"].timestamp()
        oldest = await reports.oldest_verification()
        damaged = await Findings(self._database).damaged()
        bots = {row["bot"]: _bot_figures(row) for row in await run(sql("figures/bots"))}
        for row in await run(sql("figures/nights")):
            if row["bot"] in bots:
                bots[row["bot"]] = replace(
                    bots[row["bot"]],
                    gap_days=row["gap_days"],
                    oldest_gap=row["oldest_gap"],
                    last_complete_night=row["last_complete"],
                )
        configured = await self._read_configured(at)
        known = _known_before(before)
        for name, bot in bots.items():
            older = known.get(name)
            bots[name] = replace(
                bot,
                last_archived=_last_archived(bot, older, at),
                configured=configured.get(name) or (None if older is None else _still(older.configured, at)),
            )
        return Figures(
            at=at,
            workers=fleet["workers"],
            schema_version=fleet["schema_version"],
            unsealed=fleet["unsealed"],
            oldest_verification=None if oldest is None else oldest.seconds,
            damaged_sessions=damaged.open,
            holds=tuple(Hold(**hold) for hold in fleet["holds"]),
            bots=bots,
            notifications=await self._read_notifications(),
        )

    async def _read_configured(self, at: float) -> dict[str, ConfiguredFigures]:
        """What the configuration of this process says, and the database knows."""
        of_bots = {"account": account_budgets(self._bots), "sessions": sessions_budgets(self._bots)}
        budgets = {budget.key: budget for group in of_bots.values() for budget in group.values()}
        figures = await self._read_budgets(list(budgets.values()))
        deadlines = await self._database.rows(
            sql("figures/deadlines"),
            bots=[bot.name for bot in self._bots if bot.source_retention is not None],
            retentions=[bot.source_retention for bot in self._bots if bot.source_retention is not None],
        )
        seconds = {row["bot"]: row["seconds"] for row in deadlines}
        return {
            bot.name: ConfiguredFigures(
                at, {which: figures[group[bot.name].key] for which, group in of_bots.items()}, seconds.get(bot.name)
            )
            for bot in self._bots
        }

    async def _read_budgets(self, budgets: Sequence[Budget]) -> dict[str, BudgetFigures]:
        windows = [(budget, number, limit) for budget in budgets for number, limit in enumerate(budget.limits)]
        rows = await self._database.rows(
            sql("figures/budgets"),
            budgets=[budget.key for budget in budgets],
            keys=[budget.key for budget, _, _ in windows],
            lengths=[limit.window for _, _, limit in windows],
            limits=[limit.calls for _, _, limit in windows],
            first=[number == 0 for _, number, _ in windows],
            counted=[budget.counted for budget, _, _ in windows],
        )
        return {row["key"]: BudgetFigures(row["remaining"], row["blocked"], max(row["blocked"], row["wait"])) for row in rows}

    async def _read_notifications(self) -> Notifications | None:
        if not await self._features.has(Feature.NOTIFICATIONS):
            return None
        try:
            row = await self._database.row(_NOTIFICATIONS)
        except DatabaseUnreachable:
            raise
        except DatabaseError:
            return None
        return None if row is None else Notifications(row["waiting"], row["oldest"])


def _bot_figures(row: Any) -> BotFigures:
    return BotFigures(
        sessions=row["sessions"],
        paused=row["paused"],
        oldest_ready=row["oldest_ready"],
        last_archived=row["last_archived"],
        calls_per_recording=row["calls"] / row["files"] if row["calls"] is not None and row["files"] else None,
    )


def _last_archived(bot: BotFigures, older: BotFigures | None, now: float) -> float | None:
    """When something of it was archived last. Few entries are looked at for that: where more is archived than was when the
    figures were read before, and none of these says when, it was since then.
    """
    seen = bot.last_archived
    if older is None or older.last_archived is None or older.last_archived > now:  # by a clock that was wrong
        return seen
    if seen is None or seen <= older.last_archived:
        grown = bot.sessions.get("archived", 0) > older.sessions.get("archived", 0)
        return now if grown else older.last_archived
    return seen


def _known_before(document: Mapping[str, Any]) -> Mapping[str, BotFigures]:
    try:
        return Figures.of(document).bots
    except _UNREADABLE:
        return {}


def _still(configured: ConfiguredFigures | None, now: float) -> ConfiguredFigures | None:
    """What another process read, unless that is too long ago."""
    return configured if configured is not None and 0 <= now - configured.at <= KEPT_SECONDS else None
