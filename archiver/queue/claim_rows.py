"""What a claim asks for, statement by statement, and the sessions that its rows hold."""

from __future__ import annotations

import random
from collections.abc import Sequence

import asyncpg

from archiver.session import KnownFile, Session, source_name

SESSIONS, RECHECKS = "claim/sessions", "claim/rechecks"
"""The statements that claim."""

RECHECK_EVERY = 8
"""Of so many claims of a bot about one is a recheck, while other work of it is due."""


def plan_turns(share: int, *, recheck_due: bool) -> list[tuple[str, int]]:
    """Which statement claims how many of `share`, in order: at a place at random, so that no budget is too short for it, one
    recheck.
    """
    before = random.randrange(RECHECK_EVERY)  # noqa: S311  # a lot, no secret
    if not recheck_due or before >= share:
        return [(SESSIONS, share)]
    turns = [(SESSIONS, before), (RECHECKS, 1), (SESSIONS, share - before - 1)]
    return [(statement, count) for statement, count in turns if count]


def read_sessions(rows: Sequence[asyncpg.Record], worker_id: int, *, recheck: bool) -> list[Session]:
    """The sessions that a statement claimed."""
    return [
        Session(
            id=row["id"],
            epoch=row["epoch"],
            worker_id=worker_id,
            bot=row["bot"],
            session_id=row["session_id"],
            kind=row["kind"],
            user_id=row["user_id"],
            archive_date=row["archive_date"],
            began_at=row["began_at"],
            unanswered=row["unanswered"],
            unavailable_since=row["unavailable_since"],
            claimed_at=row["claimed_at"],
            failures=row["failures"],
            checks=row["checks"],
            crashes=row["crashes"],
            put_back_for=row["put_back_for"],
            # Rows of earlier versions have names as they came.
            known=tuple(KnownFile(**known | {"source_name": source_name(known["source_name"])}) for known in row["stored"]),
            probe=row["probe"],
            recheck=recheck,
        )
        for row in rows
        if row["id"] is not None
    ]
