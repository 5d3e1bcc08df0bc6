"""`archiver find`."""

from __future__ import annotations

from datetime import date, datetime

import click

from archiver.cli.compose import TEXT, run_async, settings_of
from archiver.cli.found import choice_options, chosen_of, show_found
from archiver.errors import UsageError
from archiver.queue.search import People


@click.command(short_help="Find calls by caller, callee, agent or user.")
@click.option("--caller", type=TEXT, metavar="NUMBER", help="Who called: at least the last seven digits of the number.")
@click.option("--callee", type=TEXT, metavar="NUMBER", help="Who was called: at least the last seven digits of the number.")
@click.option(
    "--agent", type=TEXT, metavar="NAME", help="Who spoke for the contact centre: words of a name, an address or an ID."
)
@click.option("--user", "user_id", type=TEXT, metavar="ID", help="The session's user_id, exactly.")
@choice_options
@click.pass_context
def command(
    ctx: click.Context,
    caller: str | None,
    callee: str | None,
    agent: str | None,
    user_id: str | None,
    states: tuple[str, ...],
    bots: tuple[str, ...],
    kinds: tuple[str, ...],
    reasons: tuple[str, ...],
    start: date | datetime | None,
    end: date | datetime | None,
    limit: int | None,
    form: str,
) -> None:
    """Find calls by who spoke, the latest first, as far as listings told it (`discovery.keep` says what of that is kept).

    A number is found however it is written: "+49 30 1234567", "0049301234567" and "030-1234567" are one. Several options have
    to hold together.

    Exit codes: 0, were there any or none; 1 fatal; 2 usage or configuration.
    """
    people = People(caller, callee, agent, user_id)
    if people.nobody:
        raise UsageError(
            "nobody to find", hint="name --caller, --callee, --agent or --user; `archiver list` goes by state and date"
        )
    settings = settings_of(ctx)
    lacking = [name for name in ("caller", "callee", "agent") if getattr(people, name) and name not in settings.discovery.keep]
    if lacking:
        click.echo(f"warning: discovery.keep does not keep {', '.join(lacking)}: calls found since then have none", err=True)
    chosen = chosen_of(settings, states=states, bots=bots, kinds=kinds, reasons=reasons, start=start, end=end)
    run_async(show_found(settings, chosen, people, limit=limit, form=form))
