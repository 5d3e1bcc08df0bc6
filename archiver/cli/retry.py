"""`archiver retry`."""

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
    run_async,
    settings_of,
    time_options,
)
from archiver.cli.output import json_option, print_json, printable
from archiver.cli.progress import changed_in_batches
from archiver.config import Settings
from archiver.errors import UsageError
from archiver.queue.operators import Choice, Operators
from archiver.session import State

BY_DEFAULT = (State.FAILED, State.CANCELLED)
CHOICES = (*BY_DEFAULT, State.ARCHIVED)

HINT = "name session IDs, or choose by --error, --bot, --kind, --from and --to, --since and --until, or take all with --all"


@click.command(short_help="Bring failed or cancelled sessions back; look for new files of archived ones.")
@click.argument("ids", nargs=-1, type=TEXT, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every session that the options choose, be it every failed one.")
@click.option("--state", "states", type=click.Choice([state.value for state in CHOICES]), multiple=True,
              help="Which to bring back; may be repeated. Default: failed; of those named by ID, cancelled too.")  # fmt: skip
@click.option("--bot", type=TEXT, help="Only this bot's.")
@click.option("--kind", type=TEXT, help="Only this kind.")
@click.option("--reason", "--error", "errors", type=TEXT, multiple=True,
              help="Only those that ended for this reason, such as media_host_refused; may be repeated.")  # fmt: skip
@call_time_options
@time_options("that ended")
@click.option("--dry-run", is_flag=True, help="Only say how many sessions would change.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    ids: tuple[str, ...],
    everything: bool,
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
    """Bring ended sessions back to the queue, with fresh counters. What is stored stays, and is not fetched again.

    Without IDs every failed session that the options choose is brought back; where they choose nothing but a state, --all says
    that every one is meant. One that is unavailable stays so: the platform has said that there is no recording, and is asked
    again as retry.recheck_unavailable says.

    With --state archived the platform is asked for archived sessions again, and files that are new to the archive are taken.
    Nothing that is stored is touched; where the platform no longer has a session, it is archived as before.

    Exit codes: 0 done, were there any or none; 1 fatal; 2 usage or configuration.
    """
    check_times(since, until)
    if ids and everything:
        raise UsageError("session IDs and --all exclude each other")
    if not (ids or everything or bot or kind or errors) and since is until is start is end is None:
        raise UsageError("no session chosen", hint=HINT)
    settings = settings_of(ctx)
    chosen = [State(state) for state in states] or (list(BY_DEFAULT) if ids else [State.FAILED])
    choice = Choice(ids=list(ids) or None, bot=bot, kind=kind, states=chosen, errors=errors, since=since, until=until,
                    called=call_times(settings, start, end))  # fmt: skip
    revived = run_async(_retry(settings, choice, dry_run, quiet=as_json))
    check_bot_was_meant(settings, bot, len(revived))
    if as_json:
        counts = {"retried": 0, "would_retry": len(revived)} if dry_run else {"retried": len(revived)}
        print_json({**counts, "session_ids": revived})
    else:
        click.echo(f"{len(revived)} " + ("would be brought back; nothing was changed" if dry_run else "brought back"))
        for missed in sorted(set(ids) - set(revived)):
            click.echo(f"not brought back: {printable(missed)} (unknown, not ended, never valid, or not chosen)", err=True)


async def _retry(settings: Settings, choice: Choice, dry_run: bool, *, quiet: bool) -> list[str]:
    async with opened_database(settings) as database:
        operators = Operators(database)
        return await changed_in_batches(
            lambda on_batch: operators.retry(**choice, actor=actor(), dry_run=dry_run, on_batch=on_batch),
            doing="would be brought back" if dry_run else "brought back",
            done="would be brought back" if dry_run else "brought back",
            quiet=quiet,
        )
