"""`archiver retry`."""

from __future__ import annotations

import click

from archiver.cli.compose import TEXT, actor, check_bot_was_meant, opened, run_async, settings_of
from archiver.cli.output import json_option, print_json, printable
from archiver.config import Settings
from archiver.session import State

ENDED = (State.FAILED, State.CANCELLED)


@click.command(short_help="Bring failed or cancelled sessions back.")
@click.argument("ids", nargs=-1, type=TEXT, metavar="[ID]...")
@click.option("--state", "states", type=click.Choice([state.value for state in ENDED]), multiple=True,
              help="Which to bring back; may be repeated. Default: failed; for sessions named by ID, either.")  # fmt: skip
@click.option("--bot", type=TEXT, help="Only this bot's.")
@click.option("--kind", type=TEXT, help="Only this kind.")
@click.option("--reason", type=TEXT, help="Only those that ended for this reason, such as media_host_refused.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    ids: tuple[str, ...],
    states: tuple[str, ...],
    bot: str | None,
    kind: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Bring ended sessions back to the queue, with fresh counters. What is stored stays, and is not fetched again.

    Without IDs every failed session that the options choose is brought back. One that is unavailable stays so: the platform has
    said that there is no recording.

    Exit codes: 0 done, were there any or none; 1 fatal; 2 usage or configuration.
    """
    settings = settings_of(ctx)
    chosen = [State(state) for state in states] or (list(ENDED) if ids else [State.FAILED])
    revived = run_async(_retry(settings, list(ids) or None, bot, kind, chosen, reason))
    check_bot_was_meant(settings, bot, len(revived))
    if as_json:
        print_json({"retried": len(revived), "session_ids": revived})
    else:
        click.echo(f"{len(revived)} brought back")
        for missed in sorted(set(ids) - set(revived)):
            click.echo(f"not brought back: {printable(missed)} (unknown, not ended, or never valid)", err=True)


async def _retry(
    settings: Settings, ids: list[str] | None, bot: str | None, kind: str | None, states: list[State], reason: str | None
) -> list[str]:
    async with opened(settings) as (_, queue):
        return await queue.retry(ids=ids, bot=bot, kind=kind, states=states, reason=reason, actor=actor())
