"""`archiver discover`."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import click

from archiver.account.discovery import Discovered
from archiver.account.estimate import estimate
from archiver.account.reading import ReadingTerms, each_bot, span_of
from archiver.cli.app import Incomplete
from archiver.cli.compose import actor, opened, run_async, settings_of
from archiver.cli.listing import (
    ListingProgress,
    bars,
    bots_option,
    developers_line,
    opened_listings,
    print_problems,
    print_refusal,
    select_bots,
    span_options,
)
from archiver.cli.output import console, json_option, lasting, print_json, safe, size, table
from archiver.config import BotSettings, Settings
from archiver.queue.discoveries import Discoveries


@click.command(short_help="Learn from the platform which calls took place, and add them to the queue.")
@span_options("Only calls")
@bots_option
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
@click.option("--afresh", is_flag=True, help="Start over, also where a reading of the same time was interrupted.")
@click.option(
    "--dry-run", is_flag=True, help="Say how many calls there are, on which days, and what they would take; add nothing."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    start: date | datetime,
    end: date | datetime | None,
    names: tuple[str, ...],
    priority: str,
    afresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Learn from the platform which voice calls took place, and add those to the queue that it does not know.

    Interrupted, it goes on where it stopped when it is called with the same options. A call that is known already only learns
    what the platform says of it.

    Exit codes: 0 all was read; 1 fatal; 2 usage or configuration; 3 a bot was refused, or a time could not be read whole.
    """
    settings = settings_of(ctx)
    bots = select_bots(settings, names)
    if dry_run:
        document = run_async(_estimate(settings, bots, start, end))
    else:
        document = run_async(_discover(settings, bots, start, end, priority, afresh, quiet=as_json))
    if as_json:
        print_json(document)
    elif dry_run:
        _print_estimate(document)
    else:
        for found in document["bots"]:
            went_on = ", going on where it was broken off" if found["resumed"] else ""
            click.echo(f"{found['bot']}: {found['calls']:,} calls, {found['new']:,} new ({found['source']}{went_on})")
            for channel, count in found["other_channels"].items():
                console().print(f"  left out, no voice channel: {count:,} of {safe(channel)}")
            if found["developer_calls"]:
                click.echo(developers_line(found["developer_calls"]))
    for found in document["bots"]:
        print_problems(found["problems"])
    if document["failed"] or any(not found["whole"] for found in document["bots"]):
        raise Incomplete


async def _discover(
    settings: Settings,
    bots: list[BotSettings],
    start: date | datetime,
    end: date | datetime | None,
    priority: str,
    afresh: bool,
    *,
    quiet: bool,
) -> dict[str, Any]:
    async with opened(settings) as (database, queue), opened_listings(settings, database) as listings:
        now = await queue.clock()
        spans = {bot.name: span_of(bot, start, end, now) for bot in bots}
        await queue.record_bots([bot.name for bot in settings.bots], complete=False)
        reading = ReadingTerms(settings, database, queue, "discover", actor(), priority, afresh=afresh, until_now=end is None)
        with bars(quiet=quiet) as progress:
            shown = ListingProgress(progress)

            async def read(bot: BotSettings) -> Discovered:
                found = await reading.read(listings[bot.name], spans[bot.name], shown.show)
                await Discoveries(database).finish(found.readings)
                return found

            found, failed = await each_bot(bots, read, on_refused=print_refusal)
    return {
        "calls": sum(each.calls for each in found),
        "new": sum(each.added for each in found),
        "bots": [each.as_document() | {"whole": each.whole} for each in found],
        "failed": failed,
    }


async def _estimate(
    settings: Settings, bots: list[BotSettings], start: date | datetime, end: date | datetime | None
) -> dict[str, Any]:
    async with opened(settings) as (database, queue), opened_listings(settings, database) as listings:
        now = await queue.clock()
        spans = {bot.name: span_of(bot, start, end, now) for bot in bots}
        return await estimate(database, settings.bots, bots, listings, spans, on_refused=print_refusal)


def _print_estimate(document: dict[str, Any]) -> None:
    out = console()
    for found in document["bots"]:
        out.print(f"{safe(found['bot'])} ({found['time_zone']})", soft_wrap=True)
        days = table("day", "calls", right=[1])
        for day, count in found["days"].items():
            days.add_row(day, f"{count:,}")
        out.print(days)
        takes = lasting(found["seconds"])
        stored = "unknown size: none is archived yet" if found["bytes"] is None else f"about {size(found['bytes'])}"
        out.print(
            f"{found['calls']:,} calls on {len(found['days']):,} days, {found['new']:,} of them new: "
            f"at least {takes} under the rate limits, {stored}; nothing was added"
        )
        if found["developer_calls"]:
            click.echo(developers_line(found["developer_calls"]))
