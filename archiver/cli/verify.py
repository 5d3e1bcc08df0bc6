"""`archiver verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from archiver.archive.store_identity import recognise
from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, actor, check_bot_was_meant, opened, run_async, settings_of
from archiver.cli.output import console, json_option, print_json, printable, safe, size
from archiver.config import Settings
from archiver.errors import DatabaseError, StoreError, WrongStore
from archiver.evidence.verify import Verified, verify
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.findings import Findings
from archiver.queue.identity import Identities
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores import Store
from archiver.stores.open import open_store

log = logger(__name__)

_NO_WRITES = "the database takes no writes from this role"


@click.command(short_help="Read every stored file again and hold it against its recorded SHA-256.")
@click.option("--bot", type=TEXT, help="Only this bot's recordings.")
@json_option
@click.pass_context
def command(ctx: click.Context, bot: str | None, as_json: bool) -> None:
    """Read every stored file again, hash it again, and hold it against what was recorded. Changes nothing in the
    store; what is not equal the database remembers, for `repair`, until a later verify finds it equal.

    Exit codes: 0 every recorded file is there, whole and equal; 1 fatal; 2 configuration; 3 some are not: each is named.
    """
    settings = settings_of(ctx)
    document = run_async(_verify(settings, bot, quiet=as_json))
    check_bot_was_meant(settings, bot, document["files"])
    if as_json:
        print_json(document)
    else:
        out = console()
        for finding in document["findings"]:
            why = finding["message"]
            if finding["verdict"] == "missing":  # which is all that its message says; the record tells whoever has a backup
                why = f"recorded {finding['bytes_recorded']} bytes {finding['sha256_recorded']}"
            out.print(f"{finding['verdict']}: {safe(finding['store_key'])}: {safe(why)}", soft_wrap=True)
        out.print(f"{document['equal']:,} of {document['files']:,} files equal, {size(document['bytes'])} read")
        if document["store_problem"]:
            click.echo(f"warning: {printable(document['store_problem'])}", err=True)
    if not document["findings_kept"]:
        why = "this is not known to be the archive's store" if document["store_problem"] else _NO_WRITES
        click.echo(f"note: what was found is not kept for `archiver repair`: {why}", err=True)
    if document["findings"]:
        if document["findings_kept"] and not as_json:
            click.echo("next: `archiver repair --dry-run` says which of it can be tried", err=True)
        raise Incomplete


async def _verify(settings: Settings, bot: str | None, *, quiet: bool) -> dict[str, Any]:
    findings: list[Verified] = []
    files = read = 0
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    async with opened(settings, writes=False) as (database, _), open_store(settings.storage, buffers, network) as store:
        wrong = await _wrong_store(settings, database, store)
        kept = wrong is None and await Findings(database).can_be_kept()
        with _progress(quiet) as progress:
            task = progress.add_task("verifying", total=None, read="")
            async for verified in verify(database, store, bot=bot, actor=actor() if kept else None):
                files += 1
                read += verified.bytes_read
                progress.update(task, completed=files, read=size(read))
                if verified.verdict != "equal":
                    findings.append(verified)
    return {
        "files": files,
        "equal": files - len(findings),
        "bytes": read,
        "store_problem": "" if wrong is None else f"{wrong.message}; {wrong.hint}",
        "findings_kept": kept,
        "findings": [asdict(finding) for finding in findings],
    }


async def _wrong_store(settings: Settings, database: Database, store: Store) -> WrongStore | None:
    """What is wrong with the store as a whole. What is there is verified all the same: only writing could do harm."""
    try:
        await recognise(Identities(database), store, settings.storage.url)
    except WrongStore as error:
        return error
    except StoreError:  # each file says so
        pass
    except DatabaseError:  # an auditor who may read the two tables of theirs, and not this one
        log.info("store_not_recognised", hint="grant SELECT on archive_identity to this role")
    return None


def _progress(quiet: bool) -> Progress:
    from rich.console import Console

    errors = Console(stderr=True)
    return Progress(
        TextColumn("{task.description} {task.completed:,} files, {task.fields[read]}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=quiet or not errors.is_terminal,
    )
