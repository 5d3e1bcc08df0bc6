"""`archiver proof`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from archiver.archive.copies import folder_for, is_within
from archiver.cli.compose import TEXT, check_bot_was_meant, opened_database, run_async, settings_of
from archiver.cli.output import json_option, print_json, printable
from archiver.cli.recognising import check_store
from archiver.cli.sealing import evidence_store
from archiver.config import Settings
from archiver.errors import ArchiverError, DatabaseError, UsageError
from archiver.evidence.bag.single import prove, write_proof
from archiver.evidence.keys import NAMESPACE
from archiver.observe.logs import logger
from archiver.queue.exports import ChosenSession, Exports

log = logger(__name__)


@click.command(short_help="Write the proof that a session is in the sealed ledger.")
@click.argument("session_id", type=TEXT)
@click.option("--bot", type=TEXT, help="Where several bots have a session of this ID.")
@click.option("--kind", type=TEXT, help="Where it has a recording and a voicemail.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Where it goes; made if need be. Default: a folder in this one, named as the session.")  # fmt: skip
@json_option
@click.pass_context
def command(ctx: click.Context, session_id: str, bot: str | None, kind: str | None, output: Path | None, as_json: bool) -> None:
    """Write the proof that a session is in the sealed ledger, with its record, which has the SHA-256 of each of its recordings;
    not these themselves: `export` hands them out, too. Anybody can verify it without this program, as VERIFY.md beside it says.
    Nothing is overwritten.

    Exit codes: 0 written; 1 fatal, there is no such session, or its newest state is not sealed yet; 2 usage, configuration, or
    nothing is sealed.
    """
    settings = settings_of(ctx)
    folder = output or folder_for(f"{session_id}.proof")
    if settings.storage.url.startswith("file:") and is_within(folder, settings.storage.folder):
        raise UsageError(f"{folder} lies in the archive's own store", hint="choose a folder elsewhere with --output")
    document = run_async(_prove(settings, session_id, bot, kind, folder))
    if as_json:
        print_json(document)
        return
    place = printable(shlex.quote(str(folder)))
    click.echo(f"{place}: entry {document['index']} of the ledger of {document['origin']}, which has {document['entries']:,}")
    click.echo("next, without this program:")
    click.echo(f"  cd {place} && python3 verify.py --without-files")
    click.echo(
        f"  cd {place} && ssh-keygen -Y verify -f evidence/allowed_signers -I {document['origin']} -n {NAMESPACE} "
        "-s evidence/checkpoint.sig < evidence/checkpoint"
    )
    click.echo(f"the key has the fingerprint {document['fingerprint']}; VERIFY.md says more")


async def _prove(settings: Settings, session_id: str, bot: str | None, kind: str | None, folder: Path) -> dict[str, Any]:
    async with opened_database(settings, writes=False) as database, evidence_store(settings) as store:
        try:
            await check_store(settings, database, store)
        except DatabaseError:  # who may read the archive's tables, and not this one
            log.info("store_not_recognised", hint="grant SELECT on archive_identity to this role")
        found = await Exports(database).find_sessions([session_id], [bot] if bot else (), [kind] if kind else ())
        check_bot_was_meant(settings, bot, len(found))
        proven, sealed = await prove(database, store, _one(session_id, found))
    write_proof(folder, proven, sealed)
    return {
        "bot": proven.entry.bot,
        "session_id": session_id,
        "kind": proven.entry.kind,
        "folder": str(folder),
        "origin": sealed.checkpoint.origin,
        "entries": sealed.checkpoint.size,
        "index": proven.proof.index,
        "fingerprint": sealed.key.fingerprint,
    }


def _one(session_id: str, found: list[ChosenSession]) -> ChosenSession:
    if not found:
        raise ArchiverError(f'no session "{session_id}" was ever enqueued', hint="check the ID, --bot and --kind")
    if len(found) > 1:
        names = ", ".join(f"{each.bot}/{each.kind}" for each in found)
        raise UsageError(f"{len(found)} sessions have the ID {session_id}: {names}", hint="choose with --bot and --kind")
    return found[0]
