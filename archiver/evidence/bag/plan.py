"""What a bag is to have, written down before anything is copied, so that an export that was ended anywhere goes on as it began.

It lies in `.export/` of the bag's folder, which is there until the bag is whole, and is locked by whoever works on it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from archiver.errors import ArchiverError, UsageError

WORK = ".export"
PAGE = 256
"""Sessions that are worked on at a time: their entries and proofs are in memory."""

FORM = 1

ELSEWHERE = "choose another folder: a bag is never changed, and nothing is overwritten"

_TABLES = """
    CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE sessions (queue_id INTEGER PRIMARY KEY, seq INTEGER, why TEXT, bytes INTEGER NOT NULL, session TEXT NOT NULL);
    CREATE INDEX sessions_seq ON sessions (seq) WHERE why IS NULL;
    CREATE TABLE unknown (session_id TEXT PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True)
class Planned:
    """A session. `seq`: the entry that proves it; `why` it is left out, if it is; `session`: what the database says of it."""

    queue_id: int
    seq: int | None
    why: str | None
    session: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Totals:
    """What is to be exported, and what is not. `bytes`: of its recordings."""

    sessions: int
    bytes: int
    left_out: int
    unknown: int


class Plan:
    """That of one bag, whose lock is held until it is closed."""

    def __init__(self, folder: Path, lock: int, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self.work = folder / WORK
        self._lock = lock
        self._connection = connection

    @classmethod
    def begun(cls, folder: Path) -> Self | None:
        """The one that was begun in this folder; None where the folder is not there, or empty. Raises UsageError for a folder
        that is anything else, a finished bag too; OSError.
        """
        if not os.path.lexists(folder):
            return None
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder", hint="choose another one")
        names = {path.name for path in folder.iterdir()}
        if not names:
            return None
        if WORK not in names or not (folder / WORK).is_dir() or (folder / WORK).is_symlink():
            what = "is a finished bag" if "bagit.txt" in names else "is not empty, and no bag that was begun"
            raise UsageError(f"{folder} {what}", hint=ELSEWHERE)
        if names == {WORK} and not any((folder / WORK).iterdir()):
            return None
        return cls._open(folder)

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Begin one in a folder that is not there, or empty. Raises OSError, UsageError."""
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        (folder / WORK).mkdir(mode=0o700, exist_ok=True)
        plan = cls._open(folder)
        # Another export may have come and gone since somebody looked.
        if (begun := plan.about("planned") is not None) or {path.name for path in folder.iterdir()} != {WORK}:
            if not begun:
                plan.remove()
            plan.close()
            raise UsageError(f"another export was at work in {folder}", hint="choose another folder")
        return plan

    @classmethod
    def _open(cls, folder: Path) -> Self:
        lock = os.open(folder / WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UsageError(f"another export is at work in {folder}", hint="wait for it, or choose another folder") from None
        try:
            with _sqlite(folder):
                connection = sqlite3.connect(folder / WORK / "plan.sqlite", isolation_level=None)
                connection.execute("PRAGMA synchronous = FULL")
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
                    connection.execute("BEGIN")  # until all is planned: one that was ended before that has no tables
                    for statement in _TABLES.split(";"):
                        connection.execute(statement)
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, lock, connection)

    def close(self) -> None:
        """Let go of it. What was not planned to its end is forgotten."""
        self._connection.close()
        os.close(self._lock)

    def about(self, name: str) -> str | None:
        """A fact of the bag; None for all of a plan that never came to its end."""
        with _sqlite(self.folder):
            found = self._connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def set(self, name: str, value: str) -> None:
        """Write down a fact, durably."""
        with _sqlite(self.folder):
            self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def add(self, planned: Planned, size: int) -> None:
        """One session more; one that is there already, counts once."""
        row = (planned.queue_id, planned.seq, planned.why, size, json.dumps(planned.session))
        with _sqlite(self.folder):
            self._connection.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, ?)", row)

    def add_unknown(self, session_id: str) -> None:
        """An ID that was asked for, and that no session has."""
        with _sqlite(self.folder):
            self._connection.execute("INSERT OR IGNORE INTO unknown VALUES (?)", (session_id,))

    def end(self) -> None:
        """All is planned."""
        with _sqlite(self.folder):
            self._connection.execute("COMMIT")

    def totals(self) -> Totals:
        """How much it is."""
        with _sqlite(self.folder):
            row = self._connection.execute(
                "SELECT count(*) FILTER (WHERE why IS NULL), coalesce(sum(bytes) FILTER (WHERE why IS NULL), 0), "
                "count(*) FILTER (WHERE why IS NOT NULL), (SELECT count(*) FROM unknown) FROM sessions"
            ).fetchone()
        return Totals(*row)

    def pages(self) -> Iterator[list[Planned]]:
        """What is to be exported, in the order of the ledger."""
        after = -1
        while True:
            with _sqlite(self.folder):
                rows = self._connection.execute(
                    "SELECT queue_id, seq, why, session FROM sessions WHERE why IS NULL AND seq > ? ORDER BY seq LIMIT ?",
                    (after, PAGE),
                ).fetchall()
            if not rows:
                return
            yield [Planned(queue_id, seq, why, json.loads(session)) for queue_id, seq, why, session in rows]
            after = rows[-1][1]

    def left_out(self) -> Iterator[Planned]:
        """The others."""
        after = -1
        while True:
            with _sqlite(self.folder):
                rows = self._connection.execute(
                    "SELECT queue_id, seq, why, session FROM sessions WHERE why IS NOT NULL AND queue_id > ? "
                    "ORDER BY queue_id LIMIT ?",
                    (after, PAGE),
                ).fetchall()
            if not rows:
                return
            for queue_id, seq, why, session in rows:
                yield Planned(queue_id, seq, why, json.loads(session))
            after = rows[-1][0]

    def unknown(self) -> Iterator[str]:
        """IDs that no session has, in order."""
        after = ""
        while True:
            with _sqlite(self.folder):
                rows = self._connection.execute(
                    "SELECT session_id FROM unknown WHERE session_id > ? ORDER BY session_id LIMIT ?", (after, PAGE)
                ).fetchall()
            if not rows:
                return
            yield from (row[0] for row in rows)
            after = rows[-1][0]

    def remove(self) -> None:
        """The bag is whole: nothing of this is needed any more."""
        self._connection.close()
        shutil.rmtree(self.work)


class _sqlite:  # noqa: N801  # used as a function
    """SQLite's errors as ours: the disk, or a file that is not what we wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise ArchiverError(
                f"{self._folder / WORK}: {error}",
                hint="free disk space, or look after the folder; where its plan is damaged, export into another one",
            ) from None
