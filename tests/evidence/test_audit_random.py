"""A thousand edits of a sealed archive, of any kind: with --deep none passes. A hundred of them always, all with `thorough`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.evidence.audited import TABLES, Copy

pytestmark = pytest.mark.once

CHUNK = 25

SESSION_COLUMNS = {
    "state": "'cancelled'",
    "reason": "'{n}'",
    "detail": "'{{\"n\": {n}}}'",
    "user_id": "'{n}'",
    "priority": "'{n}'",
    "metadata": "'{{\"n\": {n}}}'",
    "call": "'{{\"n\": {n}}}'",
    "accepted_by": "'{n}'",
    "accept_reason": "'{n}'",
    "session_id": "'{n}'",
    "bot": "'{n}'",
    "kind": "'{n}'",
} | dict.fromkeys(
    ("started_at", "ended_at", "listed_at", "archive_date", "enqueued_at", "finished_at", "accepted_at"),
    "'2001-01-01'::timestamptz + {n} * interval '1 ms'",
)
FILE_COLUMNS = {
    "ordinal": "{n} + 10",
    "source_name": "'{n}'",
    "file_name": "'{n}'",
    "store_key": "'x/{n}'",
    "bytes": "{n} + 1000",
    "sha256": "encode(sha256('{n}'), 'hex')",
    "media_type": "'{n}'",
    "flags": "'{{n{n}}}'",
    "seconds": "{n} + 10",
    "sample_rate": "{n} + 10",
    "channels": "{n} + 10",
    "archived_at": "'2001-01-01'::timestamptz + {n} * interval '1 ms'",
    "session_id": "'{n}'",
    "bot": "'{n}'",
}
ENDED = "q.state IN ('archived', 'unavailable', 'failed', 'cancelled') AND q.session_id NOT LIKE '+%'"


OPEN = {"s-back", "s-slow", "s-waiting"}


class Edits:
    """Makes random ones. Each returns what it did, for people."""

    def __init__(self, copy: Copy, seed: int) -> None:
        self.copy = copy
        self.random = random.Random(seed)
        self.number = seed % 1000

    async def make(self) -> str:
        """One of them."""
        edits: list[tuple[int, Callable[[], Awaitable[str]]]] = [
            (6, self.a_file), (2, self.lines), (1, self.newest_gone), (1, self.planted), (6, self.a_column),
            (2, self.a_file_column),
            (2, self.a_row_gone), (1, self.a_row_more), (3, self.sealed), (1, self.older),
        ]  # fmt: skip
        (edit,) = self.random.choices([edit for _, edit in edits], [weight for weight, _ in edits])
        return f"{edit.__name__}: {await edit()}"

    def files(self, below: str = "") -> list[Path]:
        """All that the ledger says something of."""
        found = sorted(path for path in (self.copy.root / below).rglob("*") if path.is_file())
        return [path for path in found if path.parent != self.copy.root and "quarantine" not in path.parts]

    async def a_file(self) -> str:
        folder = self.random.choice(["bot=bot", "evidence", "evidence/checkpoint", "evidence/keys"])
        path = self.random.choice(self.files(folder))
        content = bytearray(path.read_bytes())
        how = self.random.choice(["flipped", "cut", "longer", "gone", "swapped"])
        match how:
            case "flipped":
                at = self.random.randrange(len(content))
                content[at] ^= 1 << self.random.randrange(8)
                path.write_bytes(content)
            case "cut":
                path.write_bytes(content[: self.random.randrange(len(content))])
            case "longer":
                path.write_bytes(content + self.random.choice([b"\n", b"\0", b" ", bytes(content)]))
            case "gone":
                path.unlink()
            case _:
                other = self.random.choice([each for each in self.files() if each.read_bytes() != content])
                path.write_bytes(other.read_bytes())
                other.write_bytes(content)
                how += f" with {other}"
        return f"{path} {how}"

    async def lines(self) -> str:
        path = self.random.choice([path for path in self.files("evidence/ledger") if path.read_bytes().count(b"\n") > 1])
        lines = path.read_bytes().splitlines(keepends=True)
        at = self.random.randrange(len(lines))
        how = self.random.choice(["dropped", "doubled", "swapped", "emptied"])
        match how:
            case "dropped":
                del lines[at]
            case "doubled":
                lines.insert(at, lines[at])
            case "swapped":
                lines[at - 1], lines[at] = lines[at], lines[at - 1]
            case _:
                lines[at] = b"\n"
        path.write_bytes(b"".join(lines))
        return f"line {at} of {path} {how}"

    async def newest_gone(self) -> str:
        checkpoints = sorted(path for path in self.files("evidence/checkpoint") if not path.suffix)
        count = self.random.randrange(1, len(checkpoints) + 1)
        evidence = self.copy.root / "evidence"
        for checkpoint in checkpoints[-count:]:
            (segment,) = evidence.glob(f"ledger/*-{int(checkpoint.name) - 1:012}.jsonl")
            for path in (checkpoint, checkpoint.with_suffix(".sig"), segment, evidence / "claim" / segment.name.split("-")[0]):
                path.unlink()
        return f"{count} batches"

    async def planted(self) -> str:
        # Beside a session that is on its way anything may still become a recording.
        folder = self.random.choice([path.parent for path in self.files() if not OPEN & set(path.parts)])
        name = self.random.choice(
            ["b.wav", "session.json", "session.9.json", "000000000003", "x", "é", "a b", "\udcff", "000000000016"]
        )
        if (folder / name).exists():
            name = "x" + name
        (folder / name).write_bytes(b"planted")
        return str(folder / name).encode(errors="replace").decode()

    async def a_column(self) -> str:
        column = self.random.choice(list(SESSION_COLUMNS))
        return await self._set("archive_queue", SESSION_COLUMNS, column, f"SELECT q.ctid FROM archive_queue q WHERE {ENDED}")

    async def a_file_column(self) -> str:
        column = self.random.choice(list(FILE_COLUMNS))
        rows = f"SELECT r.ctid FROM archived_recordings r JOIN archive_queue q ON q.id = r.queue_id WHERE {ENDED}"
        return await self._set("archived_recordings", FILE_COLUMNS, column, rows)

    async def _set(self, table: str, columns: dict[str, str], column: str, rows: str) -> str:
        value = columns[column].format(n=self.number)
        found = await self.copy.archive.fetch(
            f"{rows} AND {column} IS DISTINCT FROM {value}".replace(" AND bot", " AND q.bot")
            .replace(" AND session_id IS", " AND q.session_id IS")
            .replace(" AND kind", " AND q.kind")
        )
        place = self.random.choice([row["ctid"] for row in found])
        await self.copy.sql(f"UPDATE {table} SET {column} = {value} WHERE ctid = $1::tid", place)
        return f"{table}.{column} = {value} of {place}"

    async def _some_session(self, where: str = "true") -> tuple[int, str]:
        found = await self.copy.archive.fetch(
            f"SELECT q.id, q.session_id FROM archive_queue q WHERE {ENDED} AND {where} ORDER BY id"
        )
        row = self.random.choice(found)
        return row["id"], row["session_id"]

    async def a_row_gone(self) -> str:
        """With its files, and perhaps its record."""
        session, name = await self._some_session("EXISTS (SELECT FROM archived_recordings r WHERE r.queue_id = q.id)")
        rows = await self.copy.archive.fetch("SELECT store_key FROM archived_recordings WHERE queue_id = $1", session)
        everything = self.random.random() < 0.5
        if everything:
            await self.copy.sql("DELETE FROM archive_queue WHERE id = $1", session)
        await self.copy.sql("DELETE FROM archived_recordings WHERE queue_id = $1", session)
        for row in rows:
            path = self.copy.root / row["store_key"]
            path.unlink()
            if self.random.random() < 0.5:
                for record in path.parent.glob("session*.json"):
                    record.unlink()
        return f"{name}, {'all of it' if everything else 'its files'}"

    async def a_row_more(self) -> str:
        await self.copy.sql(
            "INSERT INTO archive_queue (bot, session_id, state, reason, finished_at) VALUES ('bot', $1, 'failed', 'x', now())",
            f"s-more-{self.number}",
        )
        return "one more"

    async def sealed(self) -> str:
        """An edit that the real sealer seals."""
        archive, how = (
            self.copy.archive,
            self.random.choice(["another file", "a file less", "another state", "what never changes"]),
        )
        event = self.random.choice(["settled", "described", "accepted", "repaired", "adopted", "unaccepted", "damaged"])
        session, name = await self._some_session(
            "EXISTS (SELECT FROM archived_recordings r WHERE r.queue_id = q.id AND ordinal > 0)"
        )
        (row, *_) = await archive.fetch(
            "SELECT store_key, ctid FROM archived_recordings WHERE queue_id = $1 AND ordinal > 0 ORDER BY ordinal", session
        )
        path = self.copy.root / row["store_key"]
        match how:
            case "another file":
                content = path.read_bytes()[::-1] + b"!"
                path.write_bytes(content)
                await self.copy.sql(
                    "UPDATE archived_recordings SET sha256 = $2, bytes = $3 WHERE ctid = $1::tid",
                    row["ctid"], hashlib.sha256(content).hexdigest(), len(content),
                )  # fmt: skip
            case "a file less":
                path.unlink()
                await self.copy.sql("DELETE FROM archived_recordings WHERE ctid = $1::tid", row["ctid"])
            case "another state":
                event = "settled"
                await self.copy.sql("UPDATE archive_queue SET state = 'cancelled', reason = 'x' WHERE id = $1", session)
            case _:
                column, value = self.random.choice(
                    [("metadata", "'{\"n\": 7}'"), ("enqueued_at", "'2001-01-01'"), ("archive_date", "'2001-01-01'")]
                )
                await self.copy.sql(f"UPDATE archive_queue SET {column} = {value} WHERE id = $1", session)
        await self.copy.sql(
            """INSERT INTO archive_ledger_outbox (event, queue_id, body)
               SELECT $2, q.id, archive_ledger_body(q, (SELECT jsonb_agg(archive_ledger_file(r) ORDER BY r.ordinal, r.store_key)
                                                       FROM archived_recordings r WHERE r.queue_id = q.id), 'worker')
               FROM archive_queue q WHERE q.id = $1""",
            session, event,
        )  # fmt: skip
        if self.random.random() < 0.8:
            await archive.sealer.finish()
        return f"{how} of {name}, as {event}"

    async def older(self) -> str:
        """The database as it was earlier, whole or in part."""
        tables = self.random.choice([TABLES, TABLES[:2]])
        await self.copy.put_tables("earlier", tables)
        return ", ".join(tables)


async def edited(copy: Copy, first: int) -> None:
    """Edits with seeds from `first` on, each by itself."""
    passed = []
    for seed in range(first, first + CHUNK):
        edit = await Edits(copy, seed).make()
        if not await copy.found():
            passed.append(f"seed {seed}: {edit}")
        await copy.restore()
    assert passed == []
    assert await copy.found() == set()


@pytest.mark.parametrize("first", range(0, 100, CHUNK))
async def test_no_edit_passes(copy: Copy, first: int) -> None:
    await edited(copy, first)


@pytest.mark.thorough
@pytest.mark.parametrize("first", range(1000, 2000, CHUNK))
async def test_none_of_a_thousand_edits_passes(copy: Copy, first: int) -> None:
    await edited(copy, first)
