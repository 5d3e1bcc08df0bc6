"""`archiver nightly`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

import click

from archiver.cli.accounts import Closing, close_account, format_option, show
from archiver.cli.app import Incomplete
from archiver.cli.compose import DURATION, opened, run_async, settings_of
from archiver.cli.listing import (
    BOUND,
    ListingProgress,
    Reading,
    bars,
    bots_option,
    chosen_bots,
    each_bot,
    opened_listings,
    span_of,
)
from archiver.cli.worker import pool_size, tell_of_drain, worked
from archiver.config import BotSettings, Settings
from archiver.days import day_of, first_moment, resolved
from archiver.discovery import Discovered
from archiver.errors import UsageError
from archiver.kore.calls import Span
from archiver.observe.logs import logger
from archiver.queue.database import Database
from archiver.queue.discoveries import Discoveries
from archiver.queue.sessions import Queue
from archiver.worker import Drained

log = logger(__name__)

PURPOSE = "nightly"

ROUNDS = 2
"""So often a night is gone through while calls of it are listed only after it was read."""


@click.command(short_help="Discover, archive and account for all calls since the last complete night.")
@click.option("--from", "start", type=BOUND, help="Begin here instead of where the last night ended, less the overlap.")
@click.option("--to", "end", type=BOUND, help="End here instead of at the last midnight in the bot's time zone.")
@bots_option
@click.option("--max-wait", type=DURATION, help="Wait at most so long for sessions that fall due later.")
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    start: date | datetime | None,
    end: date | datetime | None,
    names: tuple[str, ...],
    max_wait: timedelta | None,
    form: str,
) -> None:
    """Discover the calls since the last complete night, archive what is in the queue, and account for those calls: for cron or a
    Kubernetes CronJob.

    A night ends at midnight in the bot's time zone. It begins where the last one ended, and discovery.overlap before, since calls
    are listed late, too; the first one begins a day before its end. What is listed only while it archives is archived as well.
    Nothing of low priority is waited for, such as a backfill. Two at once don't collide: the second waits while the first reads
    the listings, then both archive. What is broken off goes on the next time.

    Exit codes: 0 every call is accounted for; 1 fatal; 2 usage or configuration; 3 some failed, are pending, missing or
    mismatched, or a bot was refused; 130, 143 stopped by a signal.
    """
    settings = settings_of(ctx)
    received, drained, closing = run_async(_night(settings, chosen_bots(settings, names), start, end, max_wait))
    tell_of_drain(drained)
    if closing is None:
        raise click.exceptions.Exit(128 + received[0])
    show(closing, form)
    if not (drained.complete and closing.complete):
        raise Incomplete


async def _night(
    settings: Settings,
    bots: list[BotSettings],
    start: date | datetime | None,
    end: date | datetime | None,
    max_wait: timedelta | None,
) -> tuple[list[int], Drained, Closing | None]:
    async with opened(settings, pool_size=pool_size(settings)) as (database, queue):
        await queue.record_bots([bot.name for bot in settings.bots], complete=False)
        now, discoveries = await queue.clock(), Discoveries(database)
        spans = {bot.name: await _span(settings, discoveries, bot, start, end, now) for bot in bots}
        rounds = 0
        while True:
            found, failed = await _discover(settings, database, queue, bots, spans, afresh=rounds > 0)
            received, drained = await worked(settings, database, queue, max_wait=max_wait, night=True)
            if received:  # stopped: nothing is closed yet
                return received, drained, None
            listed = [bot for bot in bots if bot.name not in failed]
            closing = await close_account(settings, database, queue, listed, spans)
            # Only now: a night that was broken off is not the last complete one, however far it had come.
            for each in found:
                if each.reading is not None and each.bot not in closing.failed:
                    await discoveries.finish(each.reading)
            rounds += 1
            if rounds == ROUNDS or not closing.account.counts["missing"]:
                return received, drained, replace(closing, failed={**failed, **closing.failed})
            log.info("calls_listed_late", calls=closing.account.counts["missing"])


async def _discover(
    settings: Settings, database: Database, queue: Queue, bots: Sequence[BotSettings], spans: Mapping[str, Span], *, afresh: bool
) -> tuple[list[Discovered], dict[str, str]]:
    """Put each bot's night into the queue; returns why not, of those that the platform refused."""
    reading = Reading(settings, database, queue, PURPOSE, afresh=afresh, finish=False)
    async with opened_listings(settings, database, queue) as listings:
        with bars() as progress:
            shown = ListingProgress(progress)

            async def read(bot: BotSettings) -> Discovered:
                return await reading.read(listings[bot.name], spans[bot.name], shown)

            return await each_bot(bots, read)


async def _span(
    settings: Settings,
    discoveries: Discoveries,
    bot: BotSettings,
    start: date | datetime | None,
    end: date | datetime | None,
    now: datetime,
) -> Span:
    """What this night is of a bot. Raises UsageError."""
    until = await discoveries.watermark(bot.name, PURPOSE)
    ends = end or first_moment(day_of(now, bot.zone), bot.zone)
    if start is not None:
        span = span_of(bot, start, ends, now)
        if until is not None and span.start > until:
            raise UsageError(
                f"--from {start} would leave a gap: the last complete night of {bot.name} ended at {until.isoformat()}",
                hint="leave --from out; `archiver discover` reads any time by itself",
            )
        return span
    if until is not None:
        return span_of(bot, until - settings.discovery.overlap, ends, now)
    last_moment = resolved(ends, bot.zone) - timedelta(microseconds=1)
    return span_of(bot, day_of(last_moment, bot.zone), ends, now)
