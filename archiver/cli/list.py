"""`archiver list`."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime

import click

from archiver.cli.compose import run_async, settings_of
from archiver.cli.found import choice_options, chosen_of, show_found


@click.command(short_help="List sessions by state, bot, reason and date of the call.")
@choice_options
@click.option(
    "--open", "acceptance", flag_value="open", help="Failed, or found wrong (by an account or verify), and nobody accepted it."
)
@click.option("--accepted", "acceptance", flag_value="accepted", help="Failed or found wrong, and somebody accepted it.")
@click.pass_context
def command(
    ctx: click.Context,
    states: tuple[str, ...],
    bots: tuple[str, ...],
    kinds: tuple[str, ...],
    reasons: tuple[str, ...],
    start: date | datetime | None,
    end: date | datetime | None,
    acceptance: str | None,
    limit: int | None,
    form: str,
) -> None:
    """List sessions, the latest calls first. A table shows the first fifty; CSV and JSON lines have all that is known of each.

    The date is that of the call where it is known, else the day on which the session was enqueued. `archiver find` searches by
    caller and agent; `archiver show` tells all of one session.

    Exit codes: 0, were there any or none; 1 fatal; 2 usage or configuration.
    """
    settings = settings_of(ctx)
    chosen = chosen_of(settings, states=states, bots=bots, kinds=kinds, reasons=reasons, start=start, end=end)
    match acceptance:
        case "open" | "accepted":
            chosen = replace(chosen, acceptance=acceptance)
        case _:
            pass
    run_async(show_found(settings, chosen, None, limit=limit, form=form))
