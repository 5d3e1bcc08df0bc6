"""`archiver backfill`."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import click
from rich.progress import Progress

from archiver.account.backfill import PURPOSE, finish_backfill, watch_backfill
from archiver.account.reading import ReadingTerms, Shift, span_of
from archiver.cli.app import Incomplete
from archiver.cli.compose import DURATION, actor, opened, run_async, settings_of
from archiver.cli.listing import (
    bots_option,
    developers_line,
    print_problems,
    select_bots,
    span_options,
    warn_of_deadlines,
    work_with_listings,
)
from archiver.cli.monitor import monitored
from archiver.cli.notifying import tell_receiver
from archiver.cli.processes import Command, Processes
from archiver.cli.shares import fitted, process_count, processes_option
from archiver.cli.worker import log_drain
from archiver.config import BotSettings
from archiver.runtime.open_files import pool_size


@click.command(short_help="Discover and archive calls of a time long past, after everything else.")
@span_options("Only calls")
@bots_option
@click.option("--oldest-first", "order", flag_value="oldest", help="From --from on: the default with source_retention.")
@click.option("--newest-first", "order", flag_value="newest", help="From --to back: the default otherwise.")
@click.option("--afresh", is_flag=True, help="Read the listings again from the start, also where that was interrupted.")
@click.option(
    "--max-wait", type=DURATION, help="Wait at most so long for sessions that fall due later. Default: retry.not_ready_give_up."
)
@processes_option
@click.pass_context
def command(
    ctx: click.Context,
    start: date | datetime,
    end: date | datetime | None,
    names: tuple[str, ...],
    order: str | None,
    afresh: bool,
    max_wait: timedelta | None,
    processes: int,
) -> None:
    """Discover the calls of a time and archive them, at low priority: calls that come in meanwhile go before them. Where the
    platform deletes recordings after a time (source_retention), the oldest come first, and a warning names what will be too late.

    A stretch of time is in the queue once it has been read, and is archived while the next one is read. Stop it at will: called
    with the same options it goes on where it stopped. Other workers may help; `reconcile` says what became of each call.

    Exit codes: 0 all is done; 1 fatal; 2 usage or configuration; 3 sessions failed meanwhile or had to be left pending, a bot was
    refused, or a time could not be read whole; 129, 130, 143 stopped by a signal.
    """
    settings = settings_of(ctx)
    bots = select_bots(settings, names)
    newest_first = None if order is None else order == "newest"
    others = Processes(settings, process_count(settings, processes), Command.of(ctx))
    shift = run_async(_backfill(others, bots, start, end, newest_first, afresh, max_wait))
    log_drain(shift.drained)
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
    others: Processes,
    bots: Sequence[BotSettings],
    start: date | datetime,
    end: date | datetime | None,
    newest_first: bool | None,
    afresh: bool,
    max_wait: timedelta | None,
) -> Shift:
    settings = fitted(others.settings)
    async with (
        others.prepared(),
        monitored(settings, others) as monitor,
        opened(settings, pool_size=pool_size(settings.worker.concurrency)) as (database, queue),
        monitor.reading(database),
    ):
        await warn_of_deadlines(database, settings.bots)
        now = await queue.clock()
        spans = {bot.name: span_of(bot, start, end, now) for bot in bots}
        reading = ReadingTerms(settings, database, queue, PURPOSE, actor(), "low", newest_first, afresh, until_now=end is None)

        def watch(progress: Progress) -> Coroutine[Any, Any, None]:
            bar = progress.add_task("archiving", total=None, told="")

            def show(done: int, total: int) -> None:
                progress.update(bar, completed=done, total=total, told=f"{total - done:,} left")

            return watch_backfill(database, settings.bots, show, to_log=progress.disable)

        shift = await work_with_listings(reading, bots, spans, others=others, monitor=monitor, max_wait=max_wait, watch=watch)
        await finish_backfill(database, shift)
        if not shift.received:
            await tell_receiver(settings, database)
        return shift
