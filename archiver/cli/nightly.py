"""`archiver nightly`."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import click

from archiver.account.closing import Closing
from archiver.account.nightly import PURPOSE, complete_night, night_span
from archiver.account.reading import ReadingTerms, Shift
from archiver.cli.accounts import close, format_option, keep, show
from archiver.cli.app import Incomplete
from archiver.cli.call_times import BOUND
from archiver.cli.compose import DURATION, actor, opened, run_async, settings_of
from archiver.cli.listing import (
    bots_option,
    select_bots,
    warn_of_deadlines,
    work_with_listings,
)
from archiver.cli.monitor import monitored
from archiver.cli.notifying import tell_receiver
from archiver.cli.processes import Command, Processes
from archiver.cli.sealing import composed_sealer, sealed_all
from archiver.cli.shares import fitted, process_count, processes_option
from archiver.cli.worker import log_drain
from archiver.config import BotSettings
from archiver.queue.discoveries import Discoveries
from archiver.queue.findings import Findings
from archiver.queue.ledger import Ledger
from archiver.runtime.open_files import pool_size


@click.command(short_help="Discover, archive and account for all calls since the last complete night.")
@click.option("--from", "start", type=BOUND, help="Begin here instead of where the last night ended, less the overlap.")
@click.option("--to", "end", type=BOUND, help="End here instead of at the last midnight in the bot's time zone.")
@bots_option
@click.option(
    "--max-wait", type=DURATION, help="Wait at most so long for sessions that fall due later. Default: retry.not_ready_give_up."
)
@processes_option
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    start: date | datetime | None,
    end: date | datetime | None,
    names: tuple[str, ...],
    max_wait: timedelta | None,
    processes: int,
    form: str,
) -> None:
    """Discover the calls since the last complete night, archive what is in the queue, and account for those calls: for cron or a
    Kubernetes CronJob.

    A night ends at midnight in the bot's time zone. It begins where the last one ended, and discovery.overlap before, since calls
    are listed late, too; the first one begins a day before its end. What is listed only while it archives is archived as well.
    Nothing of low priority is waited for, such as a backfill. Two at once don't collide: the second waits while the first reads
    the listings, then both archive. What is broken off goes on the next time.

    The account is kept (`archiver nights`). It names what earlier nights left open, too, until that is archived or accepted.

    Exit codes: 0 every call is accounted for; 1 fatal; 2 usage or configuration; 3 some failed, are pending, missing or
    mismatched and nobody accepted them, or a bot was refused; 129, 130, 143 stopped by a signal.
    """
    settings = settings_of(ctx)
    others = Processes(settings, process_count(settings, processes), Command.of(ctx))
    shift, closing = run_async(_night(others, select_bots(settings, names), start, end, max_wait))
    log_drain(shift.drained)
    if closing is None:
        raise click.exceptions.Exit(128 + shift.received[0])
    show(closing, form)
    whole = all(each.whole for each in shift.found)
    if not whole:
        click.echo("some calls could not be listed: the log names the times", err=True)
    if shift.drained.unsealed:
        click.echo("what happened could not be sealed: `archiver seal` says why", err=True)
    if not replace(shift.drained, unsealed=False).complete:
        click.echo("sessions failed meanwhile, or had to be left pending: `archiver status` says why", err=True)
    if not (whole and shift.drained.complete and closing.nothing_open):
        raise Incomplete


async def _night(
    others: Processes,
    bots: list[BotSettings],
    start: date | datetime | None,
    end: date | datetime | None,
    max_wait: timedelta | None,
) -> tuple[Shift, Closing | None]:
    settings = fitted(others.settings)
    async with (
        others.prepared(),
        monitored(settings, others) as monitor,
        opened(settings, pool_size=pool_size(settings.worker.concurrency)) as (database, queue),
        monitor.reading(database),
    ):
        await warn_of_deadlines(database, settings.bots)
        now, discoveries = await queue.clock(), Discoveries(database)
        spans = {bot.name: await night_span(settings, discoveries, bot, start, end, now) for bot in bots}

        async def work(afresh: bool) -> Shift:
            reading = ReadingTerms(settings, database, queue, PURPOSE, actor(), afresh=afresh)
            return await work_with_listings(reading, bots, spans, others=others, monitor=monitor, max_wait=max_wait, night=True)

        async def account(listed: list[BotSettings]) -> Closing:
            return await close(settings, database, listed, spans, command="nightly")

        shift, closing = await complete_night(database, bots, work=work, account=account)
        if closing is not None:
            await keep(closing, database)
            async with composed_sealer(settings, database) as sealer:
                if sealer is not None:
                    sealed = await sealed_all(sealer)
                    shift = replace(shift, drained=replace(shift.drained, unsealed=not sealed))
            await tell_receiver(settings, database)
            closing = replace(closing, evidence=await Ledger(database).standing(), damaged=await Findings(database).damaged())
        return shift, closing
