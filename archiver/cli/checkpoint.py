"""`archiver checkpoint`."""

from __future__ import annotations

import click

from archiver.cli.compose import opened_database, run_async, settings_of
from archiver.cli.recognising import check_store
from archiver.cli.sealing import evidence_store
from archiver.config import Settings
from archiver.errors import EvidenceError, StoreError
from archiver.evidence.objects import checkpoint_key
from archiver.evidence.reading import read_whole
from archiver.queue.ledger import Ledger


@click.command(short_help="Print the ledger's newest checkpoint, to be kept elsewhere.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Print the ledger's newest checkpoint, as the store has it: mail it to somebody who has no access here. Whoever has it can
    tell whether anything that was sealed until then was changed since: `archiver audit --since-checkpoint FILE`.

    Exit codes: 0 printed; 1 there is none, or the store cannot be read; 2 configuration.
    """
    settings = settings_of(ctx)
    click.echo(run_async(_read(settings)), nl=False)


async def _read(settings: Settings) -> bytes:
    async with opened_database(settings, writes=False) as database, evidence_store(settings) as store:
        await check_store(settings, database, store)
        head = await Ledger(database).head()
        if head is None or not head.published:
            raise EvidenceError("nothing is sealed yet: there is no checkpoint", hint="`archiver seal`, with evidence.key_file")
        key = checkpoint_key(head.published)
        try:
            return await read_whole(store, key)
        except StoreError as error:
            if not error.facts.get("missing"):
                raise
            message = f"the store lacks {key}, its newest checkpoint: it is an older copy, or another one"
            raise EvidenceError(message, hint="`archiver audit` says what else is missing; bring it back from a copy") from None
