"""`archiver verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, check_bot_was_meant, opened, run_async, settings_of
from archiver.cli.output import console, json_option, print_json, safe, size
from archiver.config import Settings
from archiver.evidence.verify import Verified, verify
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores.open import open_store


@click.command(short_help="Read every stored file again and hold it against its recorded SHA-256.")
@click.option("--bot", type=TEXT, help="Only this bot's recordings.")
@json_option
@click.pass_context
def command(ctx: click.Context, bot: str | None, as_json: bool) -> None:
    """Read every stored file again, hash it again, and hold it against what was recorded. Changes nothing.

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
            out.print(f"{finding['verdict']}: {safe(finding['store_key'])}: {safe(finding['message'])}", soft_wrap=True)
        out.print(f"{document['equal']:,} of {document['files']:,} files equal, {size(document['bytes'])} read")
    if document["findings"]:
        raise Incomplete


async def _verify(settings: Settings, bot: str | None, *, quiet: bool) -> dict[str, Any]:
    findings: list[Verified] = []
    files = read = 0
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    async with opened(settings) as (database, _), open_store(settings.storage, buffers, network) as store:
        with _progress(quiet) as progress:
            task = progress.add_task("verifying", total=None, read="")
            async for verified in verify(database, store, bot=bot):
                files += 1
                read += verified.bytes_read
                progress.update(task, completed=files, read=size(read))
                if verified.verdict != "equal":
                    findings.append(verified)
    return {
        "files": files,
        "equal": files - len(findings),
        "bytes": read,
        "findings": [asdict(finding) for finding in findings],
    }


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
