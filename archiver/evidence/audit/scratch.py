"""The audit's notes: one private SQLite database, in a file that has no name, so that ten million entries need no memory and
nothing is left however the audit ends. It lies in TMPDIR.

Keys of the store are bytes here: UTF-8, and what is none as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from archiver.errors import EvidenceError

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE; PRAGMA cache_size = -32768;
-- What the store has. sort: see listing. bytes: null of what is no file, or is hidden by a delete marker.
CREATE TABLE listing (
    key BLOB PRIMARY KEY, sort INTEGER, bytes INTEGER, modified REAL, versions INTEGER, hidden INTEGER) WITHOUT ROWID;
-- The ledger's own objects, by what their names say.
CREATE TABLE named (
    kind TEXT, number INTEGER, last INTEGER, again INTEGER, key BLOB, PRIMARY KEY (kind, number, last, again)) WITHOUT ROWID;
-- Those that have been checked: what is not here, nobody knows of.
CREATE TABLE checked (key BLOB PRIMARY KEY) WITHOUT ROWID;
-- What is said of sessions, in order: entries at their index, then outbox rows, then the row. name: bot, ID and kind as JSON.
CREATE TABLE steps (
    name BLOB, at INTEGER, event TEXT, state TEXT, files BLOB, pairs INTEGER, queue_id INTEGER, flags INTEGER, digest BLOB,
    fixed BLOB, record BLOB, record_key BLOB, record_bytes INTEGER);
CREATE TABLE files (queue_id INTEGER, key BLOB, bytes INTEGER, sha256 BLOB, name BLOB);
-- due: 0 it need not be there; 1 it has to be. row: the digest of what the database says, where the record has to say the same.
-- prior: the entry of the session before this one. waiting: what never changes, as what waits to be sealed has it; with a
-- queue_id, as the row has it.
CREATE TABLE records (
    seq INTEGER, name BLOB, key BLOB, bytes INTEGER, sha256 BLOB, due INTEGER, suspect INTEGER, queue_id INTEGER, row BLOB,
    waiting BLOB, prior INTEGER);
-- Rows of the outbox, by which the entries that were made of them meanwhile are known.
CREATE TABLE waiting (uid BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE salts (seq INTEGER PRIMARY KEY, name BLOB, hash BLOB);
-- Sessions of which entries are lost, or not here yet: nothing is said of them.
CREATE TABLE untold (queue_id INTEGER PRIMARY KEY);
-- Sessions whose files may be wrong (a person, or verify, entered that), or need not be there yet.
CREATE TABLE marks (queue_id INTEGER PRIMARY KEY, damaged INTEGER, late INTEGER);
-- Files that were not in the list, and in the store when it was asked once more.
CREATE TABLE appeared (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE noted (sha256 BLOB, bytes INTEGER, PRIMARY KEY (bytes, sha256)) WITHOUT ROWID;
-- Entries about sessions whose IDs nobody has any more.
CREATE TABLE unnamed (seq INTEGER PRIMARY KEY);
-- For a database that is rebuilt: the ledger's batches, and the uid of each entry.
CREATE TABLE batches (first INTEGER PRIMARY KEY, last INTEGER, checkpoint BLOB);
CREATE TABLE uids (seq INTEGER PRIMARY KEY, uid BLOB);
-- Folders of sessions that are on their way.
CREATE TABLE pending (prefix BLOB PRIMARY KEY) WITHOUT ROWID;
"""

BATCH = 1000

MAX_NUMBER = 2**62
"""What is greater counts nothing that there is, and SQLite takes it hardly more."""


@contextmanager
def scratch() -> Iterator[Scratch]:
    """Empty ones. Raises EvidenceError where the disk is full, or none can be made."""
    with _translated():
        connection = sqlite3.connect("", isolation_level=None, cached_statements=64)
        try:
            connection.executescript(_TABLES)
            yield Scratch(connection)
        finally:
            connection.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise EvidenceError(
            f"the audit's notes cannot be kept: {error}",
            hint="they take about a kilobyte a session: let TMPDIR name a folder on a disk that has room",
        ) from None


class Scratch:
    """Rows are collected, and written some thousand at a time; `rows` writes first."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, list[Sequence[Any]]] = {}

    def add(self, table: str, *values: Any) -> None:
        """One more row; in a table with keys it takes the place of the one with its key."""
        rows = self._waiting.setdefault(table, [])
        rows.append(values)
        if len(rows) >= BATCH:
            self._write(table)

    def _write(self, table: str) -> None:
        rows = self._waiting.pop(table, None)
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self._connection.execute("BEGIN")
            self._connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({places})", rows)  # noqa: S608
            self._connection.execute("COMMIT")

    def flush(self) -> None:
        """Write what waits."""
        for table in list(self._waiting):
            self._write(table)

    def rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """What a query finds, one by one. Meanwhile others may be run, and rows added to tables that it does not read."""
        self.flush()
        cursor = self._connection.cursor()
        try:
            for row in cursor.execute(query, values):  # noqa: UP028 - `yield from` would close the cursor, which raises then
                yield row
        finally:
            with suppress(sqlite3.ProgrammingError):  # whoever left off may come here when all is closed
                cursor.close()

    def one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row."""
        self.flush()
        return self.look(query, *values)

    def look(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row, of tables to which nothing is being added."""
        found = self._connection.execute(query, values).fetchone()
        return None if found is None else tuple(found)

    def run(self, query: str, *values: Any) -> None:
        """A change."""
        self.flush()
        self._connection.execute(query, values)

    def run_each(self, query: str, values: Iterable[Sequence[Any]]) -> None:
        """The same change for each."""
        self.flush()
        self._connection.execute("BEGIN")
        self._connection.executemany(query, values)
        self._connection.execute("COMMIT")


def key_bytes(key: str) -> bytes:
    """A key of the store as it is kept here."""
    return key.encode("utf-8", "surrogateescape")


def key_text(key: bytes) -> str:
    """And back."""
    return key.decode("utf-8", "surrogateescape")
