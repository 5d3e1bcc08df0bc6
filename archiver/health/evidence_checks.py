"""The checks of `doctor` that concern the evidence: the key, and how far what happened is sealed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Literal

from archiver.config import Settings
from archiver.errors import ArchiverError, LedgerRefused, StoreError
from archiver.evidence.keys import PublicKey, SealingKey
from archiver.evidence.publisher import Publisher
from archiver.health.findings import Finding, of_error
from archiver.postgres.database import Database
from archiver.queue.ledger import Ledger, Standing
from archiver.stores import Store

CHECK = "evidence"

LATE = timedelta(hours=1)
"""Unsealed for longer than this, and than a few intervals, it is worth a look."""

BEGIN = "`archiver init` makes a key, `ssh-keygen -t ed25519 -N '' -f evidence.key` another one: name it in evidence.key_file"


OTHER_KEY = "let it name that key, or its copy; with it, `archiver key rotate --new FILE` changes to another"


async def check_evidence(settings: Settings, database: Database) -> list[Finding]:
    """Whether anything is proven, the key can seal, and what happened is sealed."""
    try:
        standing = await Ledger(database).standing()
        key = None
        if (file := settings.evidence.key_file) is not None:
            key = (await asyncio.to_thread(SealingKey.load, file)).public
    except ArchiverError as error:
        return [of_error(CHECK, error)]
    if standing.public_key is None:
        if key is None:
            return [Finding(CHECK, "warning", "nothing is sealed, so nothing is proven: evidence.key_file is empty", BEGIN)]
        return [
            Finding(
                CHECK, "ok", f"{key.fingerprint} will seal: the first worker that has it, or `archiver seal`, begins the ledger"
            )
        ]
    if key is not None and standing.sealed and key.openssh != standing.public_key:
        signs = PublicKey.from_openssh(standing.public_key).fingerprint
        message = f"evidence.key_file is {key.fingerprint}, and the ledger is signed by {signs}"
        return [Finding(CHECK, "failure", message, OTHER_KEY)]
    return [_of_standing(settings, standing, key)]


async def check_ledger(ledger: Ledger, store: Store) -> Finding | None:
    """Whether the store has the ledger that the database knows, as a sealer asks it before it seals. Reads only, and what is
    sealed meanwhile is no difference. None: it has, or the store cannot be read, which others say.
    """
    publisher = Publisher(store, lambda: None)
    while True:
        head = await ledger.head()
        try:
            if head is None:
                await publisher.check_empty()
            elif head.published < head.size:  # a batch is on its way
                await publisher.check_before(head.published)
            else:
                await publisher.check(head)
        except LedgerRefused as error:
            if await ledger.head() != head:
                continue
            return of_error(f"{CHECK}: store", error)
        except StoreError:
            return None
        return None


def _of_standing(settings: Settings, standing: Standing, key: PublicKey | None) -> Finding:
    by = f"by {key.fingerprint}" if key is not None else "by a key that is not configured here"
    message = f"{standing.sealed:,} entries of {standing.origin} are sealed, {by}; {standing.waiting:,} wait"
    waited = timedelta(seconds=standing.seconds)
    if waited <= max(LATE, 3 * settings.evidence.interval):
        return Finding(CHECK, "ok", message)
    verdict: Literal["warning", "failure"] = "failure" if waited > settings.evidence.patience else "warning"
    hint = (
        "run `archiver seal`: it says what is in the way"
        if key is not None
        else "see why the service that holds the key does not"
    )
    return Finding(CHECK, verdict, f"{message}, the first for {waited.total_seconds() / 3600:.0f} hours", hint)
