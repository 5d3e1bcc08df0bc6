"""`archiver healthcheck`."""

from __future__ import annotations

import socket

import click

from archiver.cli.compose import opened_database, run_async, settings_of
from archiver.config import Settings
from archiver.errors import ArchiverError
from archiver.queue.reports import Reports


@click.command(short_help="Tell a working worker of this host from a hung one.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Tell a working worker of this host (container) from a hung one: a worker renews its lease from the very loop that does
    the work, so one whose lease has run out does not work.

    Where a host has several workers, one that holds its lease will do: it buries those that do not.

    Exit codes: 0 a worker of this host holds its lease; 1 none does, or the database cannot be asked; 2 configuration.
    """
    click.echo(run_async(_check(settings_of(ctx))))


async def _check(settings: Settings) -> str:
    async with opened_database(settings, pool_size=1, writes=False) as database:
        workers = await Reports(database).list_workers_of_host(socket.gethostname())
    if not workers:
        raise ArchiverError(f"no worker of host {socket.gethostname()} is registered", hint="start `archiver worker` here")
    hung = [worker for worker in workers if not worker.alive]
    if len(hung) == len(workers):
        raise ArchiverError(
            f"worker {hung[0].id} has been silent for {hung[0].silent.total_seconds():.0f} s",
            hint="it hangs, or it cannot reach the database: restart it",
        )
    return f"{len(workers) - len(hung)} worker(s) of this host hold their lease"
