"""`archiver worker`."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta

import click

from archiver.cli.app import Incomplete
from archiver.cli.compose import DURATION, opened, reload_on_hangup, run_async, settings_of, tolerate_hangup
from archiver.cli.monitor import Monitor, monitored
from archiver.cli.processes import Command, Processes
from archiver.cli.reloading import Reloading, Source, hangup_reloads, is_named
from archiver.cli.sealing import drained_and_sealed
from archiver.cli.serving import composed_worker, stop_on_signals
from archiver.cli.shares import fitted, process_count, processes_option
from archiver.cli.supervised import Supervised
from archiver.config import Settings
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.sessions import Queue
from archiver.runtime.open_files import pool_size
from archiver.worker.claiming import Drained

log = logger(__name__)


@click.command(short_help="Archive what is in the queue.")
@click.option("--drain", is_flag=True, help="End when nothing is pending or claimed any more.")
@click.option(
    "--max-wait",
    type=DURATION,
    help="With --drain: wait at most so long for sessions that fall due later. Default: retry.not_ready_give_up.",
)
@processes_option
@click.pass_context
def command(ctx: click.Context, drain: bool, max_wait: timedelta | None, processes: int) -> None:
    """Archive what is in the queue, until stopped or, with --drain, until it is empty.

    SIGTERM and SIGINT stop claiming, finish or hand back what runs within worker.drain_grace_seconds, and exit; a second one
    hands back at once. SIGHUP has the configuration read again (see "Changing the configuration" in docs/operations.md); of a
    worker that was started on a terminal it means that the terminal is gone, and stops it too.

    Exit codes: 0 drained and complete; 1 fatal; 2 configuration; 3 drained, but sessions failed meanwhile or had to be left
    pending (a held or paused bot, an unknown one, what falls due after --max-wait), or what happened could not be sealed; 129,
    130, 143 stopped by a signal.
    """
    if max_wait is not None and not drain:
        raise click.UsageError("--max-wait goes with --drain")
    supervised = Supervised.from_environment()
    reloads = hangup_reloads()
    if reloads:
        tolerate_hangup()  # it has just read what it would read again
    settings = settings_of(ctx)
    told = Command.of(ctx)
    others = Processes(settings, process_count(settings, processes), told)
    source = Source(told.config, is_named(ctx), told.log_level)
    received, ended = run_async(_work(others, supervised, Reloading(source, others), drain, max_wait, reloads=reloads))
    log_drain(ended)
    if received:
        raise click.exceptions.Exit(128 + received[0])
    if not ended.complete:
        raise Incomplete


async def _work(
    others: Processes,
    supervised: Supervised | None,
    reloading: Reloading,
    drain: bool,
    max_wait: timedelta | None,
    *,
    reloads: bool,
) -> tuple[list[int], Drained]:
    if reloads:
        reload_on_hangup(reloading.request)
    settings = fitted(others.settings)
    async with (
        others.prepared(),
        monitored(settings, others, resident=not drain) as monitor,
        opened(settings, pool_size=pool_size(settings.worker.concurrency)) as (database, queue),
        monitor.reading(database),
    ):
        return await _worked(settings, database, queue, others, supervised, monitor, reloading, drain=drain, max_wait=max_wait)


async def _worked(
    settings: Settings,
    database: Database,
    queue: Queue,
    others: Processes,
    supervised: Supervised | None,
    monitor: Monitor,
    reloading: Reloading,
    *,
    drain: bool,
    max_wait: timedelta | None,
) -> tuple[list[int], Drained]:
    """Run a worker to its end; the signals that it received, and how it ended. `database` is to be closed after that: the
    worker's farewell is written to it.
    """
    async with composed_worker(settings, database, queue, Tally(), monitor=monitor, reloading=reloading) as worker:
        with stop_on_signals(worker) as received:
            listening = nullcontext() if supervised is None else supervised.listening(worker, reloading.request_with)
            async with listening, others.beside(worker), reloading.beside(worker):
                ended = await worker.run(drain=drain, max_wait=max_wait)
        return received, await drained_and_sealed(worker.sealer if drain else None, ended, received)


def log_drain(ended: Drained) -> None:
    """Log what a drain had to leave."""
    for left in ended.left_pending:
        log.warning("sessions_left_pending", **left)
    if ended.store_unavailable:
        log.error("drain_abandoned", reason="store_unavailable")
    if ended.store_unavailable and ended.timed_out:
        log.warning("sessions_left_pending", sessions=ended.timed_out, because="store")
    elif ended.next_due_in is not None:
        log.warning(
            "sessions_left_pending",
            sessions=ended.timed_out,
            because="due_later",
            next_due_in_seconds=round(ended.next_due_in.total_seconds()),
            hint="another run does them when they are due; --max-wait says how long one waits",
        )
    if ended.failed:
        log.warning(
            "sessions_failed", sessions=ended.failed, hint="`archiver status` says why, `archiver retry --all` brings them back"
        )
