"""`archiver workers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from archiver.cli.compose import opened, run_async, settings_of
from archiver.cli.output import console, json_option, moment, print_json, safe, table
from archiver.config import Settings
from archiver.postgres.database import Database
from archiver.queue.reports import Reports, WorkerReport


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
    async with opened(settings) as (database, _):
        return await workers_of(database, in_full=True)


async def workers_of(database: Database, *, in_full: bool) -> list[dict[str, Any]]:
    """Every worker, and what it has on its way; `in_full` with all the sessions it has, else with the one it has had longest."""
    reports = await Reports(database).list_workers(all_sessions=in_full)
    return [{**each.worker, "progress": _progress(each), "transfers": _transfers(each.progress)} for each in reports]


def _progress(report: WorkerReport) -> dict[str, Any]:
    """All of a worker's large transfers together, when it last wrote of them; `transfers` has no more than a hundred of them."""
    said = report.progress
    return {
        "at": report.progress_at and report.progress_at.isoformat(),
        "running": said.get("running", 0),
        "bytes": said.get("bytes", 0),
        "total": said.get("total", 0),
        "bytes_per_second": said.get("bytes_per_second", 0),
        "received_bytes": said.get("received_bytes", 0),
    }


def _transfers(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One by one, the longest first, with how far each is and how long it will take, where that can be known."""
    found = []
    for one in said.get("transfers", ()):
        received, total, rate = one["bytes"], one["total"], one["bytes_per_second"]
        percent = None if not total else round(min(100.0, 100 * received / total), 1)
        left = None if total is None or not rate else round(max(0, total - received) / rate)
        found.append({**one, "percent": percent, "time_left_seconds": left})
    return found


def _print(workers: list[dict[str, Any]]) -> None:
    out = console()
    if not workers:
        out.print("no worker is at work")
        return
    shown = table("worker", "host", "pid", "version", "since (UTC)", "renewed", "lease until", "state", "holds", "the oldest",
                  right=[0, 2, 8])  # fmt: skip
    for worker in workers:
        times = (worker["started_at"], worker["renewed_at"], worker["lease_until"])
        oldest = worker["sessions"][0] if worker["sessions"] else None
        shown.add_row(
            str(worker["id"]),
            *("" if worker[key] is None else safe(worker[key]) for key in ("host", "pid", "version")),
            *("" if time is None else moment(time) for time in times),
            "alive" if worker["alive"] else "DEAD, its sessions are about to be taken over",
            str(worker["claimed"]),
            "" if oldest is None else f"{safe(oldest['session_id'])} ({safe(oldest['bot'])}, {safe(oldest['kind'])}) since "
                                      f"{moment(oldest['since'])}",
        )  # fmt: skip
    out.print(shown)
