"""`archiver resume`."""

from __future__ import annotations

import click

from archiver.cli.compose import TEXT, actor, bot_option, opened, run_async, settings_of
from archiver.config import Settings
from archiver.queue.operators import Operators


@click.command(short_help="Go on with paused or held bots.")
@click.option("--bot", type=TEXT, help="Only this bot.")
@click.pass_context
def command(ctx: click.Context, bot: str | None) -> None:
    """Go on with paused bots, and with those held for rejected credentials or refused media hosts.

    Exit codes: 0; 1 fatal; 2 configuration.
    """
    settings = settings_of(ctx)
    resumed = run_async(_resume(settings, bot_option(settings, bot)))
    for name, holds in resumed.items():
        click.echo(f"resumed: {name}" + (f", {holds} hold(s) released" if holds else ""))
    if not resumed:
        click.echo("no bot is known yet: nothing was paused or held")


async def _resume(settings: Settings, bot: str | None) -> dict[str, int]:
    async with opened(settings) as (database, _):
        return await Operators(database).resume([bot] if bot else None, actor=actor())
