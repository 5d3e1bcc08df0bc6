"""`archiver verify`."""

from __future__ import annotations

import asyncio
import shlex
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import click

from archiver.archive.store_identity import recognise
from archiver.cli.amounts import PART, SINCE, SIZE
from archiver.cli.app import Incomplete
from archiver.cli.call_times import call_time_options, call_times
from archiver.cli.compose import TEXT, actor, check_bot_was_meant, opened_database, run_async, settings_of
from archiver.cli.output import json_option
from archiver.cli.verifying import Telling
from archiver.config import Settings
from archiver.errors import DatabaseError, DatabaseUnreachable, StoreError, StoreUnavailable, WrongStore
from archiver.evidence.verify import Terms, Verification
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.findings import DamagedSessions, Findings
from archiver.queue.identity import Identities
from archiver.queue.recorded import ChosenFiles
from archiver.runtime.bandwidth import Bandwidth
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores import Store
from archiver.stores.open import open_store

log = logger(__name__)

MAX_JOBS = 256


@click.command(short_help="Read every stored file again and hold it against its recorded SHA-256.")
@click.option("--bot", type=TEXT, help="Only this bot's recordings.")
@click.option("--kind", type=TEXT, help="Only this kind.")
@click.option("--key", "prefix", type=TEXT, metavar="PREFIX", help="Only files whose key in the store begins with this.")
@call_time_options
@click.option("--sample", type=PART, help="Only this part of them: those that were not read for longest.")
@click.option("--older-than", "older_than", type=SINCE, metavar="DURATION",
              help="Only those that were not read for so long, such as 30d; or since a moment: ISO 8601.")  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(1, MAX_JOBS), help="Files at once. Default: one a processor from a folder, 16 from a bucket."
)
@click.option("--max-bandwidth", "bandwidth", type=SIZE, help="Read no more than this a second, such as 50MB, all jobs together.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    bot: str | None,
    kind: str | None,
    prefix: str | None,
    start: date | datetime | None,
    end: date | datetime | None,
    sample: Fraction | None,
    older_than: timedelta | datetime | None,
    jobs: int | None,
    bandwidth: int | None,
    as_json: bool,
) -> None:
    """Read stored files again, hash them again, and hold them against what was recorded: all of them, those first that were not
    read for longest. Changes nothing in the store; what is not equal the database remembers, for `repair`, until a later verify
    finds it equal, and when each file was read.

    `--sample 1/30` every day reads all in thirty days. A run that is stopped by a signal says with which options it goes on.

    Exit codes: 0 every file that was read is there, whole and equal; 1 fatal; 2 configuration; 3 some are not: each is named;
    or nobody mended or accepted what an earlier verify found wrong, of what is chosen here (what is accepted makes no 3); 129,
    130, 143 it was stopped by a signal.
    """
    settings = settings_of(ctx)
    chosen = ChosenFiles(bot, kind, prefix, call_times(settings, start, end))
    terms = Terms(chosen, sample, older_than, jobs, None if bandwidth is None else Bandwidth(bandwidth).take)
    with Telling(as_json) as telling:
        run_async(_verify(settings, terms, telling, _again(ctx)))
        check_bot_was_meant(settings, bot, telling.files)
        telling.end()
        if not telling.complete:
            raise Incomplete


async def _verify(settings: Settings, terms: Terms, telling: Telling, again: list[str]) -> None:
    """`again`: the words of this command, without how much of it is to be read."""
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    async with opened_database(settings, writes=False) as database, open_store(settings.storage, buffers, network) as store:
        wrong = await _wrong_store(settings, database, store)
        telling.store_problem = "" if wrong is None else f"{wrong.message}; {wrong.hint}"
        telling.kept = wrong is None and await Findings(database).can_be_kept()

        async def check() -> None:
            await _recognise(settings, database, store)

        who = actor() if telling.kept else None
        # Where it is wrong from the beginning, what is there is verified all the same: only writing could do harm.
        verification = Verification(database, store, terms, actor=who, check=check if wrong is None else None)
        try:
            with telling.under_way():
                await verification.run(telling.on_file)
        except asyncio.CancelledError:
            telling.news = verification.news
            telling.end(stopped=True, goes_on=_goes_on(again, terms, verification) if telling.kept else None)
            raise
        telling.news = verification.news
        telling.damaged = await _damaged(database, terms.chosen)


async def _damaged(database: Database, chosen: ChosenFiles) -> DamagedSessions | None:
    """What is known to be wrong now; None where this role may not ask."""
    try:
        return await Findings(database).damaged(chosen)
    except DatabaseUnreachable:
        raise
    except DatabaseError:
        log.info("findings_not_read", hint="grant SELECT on archive_findings to this role")
    return None


def _again(ctx: click.Context) -> list[str]:
    words = ["archiver", "verify"]
    if ctx.obj["config"] is not None:
        words = ["archiver", "--config", str(ctx.obj["config"]), "verify"]
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if value is not None and parameter.name in ("bot", "kind", "prefix", "start", "end", "jobs"):
            words += [parameter.opts[0], value.isoformat() if isinstance(value, date) else str(value)]
        if value is not None and parameter.name == "bandwidth":
            words += [parameter.opts[0], f"{value}B"]
    return words


def _goes_on(again: list[str], terms: Terms, verification: Verification) -> str | None:
    """The command that reads what this one did not come to; None if it did not come to begin."""
    if verification.not_since is None:
        return None
    since = verification.not_since.astimezone(UTC).isoformat().replace("+00:00", "Z")
    rest = ["--older-than", since] if terms.sample is None else ["--sample", str(terms.sample)]
    return shlex.join([*again, *rest])


async def _wrong_store(settings: Settings, database: Database, store: Store) -> WrongStore | None:
    """What is wrong with the store as a whole."""
    try:
        await _recognise(settings, database, store)
    except WrongStore as error:
        return error
    except StoreUnavailable:  # as the first files will say
        pass
    return None


async def _recognise(settings: Settings, database: Database, store: Store) -> None:
    """Raises StoreUnavailable where nothing can be read, WrongStore where it is another one."""
    try:
        await recognise(Identities(database), store, settings.storage.url)
    except StoreUnavailable:
        raise
    except StoreError:  # of the marker alone: each file says so
        pass
    except DatabaseError:  # an auditor who may read the two tables of theirs, and not this one
        log.info("store_not_recognised", hint="grant SELECT on archive_identity to this role")
