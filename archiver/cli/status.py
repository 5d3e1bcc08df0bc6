"""`archiver status`."""

from __future__ import annotations

from typing import Any

import click

from archiver.cli.compose import opened, run_async, settings_of
from archiver.cli.output import console, json_option, print_json, safe, size, table
from archiver.config import Settings
from archiver.queue.database import Database
from archiver.session import State


@click.command(short_help="Count sessions by state; show holds and workers.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Count sessions by bot and state, say why some ended without a recording, and show holds, pauses and workers.

    Exit codes: 0; 1 the database cannot be used; 2 configuration.
    """
    settings = settings_of(ctx)
    document = run_async(_status(settings))
    if as_json:
        print_json(document)
    else:
        print_status(document)


async def _status(settings: Settings) -> dict[str, Any]:
    async with opened(settings) as (database, _):
        return await status_document(database, [bot.name for bot in settings.bots])


async def status_document(database: Database, bots: list[str]) -> dict[str, Any]:
    """What `status --json` prints: all six states, always, for the whole and for each bot."""
    by_bot: dict[str, dict[str, Any]] = {name: _nothing() for name in bots}
    whole = _nothing()
    for row in await database.rows("status"):
        for counts in (by_bot.setdefault(row["bot"], _nothing()), whole):
            counts["sessions"][row["state"]] += row["sessions"]
            counts["api_calls"] += row["calls"]
    totals = await database.row("totals")
    fleet = await database.row("fleet")
    reasons = await database.rows("reasons")
    assert totals is not None
    assert fleet is not None
    return {
        **whole,
        "bots": by_bot,
        "recordings": totals["files"],
        "bytes": totals["bytes"],
        "reasons": [dict(row) for row in reasons],
        "holds": fleet["holds"],
        "paused": fleet["paused"],
        "blocked": fleet["blocked"],
        "workers": fleet["workers"],
    }


def _nothing() -> dict[str, Any]:
    return {"sessions": dict.fromkeys((state.value for state in State), 0), "api_calls": 0}


def print_status(document: dict[str, Any]) -> None:
    """The same for people."""
    out = console()
    states = [state.value for state in State]
    sessions = table("bot", *states, "API calls", right=range(1, len(states) + 2))
    for name, counts in document["bots"].items():
        sessions.add_row(safe(name), *(f"{counts['sessions'][state]:,}" for state in states), f"{counts['api_calls']:,}")
    if len(document["bots"]) != 1:
        sessions.add_row("all", *(f"{document['sessions'][state]:,}" for state in states), f"{document['api_calls']:,}")
    out.print(sessions)
    out.print(f"{document['recordings']:,} recordings, {size(document['bytes'])}")
    if document["reasons"]:
        reasons = table("state", "reason", "sessions", right=[2])
        for row in document["reasons"]:
            reasons.add_row(row["state"], safe(row["reason"]), f"{row['sessions']:,}")
        out.print()
        out.print(reasons)
    for hold in document["holds"]:
        message = hold["detail"].get("message", "")
        out.print(
            f"held: {safe(hold['bot'])} ({safe(hold['kind'])}) since {hold['since']}: {safe(hold['reason'])}: {safe(message)}",
            soft_wrap=True,
        )
        if hold["detail"].get("hint"):
            out.print(f"  next: {safe(hold['detail']['hint'])}", soft_wrap=True)
    for name in document["paused"]:
        out.print(f"paused: {safe(name)} (`archiver resume --bot {safe(name)}`)")
    for blocked in document["blocked"]:
        out.print(f"rate limit reached: {safe(blocked['budget'])} until {blocked['until']}")
    for worker in document["workers"]:
        state = "alive" if worker["alive"] else "DEAD, its sessions are about to be taken over"
        out.print(
            f"worker {worker['id']} on {safe(worker['host'])}: {state}, holds {worker['claimed']}, since {worker['started_at']}"
        )
