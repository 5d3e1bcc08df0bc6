"""What a repair comes to, file by file, and the means that repairs have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, Literal

from archiver.archive.context import Archive, BotAccess
from archiver.archive.transfer import Target
from archiver.errors import ArchiverError, StoreError
from archiver.outcome import classify
from archiver.queue.findings import Findings
from archiver.queue.repairs import NOBODY, Damaged, Repairs
from archiver.queue.reports import SessionFile
from archiver.session import Session, part_name

Outcome = Literal[
    "repaired",
    "not_repaired",
    "left_alone",
    "refused",
    "would_ask",
    "would_take",
    "would_look",
    "archived",
]
"""`not_repaired`: the loss stays, for `reason`. `left_alone`: the session is somebody else's for now. `refused`: a body in
quarantine is no recording today either. `would_...`: what a dry run says. `archived`: a session that has all its files now.
"""

MAX_BESIDE = 20
"""Keys beside a file's own that are tried."""

MAX_KEY, MAX_NAME = 1024, 255
"""Bytes that any store takes."""

LEFT_FOR = timedelta(days=1)
"""Parts of uploads in a bucket that are older than that are nobody's any more."""


@dataclass(frozen=True)
class Mended:
    """What became of one file, or of one session where `store_key` is empty. `from_key`: where it is not what was recorded, or
    where it was kept.
    """

    bot: str
    session_id: str
    kind: str
    store_key: str
    from_key: str
    outcome: Outcome
    source: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Means:
    """With what is repaired. `bots`: those that can be asked."""

    archive: Archive
    bots: Mapping[str, BotAccess]
    repairs: Repairs
    findings: Findings
    actor: str
    dry_run: bool = False


def mended(of: Damaged, outcome: Outcome, *, store_key: str = "", from_key: str = "", **facts: Any) -> Mended:
    """One of this session."""
    session = of.session
    return Mended(session.bot, session.session_id, session.kind, store_key, from_key or store_key, outcome, **facts)


def because(error: ArchiverError) -> dict[str, str]:
    """Reason and message of what came in the way, as a worker's attempt would have it."""
    return {"reason": str(getattr(classify(error), "reason", "")), "message": error.message}


def beside(archive: Archive, key: str, number: int) -> str:
    """The key of a repaired file: `NAME.repaired.EXT`, further ones `NAME.repaired~2.EXT`."""
    folder, slash, name = key.rpartition("/")
    suffix = PurePosixPath(name).suffix
    stem = re.sub(r"\.repaired(?:~\d+)?\Z", "", name.removesuffix(suffix) if suffix else name)
    end = f".repaired{f'~{number}' if number > 1 else ''}{suffix}"
    longest = min(archive.longest_name or MAX_NAME, MAX_NAME, MAX_KEY - len((folder + slash).encode()))
    return folder + slash + stem.encode()[: longest - len(end.encode())].decode("utf-8", "ignore") + end


def _part_of(session: Session) -> str:
    """One repair runs at a time: its temporary files need no claim's epoch, and are found whatever came since."""
    return part_name(session.id, NOBODY, 0)


async def discard_left(archive: Archive, session: Session, key: str) -> None:
    """Remove what a repair that was killed left of its way to a key of this session."""
    with suppress(StoreError):
        await archive.store.discard(key, part=_part_of(session), left_for=LEFT_FOR)


async def target_of(archive: Archive, session: Session, key: str, name: str, recorded: SessionFile | None = None) -> Target:
    """Where a repaired file goes; one that is `recorded` has to be what is. Nothing that is refused is kept: it is still where it
    came from. What a repair that was killed left of it is removed.
    """
    terms = archive.target(session, name, 0)
    await discard_left(archive, session, key)
    limit, sha256 = archive.terms.max_recording, None
    if recorded is not None:  # not a byte more is had than was recorded
        limit, sha256 = recorded.bytes, recorded.sha256
    return replace(
        terms,
        key=key,
        part=_part_of(session),
        quarantine=None,
        keep_rejected=False,
        limit=limit,
        limited_by="transfer.max_recording",
        sha256=sha256,
    )
