"""`archiver migrate`."""

from __future__ import annotations

import click

from archiver.cli.compose import run_async, settings_of
from archiver.cli.output import printable
from archiver.config import Settings
from archiver.postgres.database import open_database
from archiver.postgres.migrate import migrate, schema_open_to_all
from archiver.queue.sessions import Queue


@click.command(short_help="Create or update the database's tables.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Create or update the database's tables, and record the configured bots. Run it again at will.

    Exit codes: 0 up to date; 1 the database cannot be used; 2 configuration.
    """
    run_async(_migrate(settings_of(ctx)))


async def _migrate(settings: Settings) -> None:
    async with open_database(settings.database) as database:
        applied = await migrate(database)
        await Queue(database, settings.retry).record_bots([bot.name for bot in settings.bots], complete=True)
        schema = await schema_open_to_all(database)
    for migration in applied:
        click.echo(f"applied {migration.version:04d}_{migration.name}")
    click.echo("the database is up to date")
    if schema is not None:
        click.echo(
            f"any role that can log in may create objects in schema {printable(schema)}, and so act as a role that uses it; "
            f"its owner should run: REVOKE CREATE ON SCHEMA {printable(schema)} FROM PUBLIC",
            err=True,
        )
