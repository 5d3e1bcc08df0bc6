"""`archiver seal`."""

from __future__ import annotations

from typing import Any

import click

from archiver.cli.compose import opened_database, run_async, settings_of
from archiver.cli.output import console, counted, json_option, print_json, safe
from archiver.cli.recognising import claim_checked_store
from archiver.cli.sealing import evidence_store, sealer_of
from archiver.config import Settings
from archiver.errors import ConfigError
from archiver.queue.ledger import Ledger

NO_KEY = "name the file of a key there; `ssh-keygen -t ed25519 -N '' -f evidence.key` makes one, and so does `archiver init`"


@click.command(short_help="Seal what has happened since the last time, for `audit` to hold the archive against.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Seal what has happened since the last time: entries and records go into the store, under a checkpoint that
    evidence.key_file signs. Workers that have the key do it by themselves; where one service alone is to hold it, that runs this
    every few minutes.

    Sessions that ended before the ledger was begun are adopted, newest first: as many as evidence.adopt_per_minute allows since
    the last time, five minutes' worth at most.

    Exit codes: 0 all that waited is sealed; 1 it could not be sealed; 2 configuration, such as no key.
    """
    settings = settings_of(ctx)
    document = run_async(_seal(settings))
    if as_json:
        print_json(document)
        return
    out = console()
    out.print(
        f"{counted(document['sealed'], 'entry', 'entries')} sealed; "
        f"the ledger of {safe(document['origin'])} has {document['entries']:,}"
    )
    if document["to_adopt"]:
        out.print(f"{counted(document['adopted'], 'session')} of before the ledger adopted; more are left: run it again")


async def _seal(settings: Settings) -> dict[str, Any]:
    if settings.evidence.key_file is None:
        raise ConfigError("evidence.key_file is empty: nothing is sealed", hint=NO_KEY)
    adopted = 0
    async with opened_database(settings) as database, evidence_store(settings) as store:
        await claim_checked_store(settings, database, store)
        sealer = sealer_of(settings, database, store)

        def count(sealed: Any) -> None:
            nonlocal adopted
            adopted += sealed.adopted

        entries = await sealer.finish(count)
        head = await Ledger(database).head()
    assert head is not None
    return {"sealed": entries, "adopted": adopted, "entries": head.published, "origin": head.origin, "to_adopt": head.adopts}
