"""`archiver reconcile`."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime

import click

from archiver.account.closing import Closing
from archiver.account.reading import span_of
from archiver.cli.accounts import close, format_option, keep, show
from archiver.cli.app import Incomplete
from archiver.cli.compose import opened, run_async, settings_of
from archiver.cli.listing import bots_option, select_bots, span_options
from archiver.config import BotSettings, Settings
from archiver.queue.ledger import Ledger


@click.command(short_help="State for every call that the platform lists what became of it.")
@span_options("Only calls")
@bots_option
@format_option
@click.pass_context
def command(ctx: click.Context, start: date | datetime, end: date | datetime | None, names: tuple[str, ...], form: str) -> None:
    """State for every call that the platform lists what became of it: archived, unavailable, failed, pending, cancelled, or
    missing, which is never enqueued. Archived sessions that it no longer lists are named, and those that do not match their call,
    the platform's last answer, or the store.

    Asks the platform, the database and the store; changes no session. The account is kept: `archiver nights`.

    Exit codes: 0 every call is accounted for; 1 fatal; 2 usage or configuration; 3 some failed, are pending, missing or
    mismatched and nobody accepted them, or could not be listed.
    """
    settings = settings_of(ctx)
    closing = run_async(_close(settings, select_bots(settings, names), start, end))
    show(closing, form)
    if not closing.complete:
        raise Incomplete


async def _close(settings: Settings, bots: list[BotSettings], start: date | datetime, end: date | datetime | None) -> Closing:
    async with opened(settings) as (database, queue):
        now = await queue.clock()
        spans = {bot.name: span_of(bot, start, end, now) for bot in bots}
        closing = await close(settings, database, bots, spans, command="reconcile")
        await keep(closing, database)
        return replace(closing, evidence=await Ledger(database).standing())
