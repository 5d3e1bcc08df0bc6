"""`archiver cancel`."""

from __future__ import annotations

import click

from archiver.cli.compose import TEXT, actor, check_bot_was_meant, given_ids, opened, run_async, settings_of
from archiver.cli.output import json_option, print_json, printable
from archiver.config import Settings


@click.command(short_help="Take sessions out of the queue.")
@click.argument("ids", nargs=-1, type=TEXT, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every waiting or running session that the options choose.")
@click.option("--reason", type=TEXT, required=True, help="Why; kept in the session's history with your name.")
@click.option("--bot", type=TEXT, help="Only this bot's.")
@click.option("--kind", type=TEXT, help="Only this kind.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, ids: tuple[str, ...], everything: bool, reason: str, bot: str | None, kind: str | None, as_json: bool
) -> None:
    """Take waiting or running sessions out of the queue. A worker that has one of them can record nothing of it any more, and
    stops within seconds.

    Exit codes: 0 done, were there any or none; 1 fatal; 2 usage or configuration.
    """
    settings = settings_of(ctx)
    if not reason.strip():
        raise click.BadParameter("is empty", param_hint="--reason")
    cancelled = run_async(_cancel(settings, given_ids(ids, everything), bot, kind, reason))
    check_bot_was_meant(settings, bot, len(cancelled))
    if as_json:
        print_json({"cancelled": len(cancelled), "session_ids": cancelled})
    else:
        click.echo(f"{len(cancelled)} cancelled")
        for missed in sorted(set(ids) - set(cancelled)):
            click.echo(f"not cancelled: {printable(missed)} (unknown, or ended already)", err=True)


async def _cancel(settings: Settings, ids: list[str] | None, bot: str | None, kind: str | None, reason: str) -> list[str]:
    async with opened(settings) as (_, queue):
        return await queue.cancel(ids=ids, bot=bot, kind=kind, reason=reason, actor=actor())
