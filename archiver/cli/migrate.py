"""`archiver migrate`."""

from __future__ import annotations

import click

from archiver.cli.compose import run_async, settings_of
from archiver.cli.output import printable
from archiver.config import Settings
from archiver.postgres.database import Database, open_database
from archiver.postgres.migrate import migrate
from archiver.postgres.roles import grant_again
from archiver.postgres.schema import check_version, schema_open_to_all
from archiver.queue.identity import Identities
from archiver.queue.sessions import Queue


@click.command(short_help="Create or update the database's tables.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Create or update the database's tables, and record the configured bots. Run it again at will. Where no store is known to be
    this archive's yet, the one at storage.url is marked so, if it can be reached, and is empty or has the recorded files.

    Workers and producers may go on meanwhile: it waits for a lock half a second at a time, says who has it
    (`migration_lock_awaited`), and gives up after ten minutes. On the database of a later archiver that this one works with it
    changes nothing.

    Exit codes: 0 up to date; 1 the database cannot be used, or the store is another archive's; 2 configuration.
    """
    run_async(_migrate(settings_of(ctx)))


async def _migrate(settings: Settings) -> None:
    async with open_database(settings.database) as database:
        applied = await migrate(database)
        await Queue(database, settings.retry).record_bots([bot.name for bot in settings.bots], complete=True)
        version = await check_version(database)
        granted = await grant_again(database)
        schema = await schema_open_to_all(database)
        of_store = "" if (await Identities(database).read()).marked_at else await _mark_store(settings, database)
    for migration in applied:
        click.echo(f"applied {migration.version:04d}_{migration.name}")
    for name in granted:
        click.echo(f"granted {printable(name)} what it lacked")
    click.echo(version.notice + ": nothing to do" if version.notice else "the database is up to date")
    if of_store:
        click.echo(of_store, err=True)
    if schema is not None:
        click.echo(
            f"any role that can log in may create objects in schema {printable(schema)}, and so act as a role that uses it; "
            f"its owner should run: REVOKE CREATE ON SCHEMA {printable(schema)} FROM PUBLIC",
            err=True,
        )


async def _mark_store(settings: Settings, database: Database) -> str:
    from archiver.cli.store import mark_store  # needed once in an archive's life

    return await mark_store(settings, database)
