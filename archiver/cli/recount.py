"""`archiver recount`."""

from __future__ import annotations

from dataclasses import asdict

import click

from archiver.cli.app import Incomplete
from archiver.cli.compose import opened_database, run_async, settings_of
from archiver.cli.output import json_option, print_json, print_rows
from archiver.config import Settings
from archiver.queue.counts import CountDifference, Counts

SHOWN = 50


@click.command(short_help="Count every session again, and mend the counts that differ.")
@click.option("--check", is_flag=True, help="Only say what differs.")
@json_option
@click.pass_context
def command(ctx: click.Context, check: bool, as_json: bool) -> None:
    """Count every session and every recording again, compare that with the counts that `status` shows, and correct these. They
    count themselves with every change: a difference means that somebody changed rows with triggers switched off, or truncated.
    Workers go on meanwhile.

    Exit codes: 0 nothing differs, or it was mended; 1 fatal; 2 configuration; 3 with --check: counts differ.
    """
    differences = run_async(_recount(settings_of(ctx), mend=not check))
    if as_json:
        print_json({"mended": not check, "differences": [asdict(each) for each in differences]})
    else:
        _print(differences, mended=not check)
    if differences and check:
        raise Incomplete


async def _recount(settings: Settings, *, mend: bool) -> list[CountDifference]:
    async with opened_database(settings, writes=mend) as database:
        if not mend:
            return await Counts(database).recount(mend=False)

        def wait() -> None:
            click.echo("another recount is under way: waiting for it", err=True)

        async with database.alone("recount", on_wait=wait):
            return await Counts(database).recount(mend=True)


def _print(differences: list[CountDifference], *, mended: bool) -> None:
    if not differences:
        click.echo("every count is exact")
        return
    rows = [
        [each.bot, f"{each.day}", each.state, each.reason, f"{each.sessions:+,}", f"{each.files:+,}"]
        for each in differences[:SHOWN]
    ]
    print_rows(("bot", "day", "state", "reason", "sessions", "files"), rows, right=[4, 5], head=3)
    told = "counts differed and were corrected" if mended else "counts differ; `archiver recount` corrects them"
    click.echo(f"{len(differences):,} {told}")
