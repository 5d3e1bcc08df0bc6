"""`archiver pause`."""

from __future__ import annotations

import click

from archiver.cli.compose import TEXT, actor, bot_or_all, opened, run_async, settings_of
from archiver.config import Settings
from archiver.queue.operators import Operators


@click.command(short_help="Claim nothing more of a bot, or of all.")
@click.option("--bot", type=TEXT, help="Only this bot.")
@click.option("--all", "everything", is_flag=True, help="Every bot.")
@click.pass_context
def command(ctx: click.Context, bot: str | None, everything: bool) -> None:
    """Claim nothing more of the bot that --bot names, or with --all of any, until `archiver resume`. What runs is finished.

    Exit codes: 0; 1 fatal; 2 usage or configuration.
    """
    settings = settings_of(ctx)
    names = run_async(_pause(settings, bot_or_all(settings, bot, everything, command="pause")))
    click.echo(f"paused: {', '.join(names) or 'no bot is configured'}")


async def _pause(settings: Settings, bot: str | None) -> list[str]:
    async with opened(settings) as (database, queue):
        # A bot configured since the last `migrate`, and not served yet, must not slip through.
        await queue.record_bots([known.name for known in settings.bots], complete=False)
        return await Operators(database).pause([bot] if bot else None, actor=actor())
