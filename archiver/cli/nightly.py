"""`archiver nightly`."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import click

from archiver.cli.accounts import Closing, close_account, format_option, show
from archiver.cli.app import Incomplete
from archiver.cli.compose import DURATION, opened, run_async, settings_of
from archiver.cli.listing import (
    BOUND,
    ReadingTerms,
    Shift,
    bots_option,
    chosen_bots,
    read_and_work,
    span_of,
    warn_of_deadlines,
)
from archiver.cli.worker import pool_size, tell_of_drain
from archiver.config import BotSettings, Settings
from archiver.errors import UsageError
from archiver.kore.listings.calls import Span
from archiver.observe.logs import logger
from archiver.queue.discoveries import Discoveries
from archiver.runtime.days import day_of, first_moment, to_instant

log = logger(__name__)

PURPOSE = "nightly"

ROUNDS = 2
"""So often a night is gone through while calls of it are listed only after it was read."""


@click.command(short_help="Discover, archive and account for all calls since the last complete night.")
@click.option("--from", "start", type=BOUND, help="Begin here instead of where the last night ended, less the overlap.")
@click.option("--to", "end", type=BOUND, help="End here instead of at the last midnight in the bot's time zone.")
@bots_option
@click.option(
    "--max-wait", type=DURATION, help="Wait at most so long for sessions that fall due later. Default: retry.not_ready_give_up."
)
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
    shift, closing = run_async(_night(settings, chosen_bots(settings, names), start, end, max_wait))
    tell_of_drain(shift.drained)
    if closing is None:
        raise click.exceptions.Exit(128 + shift.received[0])
    show(closing, form)
    whole = all(each.whole for each in shift.found)
    if not whole:
        click.echo("some calls could not be listed: the log says of which times", err=True)
    if not shift.drained.complete:
        click.echo("sessions failed meanwhile, or had to be left pending: `archiver status` says why", err=True)
    if not (whole and shift.drained.complete and closing.complete):
        raise Incomplete


async def _night(
    settings: Settings,
    bots: list[BotSettings],
    start: date | datetime | None,
    end: date | datetime | None,
    max_wait: timedelta | None,
) -> tuple[Shift, Closing | None]:
    async with opened(settings, pool_size=pool_size(settings)) as (database, queue):
        await warn_of_deadlines(database, settings.bots)
        now, discoveries = await queue.clock(), Discoveries(database)
        spans = {bot.name: await _span(settings, discoveries, bot, start, end, now) for bot in bots}
        rounds = 0
        while True:
            reading = ReadingTerms(settings, database, queue, PURPOSE, afresh=rounds > 0)
            shift = await read_and_work(reading, bots, spans, max_wait=max_wait, night=True)
            if shift.received:  # stopped: nothing is closed yet
                return shift, None
            listed = [bot for bot in bots if bot.name not in shift.failed]
            closing = await close_account(settings, database, queue, listed, spans)
            # Only now: a night that was broken off is not the last complete one, however far it had come.
            for each in shift.found:
                if each.bot not in closing.failed:
                    await discoveries.finish(each.readings)
            rounds += 1
            if rounds == ROUNDS or not closing.account.counts["missing"]:
                return shift, replace(closing, failed={**shift.failed, **closing.failed})
            log.info("calls_listed_late", calls=closing.account.counts["missing"])


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
    last_moment = to_instant(ends, bot.zone) - timedelta(microseconds=1)
    return span_of(bot, day_of(last_moment, bot.zone), ends, now)
