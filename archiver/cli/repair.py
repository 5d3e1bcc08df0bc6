"""`archiver repair`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict

import click

from archiver.archive.context import Archive
from archiver.archive.mended import Means, Mended
from archiver.archive.repair import Repair
from archiver.archive.store_identity import claim_store, recognise
from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, actor, check_bot_was_meant, opened_database, run_async, settings_of
from archiver.cli.output import json_option, print_json, printable
from archiver.cli.serving import bot_access
from archiver.config import Settings
from archiver.errors import ArchiverError, UsageError
from archiver.postgres.database import Database
from archiver.queue.findings import Findings
from archiver.queue.identity import Identities
from archiver.queue.repairs import Repairs
from archiver.queue.reports import Reports
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores.open import open_store

_DONE = frozenset({"repaired", "archived"})


@click.command(short_help="Mend what verify found: from the platform, or from quarantine.")
@click.argument("session_id", type=TEXT, required=False)
@click.option("--bot", type=TEXT, help="Only this bot's sessions.")
@click.option("--kind", type=TEXT, help="Only recordings, or only voicemails.")
@click.option("--dry-run", is_flag=True, help="Say what would be tried; ask the platform for nothing, change nothing.")
@json_option
@click.pass_context
def command(ctx: click.Context, session_id: str | None, bot: str | None, kind: str | None, dry_run: bool, as_json: bool) -> None:
    """Mend the loss that the last `verify` found, or that of one session. Files that are missing or changed are had from the
    platform once more, and taken only if they have the recorded SHA-256: a missing one under its own key, another beside what is
    found in its place, which stays. Of failed sessions, bodies in quarantine are taken that are recordings by today's judgement.
    Each call to the platform is drawn from the budget.

    Exit codes: 0 nothing is left to repair; 1 fatal, or there is no such session; 2 usage or configuration; 3 some of it could
    not be repaired: each file is named with the reason.
    """
    settings = settings_of(ctx)
    found = run_async(_repair(settings, session_id, bot, kind, dry_run=dry_run, quiet=as_json))
    check_bot_was_meant(settings, bot, len(found))
    counts = Counter(one.outcome for one in found)
    if as_json:
        print_json({"dry_run": dry_run, "counts": dict(counts), "files": [asdict(one) for one in found]})
    else:
        click.echo(
            ", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in counts.items()) or "nothing to repair"
        )
    # Without an ID, what is no recording to anybody stays so each time.
    complete = _DONE if session_id is not None else _DONE | {"refused"}
    if not dry_run and counts.keys() - complete:
        raise Incomplete


async def _repair(
    settings: Settings, session_id: str | None, bot: str | None, kind: str | None, *, dry_run: bool, quiet: bool
) -> list[Mended]:
    found: list[Mended] = []
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    async with opened_database(settings) as database:
        rows = await _rows_of(settings, database, session_id, bot, kind) if session_id is not None else None
        async with (
            database.alone("repair", on_wait=lambda: click.echo("another repair is running: waiting for its end", err=True)),
            open_store(settings.storage, buffers, network) as store,
            bot_access(settings, database) as bots,
        ):
            longest = None
            if dry_run:  # nothing is written, to find that out either
                await recognise(Identities(database), store, settings.storage.url)
            else:
                await claim_store(database, store, settings.storage.url, adopt_known=False)
                longest = await store.longest_name()
            archive = Archive(store, settings.storage.path, settings.retry, settings.transfer, longest_name=longest)
            repairs = Repairs(database, settings.retry, actor=actor())
            findings = Findings(database)
            repair = Repair(Means(archive, bots, repairs, findings, actor(), dry_run))
            async for row in _given(rows) if rows is not None else _all(findings, repairs, bot, kind):
                for one in await repair.session(row):
                    if not quiet:
                        _print(one)
                    found.append(one)
    return found


async def _rows_of(settings: Settings, database: Database, session_id: str, bot: str | None, kind: str | None) -> list[int]:
    """The rows that an ID means. Raises ArchiverError where there are none, UsageError where they are of several bots."""
    sessions = await Reports(database).find_files(session_id, bot, kind)
    check_bot_was_meant(settings, bot, len(sessions))
    if not sessions:
        raise ArchiverError(
            f'no session "{session_id}" was ever enqueued', hint="check the ID and --bot; `archiver enqueue` adds it"
        )
    if len({session.bot for session in sessions}) > 1:
        bots = ", ".join(f"{session.bot}/{session.kind}" for session in sessions)
        raise UsageError(f"{len(sessions)} sessions have the ID {session_id}: {bots}", hint="choose with --bot")
    return [session.queue_id for session in sessions]


async def _given(rows: list[int]) -> AsyncIterator[int]:
    for row in rows:
        yield row


async def _all(findings: Findings, repairs: Repairs, bot: str | None, kind: str | None) -> AsyncIterator[int]:
    """What verify found, then failed sessions with something in quarantine."""
    after = 0
    seen = set()
    while page := await findings.list_sessions(bot=bot, kind=kind, after=after):
        for row in page:
            seen.add(row)
            yield row
        after = page[-1]
    async for row in repairs.quarantined(bot=bot, kind=kind):
        if row not in seen:
            yield row


def _print(one: Mended) -> None:
    what = one.store_key or one.from_key or f"session {one.session_id}"
    if one.outcome in ("repaired", "would_ask", "would_take") and one.from_key != one.store_key:
        what = f"{one.from_key} as {one.store_key}"
    source = f" (from the {one.source})" if one.outcome == "repaired" and one.source != "unknown" else ""
    why = ": ".join(part for part in (one.reason, one.message) if part)
    click.echo(printable(f"{one.outcome.replace('_', ' ')}: {what}{source}" + (f": {why}" if why else "")))
