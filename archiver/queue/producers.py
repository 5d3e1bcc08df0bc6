"""Who enqueues: a role that may change sessions, or one that may only add them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from archiver.postgres.statements import Statement
from archiver.queue.sql import sql


async def enqueue_statement(run: Callable[[Statement], Awaitable[list[Any]]]) -> Statement:
    """The one that adds sessions, for a role that may change them, and for one that may only add."""
    (row,) = await run(sql("enqueue/may_change"))
    return sql("enqueue/sessions" if row["may_change"] else "enqueue/as_producer")
