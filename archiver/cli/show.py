"""`archiver show`."""

from __future__ import annotations

from typing import Any

import click

from archiver.cli.compose import bot_option, opened, run_async, settings_of
from archiver.cli.output import console, json_option, print_json, safe, size, table
from archiver.config import Settings
from archiver.errors import UsageError


@click.command(short_help="Show one session: its state, its recordings, its whole history.")
@click.argument("session_id")
@click.option("--bot", help="Where several bots have a session of this ID.")
@click.option("--kind", help="Where it is enqueued as recording and as voicemail.")
@json_option
@click.pass_context
def command(ctx: click.Context, session_id: str, bot: str | None, kind: str | None, as_json: bool) -> None:
    """Show one session: its state and why, its recordings, and everything that happened to it, in time order.

    Exit codes: 0; 1 fatal, or there is no such session; 2 usage or configuration, or there are several.
    """
    settings = settings_of(ctx)
    document = run_async(_show(settings, session_id, bot_option(settings, bot), kind))
    if as_json:
        print_json(document)
    else:
        _print(document)


async def _show(settings: Settings, session_id: str, bot: str | None, kind: str | None) -> dict[str, Any]:
    if "\0" in session_id:
        raise UsageError("a session ID cannot hold NUL")
    async with opened(settings) as (database, _):
        rows = await database.rows("show", session_id, bot, kind)
    if not rows:
        from archiver.errors import ArchiverError

        raise ArchiverError(
            f"no session {session_id!r} was ever enqueued", hint="check the ID and --bot; `archiver enqueue` adds it"
        )
    if len(rows) > 1:
        found = ", ".join(f"{row['session']['bot']}/{row['session']['kind']}" for row in rows)
        raise UsageError(f"{len(rows)} sessions have the ID {session_id}: {found}", hint="choose with --bot and --kind")
    row = rows[0]
    return {**row["session"], "recordings": row["recordings"], "events": row["events"]}


def _print(document: dict[str, Any]) -> None:
    out = console()
    reason = f": {safe(document['reason'])}" if document["reason"] else ""
    out.print(
        f"{safe(document['session_id'])} ({safe(document['bot'])}, {safe(document['kind'])}) is {document['state']}{reason}"
    )
    facts = table("", "")
    for key in (
        "priority",
        "user_id",
        "started_at",
        "enqueued_at",
        "run_at",
        "finished_at",
        "failures",
        "checks",
        "crashes",
        "calls",
    ):
        if document[key] is not None:
            facts.add_row(key, safe(document[key]))
    for key in ("metadata", "detail"):
        for name, value in document[key].items():
            facts.add_row(f"{key}.{safe(name)}", safe(value))
    facts.show_header = False
    out.print(facts)
    if document["recordings"]:
        out.print()
        files = table("recording", "bytes", "sha256", "store key", right=[1])
        for row in document["recordings"]:
            flags = f" ({', '.join(row['flags'])})" if row["flags"] else ""
            files.add_row(f"{row['ordinal']}{flags}", size(row["bytes"]), row["sha256"], safe(row["store_key"]))
        out.print(files)
    out.print()
    history = table("when", "what", "who", "facts")
    for event in document["events"]:
        shown = ", ".join(f"{key}={value}" for key, value in event["data"].items() if value not in (None, [], {}))
        history.add_row(event["at"], safe(event["event"]), safe(event["actor"] or ""), safe(shown))
    out.print(history)
