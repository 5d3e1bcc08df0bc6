"""`archiver cancel`."""

from __future__ import annotations

from datetime import date, datetime

import click

from archiver.cli.call_times import call_time_options, call_times
from archiver.cli.compose import (
    TEXT,
    actor,
    check_bot_was_meant,
    check_times,
    opened_database,
    read_session_ids,
    run_async,
    settings_of,
    time_options,
)
from archiver.cli.output import json_option, print_json, printable
from archiver.cli.progress import changed_in_batches
from archiver.config import Settings
from archiver.queue.operators import WAITING, Choice, Operators
from archiver.session import State


@click.command(short_help="Take sessions out of the queue.")
@click.argument("ids", nargs=-1, type=TEXT, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every waiting or running session that the options choose.")
@click.option("--reason", type=TEXT, required=True, help="Why; kept in the session's history with your name.")
@click.option("--state", "states", type=click.Choice([state.value for state in WAITING]), multiple=True,
              help="Only those that wait (pending) or run (claimed). Default: both.")  # fmt: skip
@click.option("--bot", type=TEXT, help="Only this bot's.")
@click.option("--kind", type=TEXT, help="Only this kind.")
@click.option("--error", "errors", type=TEXT, multiple=True,
              help="Only those last put back for this reason, such as api_unreachable; may be repeated.")  # fmt: skip
@call_time_options
@time_options("that were enqueued")
@click.option("--dry-run", is_flag=True, help="Only say how many sessions would change.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    ids: tuple[str, ...],
    everything: bool,
    reason: str,
    states: tuple[str, ...],
    bot: str | None,
    kind: str | None,
    errors: tuple[str, ...],
    start: date | datetime | None,
    end: date | datetime | None,
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take waiting or running sessions out of the queue. A worker that has one of them can record nothing of it any more, and
    stops within seconds.

    Exit codes: 0 done, were there any or none; 1 fatal; 2 usage or configuration.
    """
    check_times(since, until)
    settings = settings_of(ctx)
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    choice = Choice(ids=read_session_ids(ids, everything), bot=bot, kind=kind, states=[State(state) for state in states],
                    errors=errors, since=since, until=until, called=call_times(settings, start, end))  # fmt: skip
    cancelled = run_async(_cancel(settings, choice, reason, dry_run, quiet=as_json))
    check_bot_was_meant(settings, bot, len(cancelled))
    if as_json:
        counts = {"cancelled": 0, "would_cancel": len(cancelled)} if dry_run else {"cancelled": len(cancelled)}
        print_json({**counts, "session_ids": cancelled})
    else:
        click.echo(f"{len(cancelled)} " + ("would be cancelled; nothing was changed" if dry_run else "cancelled"))
        for missed in sorted(set(ids) - set(cancelled)):
            click.echo(f"not cancelled: {printable(missed)} (unknown, ended already, or not chosen)", err=True)


async def _cancel(settings: Settings, choice: Choice, reason: str, dry_run: bool, *, quiet: bool) -> list[str]:
    async with opened_database(settings) as database:
        operators = Operators(database)
        return await changed_in_batches(
            lambda on_batch: operators.cancel(**choice, reason=reason, actor=actor(), dry_run=dry_run, on_batch=on_batch),
            doing="would be cancelled" if dry_run else "cancelled",
            done="would be cancelled" if dry_run else "cancelled",
            quiet=quiet,
        )
