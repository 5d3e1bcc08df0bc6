"""`archiver accept`."""

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
from archiver.queue.operators import Choice, Operators


@click.command(short_help="Answer for what failed or was found wrong: it stays as it is.")
@click.argument("ids", nargs=-1, type=TEXT, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every open session that the options choose.")
@click.option("--reason", type=TEXT, required=True, help="Why it may stay so; kept with your name, for whoever asks.")
@click.option("--bot", type=TEXT, help="Only this bot's.")
@click.option("--kind", type=TEXT, help="Only this kind.")
@click.option("--error", "errors", type=TEXT, multiple=True,
              help="Only those that failed, or were found wrong, for this reason; may be repeated.")  # fmt: skip
@call_time_options
@time_options("that ended")
@click.option("--dry-run", is_flag=True, help="Only say how many sessions would change.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    ids: tuple[str, ...],
    everything: bool,
    reason: str,
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
    """Answer for sessions that cannot be mended: failed ones, archived ones that `nightly` or `reconcile` found to differ
    from their call or the store, and those of which `verify` found files wrong. `archiver list --open` names them.

    They stay what they are, and every account still counts them as failed or mismatched, and as accepted besides; they make
    no account incomplete any more, and `verify` ends with 0. What is found wrong with one only later is open again.
    `archiver retry` undoes it.

    Exit codes: 0 done, were there any or none; 1 fatal; 2 usage or configuration.
    """
    check_times(since, until)
    settings = settings_of(ctx)
    if not reason.strip():
        raise click.BadParameter("must say why", param_hint="--reason")
    choice = Choice(ids=read_session_ids(ids, everything), bot=bot, kind=kind, errors=errors, since=since, until=until,
                    called=call_times(settings, start, end))  # fmt: skip
    accepted = run_async(_accept(settings, choice, reason, dry_run, quiet=as_json))
    check_bot_was_meant(settings, bot, len(accepted))
    if as_json:
        counts = {"accepted": 0, "would_accept": len(accepted)} if dry_run else {"accepted": len(accepted)}
        print_json({**counts, "session_ids": accepted})
    else:
        click.echo(f"{len(accepted)} " + ("would be accepted; nothing was changed" if dry_run else "accepted"))
        for missed in sorted(set(ids) - set(accepted)):
            why = "unknown, accepted already, neither failed nor found wrong by an account or verify, or not chosen"
            click.echo(f"not accepted: {printable(missed)} ({why})", err=True)


async def _accept(settings: Settings, choice: Choice, reason: str, dry_run: bool, *, quiet: bool) -> list[str]:
    async with opened_database(settings) as database:
        operators = Operators(database)
        return await changed_in_batches(
            lambda on_batch: operators.accept(**choice, reason=reason, actor=actor(), dry_run=dry_run, on_batch=on_batch),
            doing="would be accepted" if dry_run else "accepted",
            done="would be accepted" if dry_run else "accepted",
            quiet=quiet,
        )
