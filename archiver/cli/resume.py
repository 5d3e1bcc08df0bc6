"""`archiver resume`."""

from __future__ import annotations

import click

from archiver.cli.compose import TEXT, actor, bot_or_all, opened_database, run_async, settings_of
from archiver.config import Settings
from archiver.queue.operators import Operators


@click.command(short_help="Go on with paused or held bots.")
@click.option("--bot", type=TEXT, help="Only this bot.")
@click.option("--all", "everything", is_flag=True, help="Every bot, whatever it is paused or held for.")
@click.pass_context
def command(ctx: click.Context, bot: str | None, everything: bool) -> None:
    """Go on with the bot that --bot names, or with --all: end its pause, and its holds for rejected credentials or refused media
    hosts.

    Exit codes: 0; 1 fatal; 2 usage or configuration.
    """
    settings = settings_of(ctx)
    resumed = run_async(_resume(settings, bot_or_all(settings, bot, everything, command="resume")))
    for name, holds in resumed.items():
        click.echo(f"resumed: {name}" + (f", {holds} hold(s) released" if holds else ""))
    if not resumed:
        click.echo("no bot is known yet: nothing was paused or held")


async def _resume(settings: Settings, bot: str | None) -> dict[str, int]:
    async with opened_database(settings) as database:
        return await Operators(database).resume([bot] if bot else None, actor=actor())
