"""`archiver show`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from archiver.cli.compose import TEXT, check_bot_was_meant, opened_database, run_async, settings_of
from archiver.cli.output import console, json_option, lasting, moment, print_folded, print_json, printable, safe, size, told
from archiver.config import Settings
from archiver.errors import ArchiverError, UsageError
from archiver.observe.redact import redact_value
from archiver.queue.call_facts import agents_of
from archiver.queue.reports import Reports


@click.command(short_help="Show one session: its state, its recordings, its whole history.")
@click.argument("session_id", type=TEXT)
@click.option("--bot", type=TEXT, help="Where several bots have a session of this ID.")
@click.option("--kind", type=TEXT, help="Where it is enqueued as recording and as voicemail.")
@json_option
@click.pass_context
def command(ctx: click.Context, session_id: str, bot: str | None, kind: str | None, as_json: bool) -> None:
    """Show one session: its state and why, its recordings, and everything that happened to it, in time order.

    Exit codes: 0; 1 fatal, or there is no such session; 2 usage or configuration, or there are several.
    """
    settings = settings_of(ctx)
    document = run_async(_show(settings, session_id, bot, kind))
    if as_json:
        print_json(document)
    else:
        _print(document)


async def _show(settings: Settings, session_id: str, bot: str | None, kind: str | None) -> dict[str, Any]:
    async with opened_database(settings, writes=False) as database:
        stories = await Reports(database).find_session(session_id, bot, kind)
    check_bot_was_meant(settings, bot, len(stories))
    if not stories:
        raise ArchiverError(
            f'no session "{session_id}" was ever enqueued', hint="check the ID and --bot; `archiver enqueue` adds it"
        )
    if len(stories) > 1:
        found = ", ".join(f"{story.session['bot']}/{story.session['kind']}" for story in stories)
        raise UsageError(f"{len(stories)} sessions have the ID {session_id}: {found}", hint="choose with --bot and --kind")
    story = stories[0]
    document = {
        **story.session, "recordings": story.recordings, "events": story.events, "history_removed": story.history_removed
    }  # fmt: skip
    # Here already: a producer's metadata may be nested deeper than can be printed.
    shown: dict[str, Any] = redact_value(document)
    return shown


def _about_the_call(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Who spoke with whom, and for how long: what a person asks first."""
    call = document["call"] if isinstance(document["call"], dict) else {}
    for key in ("direction", "caller", "callee"):
        if call.get(key):
            yield key, str(call[key])
    if agents := agents_of(call):
        yield "agent", ", ".join(agents)
    started, ended = document["started_at"], document["ended_at"]
    if started is not None and ended is not None:
        yield "duration", lasting(max(0.0, (_moment(ended) - _moment(started)).total_seconds()))
    recorded = [row["seconds"] for row in document["recordings"] if row["seconds"] is not None]
    if recorded:
        yield "recorded", lasting(sum(recorded))


def _moment(text: str) -> datetime:
    """What other programs wrote may be later than Python can say."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


_FACTS = (
    "priority", "user_id", "started_at", "enqueued_at", "run_at", "first_asked_at", "last_asked_at", "finished_at", "recheck_at",
    "failures", "checks", "crashes", "calls", "rechecks", "accepted_at", "accepted_by", "accept_reason",
)  # fmt: skip


def _print(document: dict[str, Any]) -> None:
    out = console()
    reason = f": {safe(document['reason'])}" if document["reason"] else ""
    out.print(
        f"{safe(document['session_id'])} ({safe(document['bot'])}, {safe(document['kind'])}) is {document['state']}{reason}",
        soft_wrap=True,
    )
    facts = list(_about_the_call(document))
    facts += [(key, told(document[key], precise=True)) for key in _FACTS if document[key] is not None]
    for key in ("metadata", "detail"):
        value = document[key]
        # A producer may have written any JSON there.
        items = value.items() if isinstance(value, dict) else [("", value)]
        facts += [(f"{key}.{name}".rstrip("."), told(item, precise=True)) for name, item in items]
    widest = max(len(printable(name)) for name, _ in facts)
    for name, fact in facts:
        print_folded(out, f"{printable(name):{widest}}  {fact}", indent=widest + 2)
    # Lines, not tables: what is copied from a narrow terminal must not come in pieces.
    for row in document["recordings"]:
        flags = f" ({safe(', '.join(row['flags']))})" if row["flags"] else ""
        out.print(f"\nrecording {row['ordinal']}: {size(row['bytes'])}{flags}", soft_wrap=True)
        out.print(f"  sha256     {row['sha256']}\n  store key  {safe(row['store_key'])}", soft_wrap=True)
    out.print("\nhistory")
    if document["history_removed"]:
        out.print("what happened longer ago was removed, as database.keep_history asks", soft_wrap=True)
    lines = [
        (moment(event["at"], precise=True), printable(event["event"]), printable(event["actor"] or ""))
        for event in document["events"]
    ]
    what_width, who_width = (max((len(line[column]) for line in lines), default=0) for column in (1, 2))
    for (when, what, who), event in zip(lines, document["events"], strict=True):
        shown = ", ".join(
            f"{key} {told(value, precise=True)}" for key, value in event["data"].items() if value not in (None, [], {})
        )
        print_folded(out, f"{when}  {what:{what_width}}  {who:{who_width}}  {shown}".rstrip())
