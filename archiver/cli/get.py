"""`archiver get`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from archiver.archive.copies import Copy, copies, folder_for
from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, check_bot_was_meant, opened_database, run_async, settings_of
from archiver.cli.output import json_option, print_error, print_json, printable
from archiver.config import Settings
from archiver.errors import ArchiverError, UsageError
from archiver.queue.reports import Reports, SessionFiles
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores.open import open_store


@click.command(short_help="Bring a session's recordings out of the store, each checked against its SHA-256.")
@click.argument("session_id", type=TEXT)
@click.option("--bot", type=TEXT, help="Where several bots have a session of this ID.")
@click.option("--kind", type=TEXT, help="Only its recording, or its voicemail; else of both, in a folder each.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Where the copies go; made if need be. Default: a folder in this one, named as the session.")  # fmt: skip
@json_option
@click.pass_context
def command(ctx: click.Context, session_id: str, bot: str | None, kind: str | None, output: Path | None, as_json: bool) -> None:
    """Bring a session's recordings out of the store into a folder. Each is hashed on the way, and gets its name only if it is
    what was recorded. Prints a line a file as `sha256sum --check` takes it. Nothing is overwritten: a file that is there already
    counts if it is equal.

    Exit codes: 0 all of them are there; 1 fatal, there is no such session, it has no recordings, or another file has the name of
    one; 2 usage or configuration, or there are several sessions; 3 what the store has of some is not what was recorded: each is
    named, and not copied.
    """
    settings = settings_of(ctx)
    document = run_async(_get(settings, session_id, bot, kind, output or folder_for(session_id), quiet=as_json))
    if as_json:
        print_json(document)
    outcomes = {file["outcome"] for file in document["files"]}
    if "taken" in outcomes:
        raise ArchiverError(
            "other files have the names of recordings: nothing was overwritten", hint="choose another folder with --output"
        )
    if outcomes & {"missing", "changed", "unreadable"}:
        raise Incomplete


async def _get(
    settings: Settings, session_id: str, bot: str | None, kind: str | None, folder: Path, *, quiet: bool
) -> dict[str, Any]:
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    async with opened_database(settings, writes=False) as database:
        sessions = await Reports(database).find_files(session_id, bot, kind)
    check_bot_was_meant(settings, bot, len(sessions))
    _check(session_id, sessions)
    root = settings.storage.folder if settings.storage.url.startswith("file:") else None
    made: list[dict[str, Any]] = []
    async with open_store(settings.storage, buffers, network) as store:
        async for copy in copies(store, sessions, folder, buffers, store_root=root):
            if not quiet:
                _print(copy, folder)
            made.append(_as_json(copy))
    return {"bot": sessions[0].bot, "session_id": session_id, "folder": str(folder), "files": made}


def _check(session_id: str, sessions: list[SessionFiles]) -> None:
    """Raises ArchiverError where there is nothing to copy, UsageError where it is not clear of which session."""
    if not sessions:
        raise ArchiverError(
            f'no session "{session_id}" was ever enqueued', hint="check the ID and --bot; `archiver enqueue` adds it"
        )
    if len({session.bot for session in sessions}) > 1:
        found = ", ".join(f"{session.bot}/{session.kind}" for session in sessions)
        raise UsageError(f"{len(sessions)} sessions have the ID {session_id}: {found}", hint="choose with --bot")
    if not any(session.files for session in sessions):
        states = ", ".join(
            f"{session.kind}: {session.state}" + (f" ({session.reason})" if session.reason else "") for session in sessions
        )
        raise ArchiverError(
            f"nothing is recorded of session {session_id} of {sessions[0].bot}; {states}", hint=f"`archiver show {session_id}`"
        )


def _print(copy: Copy, folder: Path) -> None:
    if copy.outcome in ("copied", "existed"):
        click.echo(_sum_line(copy, folder))
        return
    what = copy.path if copy.outcome == "taken" else f"{copy.outcome}: {copy.file.store_key}"
    found = f", found {copy.sha256_found}" if copy.sha256_found else ""
    hint = "" if copy.outcome == "taken" else "`archiver verify` looks at all of them; restore it from a backup"
    print_error(f"{what}: {copy.message}; recorded {copy.file.sha256}{found}", hint)


def _sum_line(copy: Copy, folder: Path) -> bytes:
    """As `sha256sum` writes it: a line with a backslash or newline in its path begins with a backslash. The folder is the user's
    own word, and stays as it is: else nothing would be found there. What comes from rows is made harmless.
    """
    name = printable(copy.path.removeprefix(f"{folder}{os.sep}"))
    path = str(folder / name)
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n")
    return os.fsencode(f"{'' if escaped == path else chr(92)}{printable(copy.file.sha256)}  {escaped}")


def _as_json(copy: Copy) -> dict[str, Any]:
    return {
        "kind": copy.kind,
        "ordinal": copy.file.ordinal,
        "path": copy.path,
        "store_key": copy.file.store_key,
        "bytes": copy.file.bytes,
        "sha256": copy.file.sha256,
        "outcome": copy.outcome,
        "sha256_found": copy.sha256_found,
        "message": copy.message,
    }
