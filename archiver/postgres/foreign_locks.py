"""Advisory locks of roles that have no business with them: whoever may log in can take one, and need never give it back."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from archiver.observe.logs import logger

log = logger(__name__)

AnyConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_HOLDER = """
    SELECT a.usename AS role, l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = a.datid AND a.datname = current_database()
      AND (l.classid::bigint << 32) + l.objid::bigint = $1
      AND NOT has_any_column_privilege(a.usesysid, to_regclass('archive_queue'), 'UPDATE')
    LIMIT 1"""
"""Who holds the advisory lock $1 and may not write the queue, so is none of ours."""


async def held_by_foreign_role(connection: AnyConnection, key: int, what: str) -> bool:
    """Whether somebody has this advisory lock who is none of ours; whoever may log in can take it. The log names them."""
    stranger = await connection.fetchrow(_HOLDER, key)
    if stranger is not None:
        log.warning("foreign_lock_found", lock=what, **stranger, hint="look at what it is, and end its connection")
    return stranger is not None
