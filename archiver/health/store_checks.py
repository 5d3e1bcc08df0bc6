"""The checks of `doctor` that concern the store."""

from __future__ import annotations

import os
import shlex
from typing import Literal

from archiver.archive.store_identity import ADOPT, MOUNT, TAKEN, Standing, is_empty, mixes, recognise, sample, to_rebuild
from archiver.config import Settings
from archiver.errors import ArchiverError, StoreError, WrongStore
from archiver.health.findings import Finding, of_error
from archiver.queue.identity import Identities
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores import Store
from archiver.stores.open import open_store

MAX_PART = 200
"""Bytes of the longest folder name that a session's ID makes: path_part writes few characters with more than one."""

LOW_DISK = 5_000_000_000


async def check_store(settings: Settings, identities: Identities | None) -> list[Finding]:
    """Whose store it is, as far as a database can be asked; then a small object written, read back and deleted, room for more,
    and what the store itself advises. Nothing is written into a store that is not this archive's, and no folder is made.
    """
    found: list[Finding] = []
    try:
        async with open_store(settings.storage, Buffers(settings.transfer.max_buffer), Network.of(settings.network)) as store:
            if identities is not None and (of_identity := await _check_identity(settings.storage.url, identities, store)):
                found.append(of_identity)
            if found and found[0].verdict == "failure":
                return found
            if (missing := _missing_folder(settings)) is not None:
                return [missing, *found]
            message = await store.check()
            free = await store.free()
            advice = await store.advice()
            longest = await store.longest_name()
    except ArchiverError as error:
        return [of_error("store", error), *found]
    found += [Finding("store: advice", "warning", seen, hint) for seen, hint in advice]
    if longest is not None and longest < MAX_PART:
        seen = f"names have at most {longest} bytes: file names are cut to fit, and sessions with longer IDs cannot be kept"
        found.append(Finding("store: names", "warning", seen, "use a file system without such a limit (eCryptfs has it)"))
    if free is not None and free < LOW_DISK:
        return [Finding("store", "warning", message, "free disk space: there is room for few recordings only"), *found]
    return [Finding("store", "ok", message), *found]


async def _check_identity(url: str, identities: Identities, store: Store) -> Finding | None:
    check = "store: identity"
    try:
        found = await recognise(identities, store, url)
        for other in await identities.storing_workers():
            if url != other["store"]:
                message = f"worker {other['id']} (host {other['host']}, process {other['pid']}) stores into {other['store']}"
                verdict: Literal["warning", "failure"] = "failure" if mixes(url, other["store"]) else "warning"
                hint = "let storage.url be the same everywhere, and restart the other workers"
                return Finding(check, verdict, message, hint)
        match found.standing:
            case Standing.OWN:
                return Finding(check, "ok", f"archive {found.identity.archive_id}")
            case Standing.TO_REBUILD:
                raise to_rebuild(url)
            case Standing.TO_TAKE if found.marker is not None:
                message = f"archive {found.marker.archive_id}, which this database without sessions becomes with its first worker"
                return Finding(check, "warning", message, TAKEN)
            case Standing.FRESH if await is_empty(store):
                return Finding(check, "ok", "empty, and not marked yet: the first worker does it")
            case Standing.FRESH:
                message = "not marked as this archive's, and has files that the database does not know"
                return Finding(check, "warning", message, ADOPT)
        looked = await sample(identities, store)
    except WrongStore as error:
        return of_error(check, error)
    except StoreError:  # what is tried next says so
        return None
    message = f"not marked as this archive's; {looked.found} of {looked.looked_for} recorded files that were looked for are there"
    if looked.found:
        return Finding(check, "warning", message, ADOPT if not looked.missing else f"{MOUNT}; {ADOPT}")
    return Finding(check, "failure", message, MOUNT)


def _missing_folder(settings: Settings) -> Finding | None:
    """What there is to say of a folder that is not there. Made by whoever runs `doctor` it would be theirs, not the worker's."""
    if not settings.storage.url.startswith("file:") or (folder := settings.storage.folder).exists():
        return None
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir():
        return None  # what is tried next says so
    if os.access(above, os.W_OK | os.X_OK):
        return Finding("store", "ok", f"{folder} does not exist yet: the first worker makes it")
    return Finding(
        "store",
        "failure",
        f"{folder} does not exist, and this account may not make it in {above}",
        f"make it, and give it to the account of the workers: mkdir -p {shlex.quote(str(folder))}",
    )
