"""What a night is of a bot, and when it is complete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from archiver.account.closing import Closing, find_earlier
from archiver.account.reading import Shift, span_of
from archiver.config import BotSettings, Settings
from archiver.errors import UsageError
from archiver.kore.listings.calls import Span
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.discoveries import Discoveries
from archiver.runtime.days import day_of, first_moment, to_instant

log = logger(__name__)

PURPOSE = "nightly"

ROUNDS = 2
"""How often a night is worked through at most, while calls of it are listed only after it was read."""


async def complete_night(
    database: Database,
    bots: Sequence[BotSettings],
    *,
    work: Callable[[bool], Awaitable[Shift]],
    account: Callable[[list[BotSettings]], Awaitable[Closing]],
) -> tuple[Shift, Closing | None]:
    """Work through a night, then account for it, once more where calls of it were listed late. `work` reads the listings (afresh,
    if its argument says so) and archives; `account` accounts for the bots that could be listed. No Closing: it was stopped. It
    says what earlier times left open, too.
    """
    discoveries = Discoveries(database)
    rounds = 0
    while True:
        shift = await work(rounds > 0)
        if shift.received:  # stopped: nothing is closed yet
            return shift, None
        closing = await account([bot for bot in bots if bot.name not in shift.failed])
        # Only now: a night that was broken off is not the last complete one, however far it had come.
        for each in shift.found:
            if each.bot not in closing.failed:
                await discoveries.finish(each.readings)
        rounds += 1
        if rounds == ROUNDS or not closing.account.counts["missing"]:
            earlier = await find_earlier(database, closing.account, [bot.name for bot in bots])
            return shift, replace(closing, failed={**shift.failed, **closing.failed}, earlier=earlier)
        log.info("calls_listed_late", calls=closing.account.counts["missing"])


async def night_span(
    settings: Settings,
    discoveries: Discoveries,
    bot: BotSettings,
    start: date | datetime | None,
    end: date | datetime | None,
    now: datetime,
) -> Span:
    """The time of this night for a bot. Raises UsageError."""
    until = await discoveries.watermark(bot.name, PURPOSE)
    night_end = end or first_moment(day_of(now, bot.zone), bot.zone)
    if start is not None:
        span = span_of(bot, start, night_end, now)
        if until is not None and span.start > until:
            raise UsageError(
                f"a night from {start} on would leave a gap: the last complete night of {bot.name} ended at "
                f"{until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
                hint="leave --from out; `archiver discover` reads any time, and leaves nights alone",
            )
        return span
    if until is not None:
        return span_of(bot, until - settings.discovery.overlap, night_end, now)
    last_moment = to_instant(night_end, bot.zone) - timedelta(microseconds=1)
    return span_of(bot, day_of(last_moment, bot.zone), night_end, now)
