"""`archiver workers`."""

from __future__ import annotations

from typing import Any

import click

from archiver.account.status import list_workers
from archiver.cli.compose import opened_database, run_async, settings_of
from archiver.cli.output import console, fitting, json_option, moment, print_json, safe
from archiver.config import Settings


@click.command(short_help="Show who is at work, since when, and on what.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show every worker: its host, process and version, since when it works, until when its lease holds, how many sessions it has
    and which of them the longest; with --json each of them. A dead one is shown until another takes its sessions over.

    Exit codes: 0, are there any or none; 1 the database cannot be used; 2 configuration.
    """
    found = run_async(_workers(settings_of(ctx)))
    if as_json:
        print_json({"workers": found})
    else:
        _print(found)


async def _workers(settings: Settings) -> list[dict[str, Any]]:
    async with opened_database(settings, writes=False) as database:
        return await list_workers(database, all_sessions=True)


def _print(workers: list[dict[str, Any]]) -> None:
    out = console()
    if not workers:
        out.print("no worker is at work")
        return
    columns = ("worker", "host", "pid", "version", "since", "renewed", "lease until", "state", "holds", "the oldest")
    rows = []
    for worker in workers:
        times = (worker["started_at"], worker["renewed_at"], worker["lease_until"])
        oldest = worker["sessions"][0] if worker["sessions"] else None
        rows.append((
            str(worker["id"]),
            *("" if worker[key] is None else safe(worker[key]) for key in ("host", "pid", "version")),
            *("" if time is None else moment(time) for time in times),
            "alive" if worker["alive"] else "DEAD, its sessions are about to be taken over",
            str(worker["claimed"]),
            "" if oldest is None else f"{safe(oldest['session_id'])} ({safe(oldest['bot'])}, {safe(oldest['kind'])}) since "
                                      f"{moment(oldest['since'])}",
        ))  # fmt: skip
    shown = fitting(out.width, columns, rows, right=[0, 2, 8])
    out.print(shown, soft_wrap=isinstance(shown, str))
