"""`archiver rebuild`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from archiver.archive.store_identity import take_over
from archiver.cli.app import Incomplete
from archiver.cli.audit import public_key
from archiver.cli.compose import actor, opened_database, run_async, settings_of
from archiver.cli.output import console, counted, json_option, print_json, safe
from archiver.cli.progress import counting
from archiver.cli.sealing import evidence_store, sealer_of
from archiver.config import Settings
from archiver.errors import EvidenceError
from archiver.evidence.rebuild.report import LOSSES, Rebuilt
from archiver.evidence.rebuild.whole import Refused, Terms, rebuild


@click.command(short_help="Fill an empty database from the store and its ledger.")
@click.option("--catch-up", is_flag=True, help="The database is an older one of this archive that was restored.")
@click.option("--accept-loss", is_flag=True, help="Go on where the store lacks something that the ledger says it has.")
@json_option
@click.pass_context
def command(ctx: click.Context, catch_up: bool, accept_loss: bool, as_json: bool) -> None:
    """Fill an empty database from the store: every session as the sealed ledger and its record have it, and the ledger itself,
    so that sealing goes on where it ended. Recordings that came after the last entry have their sessions enqueued again: a worker
    compares what the platform still has with what lies there. With --catch-up a database that was restored from a dump learns
    what happened since. The database has to be migrated, and nobody may be at work. All of it comes to be, or nothing.

    The store does not know of sessions that were waiting (`archiver discover` finds them again), of pauses, nor of accounts but
    for their counts (`archiver reconcile` makes them again).

    Exit codes: 0 all is there; 1 fatal, or something is missing, which is named, and nothing was done; 2 configuration or usage;
    3 done with --accept-loss, and something was missing.
    """
    settings = settings_of(ctx)
    try:
        rebuilt = run_async(_rebuild(settings, catch_up, accept_loss, quiet=as_json))
    except Refused as refused:
        if as_json:
            print_json(refused.rebuilt.document())
        else:
            _print_losses(refused.rebuilt)
        raise EvidenceError(refused.message, hint=refused.hint) from None
    if as_json:
        print_json(rebuilt.document())
    else:
        _print(rebuilt)
    if rebuilt.counts:
        raise Incomplete


async def _rebuild(settings: Settings, catch_up: bool, accept_loss: bool, *, quiet: bool) -> Rebuilt:
    terms = Terms(
        path=settings.storage.path,
        bots=[bot.name for bot in settings.bots],
        recheck_unavailable=settings.retry.recheck_unavailable,
        lease=timedelta(seconds=settings.worker.lease_seconds),
        key=public_key(settings),
        trusted=frozenset(settings.evidence.trusted),
        by=actor(),
        catch_up=catch_up,
        accept_loss=accept_loss,
    )

    def wait() -> None:
        click.echo("another rebuild is under way: waiting for it", err=True)

    async with (
        opened_database(settings) as database,
        evidence_store(settings) as store,
        database.alone("rebuild", on_wait=wait),
    ):
        sealer = None if settings.evidence.key_file is None else sealer_of(settings, database, store)
        with counting("rebuild", quiet=quiet) as on_progress:
            rebuilt = await rebuild(database, store, sealer, terms, on_progress)
        await take_over(database, store, settings.storage.url)
    return rebuilt


def _print(rebuilt: Rebuilt) -> None:
    out = console()

    def line(text: str) -> None:
        out.print(text, soft_wrap=True)

    line(
        f"{safe(rebuilt.origin)}: {counted(rebuilt.sessions, 'session')} and {counted(rebuilt.files, 'recorded file')} put in, "
        f"by {counted(rebuilt.entries, 'entry', 'entries')} of the ledger"
    )
    for count, text in (
        (rebuilt.pending, "of these sessions wait to be archived"),
        (rebuilt.enqueued, "sessions enqueued whose recordings nobody had recorded"),
        (rebuilt.left_alone, "objects left alone: nothing says which session they are of"),
        (rebuilt.unnamed, "entries are about sessions whose IDs only the lost database had: those that were refused"),
        (rebuilt.dropped, "rows dropped that waited to be sealed: they were, or the ledger has something else"),
    ):
        if count:
            line(f"{count:,} {text}")
    if not rebuilt.sealed:
        line("nothing seals that it was rebuilt: evidence.key_file is empty")
    for problem in rebuilt.problems:
        line(f"note: {safe(problem)}")
    _print_losses(rebuilt)
    line("next: `archiver audit`; `archiver reconcile --from` makes accounts again, and finds what was waiting; then workers")


def _print_losses(rebuilt: Rebuilt) -> None:
    out = console()
    for kind, meaning in LOSSES.items():
        if not rebuilt.counts[kind]:
            continue
        out.print(f"{kind}: {meaning}", soft_wrap=True)
        named: list[Any] = rebuilt.losses[kind]
        for loss in named:
            session = f"{loss.session_id} of {loss.bot}" if loss.session_id is not None else ""
            whose = ", ".join(filter(None, (loss.key, session)))
            out.print(f"  {safe(whose)}{': ' if whose else ''}{safe(loss.message)}", soft_wrap=True)
        if rebuilt.counts[kind] > len(named):
            out.print(f"  and {rebuilt.counts[kind] - len(named):,} more")
