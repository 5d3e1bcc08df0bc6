"""Recordings in the store that nobody recorded: their sessions are enqueued, and a worker that stores them again compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from archiver.config.path_template import PathTemplate
from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.listing import ORDINARY
from archiver.evidence.audit.objects import is_record
from archiver.evidence.audit.scratch import key_bytes, key_text
from archiver.evidence.entries import KINDS, is_plain
from archiver.evidence.rebuild.report import Rebuilt
from archiver.queue.rebuilding import Rebuilding, RestoredSession

PAGE = 500


class Strays:
    """Those of a store. `bots` are the configured ones: where keys name none, it is the only one."""

    def __init__(self, audit: Audit, report: Rebuilt, path: PathTemplate, bots: Sequence[str]) -> None:
        self._audit = audit
        self._report = report
        self._path = path
        self._bots = bots

    async def enqueue(self, rebuilding: Rebuilding, *, by: str) -> None:
        """Enqueue the sessions that the keys name, but for those that the database has."""
        for keys in _pages(self._keys(), PAGE):
            found: dict[tuple[str, str, str], dict[str, Any]] = {}
            for key in await rebuilding.unknown_keys(keys):
                if await self._is_noted(key):
                    continue
                columns = self._session_of(key)
                if columns is None:
                    self._report.left_alone += 1
                else:
                    found.setdefault((columns["bot"], columns["session_id"], columns["kind"]), columns)
            if not found:
                continue
            known = await rebuilding.known_sessions(list(found))
            new = [RestoredSession(columns, [], [], []) for n, columns in enumerate(found.values()) if n not in known]
            if new:
                ids, refused = await rebuilding.restore(new, by=by)
                self._report.enqueued += len(ids)
                self._report.left_alone += len(refused)

    def _keys(self) -> Iterator[str]:
        self._audit.scratch.run("CREATE INDEX steps_record ON steps (record_key)")
        rows = self._audit.scratch.rows(
            """SELECT key FROM listing l WHERE sort = ? AND bytes IS NOT NULL AND NOT hidden
               AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.record_key = l.key)""",
            ORDINARY,
        )
        for (raw,) in rows:
            key = key_text(raw)
            if not is_record(key) and key.isprintable():
                yield key

    async def _is_noted(self, key: str) -> bool:
        """Whether a person accepted it as an object of nobody."""
        noted = self._audit.scratch.rows(
            "SELECT n.sha256 FROM noted n JOIN listing l ON l.bytes = n.bytes WHERE l.key = ?", key_bytes(key)
        )
        hashes = {sha256.hex() for (sha256,) in noted}
        found = await self._audit.reader.hash(key) if hashes else None
        return found is not None and found[0] in hashes

    def _session_of(self, key: str) -> dict[str, Any] | None:
        """The columns of the session whose file this is; None if nothing says which."""
        fields = self._path.parse(key)
        if fields is None or is_record(fields.file_name):
            return None
        bot = fields.bot or (self._bots[0] if len(self._bots) == 1 else "")
        if fields.kind not in KINDS or not is_plain(bot, fields.session_id):
            return None
        # Of the same day, so that what is stored again has the same key.
        return {
            "bot": bot,
            "session_id": fields.session_id,
            "kind": fields.kind,
            "state": "pending",
            "archive_date": fields.date.isoformat(),
        }


def _pages(keys: Iterator[str], size: int) -> Iterator[list[str]]:
    page: list[str] = []
    for key in keys:
        page.append(key)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
