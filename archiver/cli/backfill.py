"""`archiver backfill`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta

import click
from rich.progress import Progress

from archiver.account.reading import ReadingTerms, Shift, span_of
from archiver.account.status import status_document
from archiver.cli.app import Incomplete
from archiver.cli.compose import DURATION, actor, opened, run_async, settings_of
from archiver.cli.listing import (
    bots_option,
    chosen_bots,
    developers_line,
    print_problems,
    read_and_work,
    span_options,
    warn_of_deadlines,
)
from archiver.cli.status import pause_after
from archiver.cli.worker import pool_size, tell_of_drain
from archiver.config import BotSettings, Settings
from archiver.errors import DatabaseError
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.discoveries import Discoveries

log = logger(__name__)

PURPOSE = "backfill"

LOOK = timedelta(seconds=10)
"""How often the bar looks at the queue, at most."""

TELL_SECONDS = 60.0
"""How often the log is told."""


@click.command(short_help="Discover and archive the calls of a time long past, behind everything else.")
@span_options("Only calls")
@bots_option
@click.option("--oldest-first", "order", flag_value="oldest", help="From --from on: the default with source_retention.")
@click.option("--newest-first", "order", flag_value="newest", help="From --to back: the default otherwise.")
@click.option("--afresh", is_flag=True, help="Read the listings anew also where that was broken off.")
@click.option(
    "--max-wait", type=DURATION, help="Wait at most so long for sessions that fall due later. Default: retry.not_ready_give_up."
)
@click.pass_context
def command(
    ctx: click.Context,
    start: date | datetime,
    end: date | datetime | None,
    names: tuple[str, ...],
    order: str | None,
    afresh: bool,
    max_wait: timedelta | None,
) -> None:
    """Discover the calls of a time and archive them, at low priority: calls that come in meanwhile go before them. Where the
    platform deletes recordings after a time (source_retention), the oldest come first, and what will be too late is told.

    A stretch of time is in the queue once it has been read, and is archived while the next one is read. Stop it at will: called
    with the same options it goes on where it stopped. Other workers may help; `reconcile` says what became of each call.

    Exit codes: 0 all is done; 1 fatal; 2 usage or configuration; 3 sessions failed meanwhile or had to be left pending, a bot was
    refused, or a time could not be read whole; 130, 143 stopped by a signal.
    """
    settings = settings_of(ctx)
    bots = chosen_bots(settings, names)
    newest_first = None if order is None else order == "newest"
    shift = run_async(_backfill(settings, bots, start, end, newest_first, afresh, max_wait))
    tell_of_drain(shift.drained)
    if shift.received:
        click.echo("stopped; the same command goes on from here", err=True)
        raise click.exceptions.Exit(128 + shift.received[0])
    for each in shift.found:
        click.echo(f"{each.bot}: {each.calls:,} calls, {each.added:,} new ({each.source})")
        if each.developer_calls:
            click.echo(developers_line(each.developer_calls))
        print_problems(each.problems)
    click.echo("next: `archiver reconcile` with the same times states what became of every call", err=True)
    if shift.failed or not shift.drained.complete or not all(each.whole for each in shift.found):
        raise Incomplete


async def _backfill(
    settings: Settings,
    bots: Sequence[BotSettings],
    start: date | datetime,
    end: date | datetime | None,
    newest_first: bool | None,
    afresh: bool,
    max_wait: timedelta | None,
) -> Shift:
    async with opened(settings, pool_size=pool_size(settings)) as (database, queue):
        await warn_of_deadlines(database, settings.bots)
        now = await queue.clock()
        spans = {bot.name: span_of(bot, start, end, now) for bot in bots}
        # A reading ends with the archiving of its calls: what is broken off after the last page must not read them all again.
        reading = ReadingTerms(settings, database, queue, PURPOSE, actor(), "low", newest_first, afresh, until_now=end is None)
        shift = await read_and_work(
            reading, bots, spans, max_wait=max_wait, watch=lambda progress: _watch(database, settings.bots, progress)
        )
        for each in shift.found:
            await Discoveries(database).finish(each.readings)
        return shift


async def _watch(database: Database, bots: Sequence[BotSettings], progress: Progress) -> None:
    """Show how far the queue has come, and tell the log, where it is the only one to tell; and once of each bot of which
    there is more than can be archived before the platform deletes it.
    """
    warned: set[str] = set()
    bar = progress.add_task("archiving", total=None, told="")
    told_at = time.monotonic()
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
            left = sessions["pending"] + sessions["claimed"]
            progress.update(bar, completed=sum(sessions.values()) - left, total=sum(sessions.values()), told=f"{left:,} left")
            if progress.disable and began - told_at >= TELL_SECONDS:
                log.info("backfill_progressed", **sessions, time_left_seconds=document["time_left_seconds"])
                told_at = began
        await asyncio.sleep(pause_after(time.monotonic() - began, LOOK))
