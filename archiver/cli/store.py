"""`archiver store`."""

from __future__ import annotations

import os

import click

from archiver.archive.store_identity import ADOPT, TAKEN, Sample, adopt, claim_store
from archiver.cli.app import Incomplete
from archiver.cli.compose import opened_database, run_async, settings_of
from archiver.cli.output import printable
from archiver.config import Settings
from archiver.errors import ConfigError, StoreError, UsageError, WrongStore
from archiver.postgres.database import Database
from archiver.queue.identity import Identities
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores import MARKER
from archiver.stores.open import open_store

SHOWN = 5


@click.group(short_help="Say whose store it is: `store adopt`.")
def command() -> None:
    """Say whose store it is.

    Exit codes: 0 done; 1 refused; 2 configuration; 3 done, but files are missing.
    """


@command.command("adopt", short_help="Mark the store as this archive's.")
@click.option("--force", is_flag=True, help="Mark it also if the files that are looked for are missing, most or all of them.")
@click.pass_context
def adopt_command(ctx: click.Context, force: bool) -> None:
    """Mark the store at storage.url as this archive's, by the object archiver-store.json, once recorded files were looked for in
    it, and half of them found: for stores of versions that wrote none, and for one that was moved without it. Where the store has
    another archive's marker, and this archive's files, the database takes the marker's ID: as after an older dump was restored.
    Workers refuse a store without its marker, or with another one. Run it as the account that the workers run as.

    Exit codes: 0 it is marked; 1 it is another archive's, has too few of the files, or cannot be used; 2 configuration; 3 it is
    marked, but files that were looked for are missing: see `archiver verify`.
    """
    settings = settings_of(ctx)
    looked = run_async(_adopt(settings, force))
    click.echo(f"{printable(settings.storage.url)} is this archive's store ({MARKER})")
    if looked.looked_for:
        click.echo(f"{looked.found} of {looked.looked_for} recorded files that were looked for are there")
    else:
        click.echo("there are no recordings yet, so no file could be looked for")
    for key in looked.missing[:SHOWN]:
        click.echo(f"missing: {printable(key)}")
    if looked.missing:
        click.echo("next: `archiver verify` looks for all of them", err=True)
        raise Incomplete


async def _adopt(settings: Settings, force: bool) -> Sample:
    _refuse_strange_account(settings)
    async with (
        opened_database(settings) as database,
        open_store(settings.storage, Buffers(settings.transfer.max_buffer), Network.of(settings.network)) as store,
    ):
        return await adopt(database, store, settings.storage.url, force=force)


def _refuse_strange_account(settings: Settings) -> None:
    """Raises UsageError where the marker would belong to another account than the store, whose workers might not read it."""
    owner = _owner_of_folder(settings)
    if owner not in (None, os.geteuid()):
        raise UsageError(
            f"{settings.storage.folder} belongs to uid {owner}, and this is uid {os.geteuid()}",
            hint=f"run it as the account of the workers: sudo -u '#{owner}' archiver store adopt",
        )


def _owner_of_folder(settings: Settings) -> int | None:
    """The number of the account that a folder store belongs to; None where there is no folder, or none yet."""
    try:
        return settings.storage.folder.stat().st_uid if settings.storage.url.startswith("file:") else None
    except OSError:
        return None


async def mark_store(settings: Settings, database: Database) -> str:
    """What `migrate` does for the store. Returns what came of it, for people. Raises WrongStore."""
    url = printable(settings.storage.url)
    if not settings.bots:
        return ""
    if settings.storage.url.startswith("file:") and _owner_of_folder(settings) != os.geteuid():
        # The folder, and the marker in it, have to belong to the account of the workers. The first of them makes both, where
        # nothing is known to be there already.
        known = (await Identities(database).read()).has_recordings
        return f"{url} is not marked as this archive's; as the account of its workers: `archiver store adopt`" if known else ""
    try:
        async with open_store(settings.storage, Buffers(settings.transfer.max_buffer), Network.of(settings.network)) as store:
            found = await claim_store(database, store, settings.storage.url, adopt_known=True)
    except WrongStore as error:
        if error.facts.get("to_rebuild"):  # which needs the tables first
            return f"{printable(error.message)}\n  next: {error.hint}"
        raise
    except (StoreError, ConfigError) as error:
        return f"the store is not marked as this archive's yet: {printable(error.message)}\n  next: {printable(error.hint)}"
    archive = found.identity.archive_id
    if found.marker is None:
        return f"{url} is not marked as this archive's; {ADOPT}"
    return f"{url} is the store of archive {archive}" + (f"; {TAKEN}" if found.changed == "identity_taken" else "")
