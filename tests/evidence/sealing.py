"""Archives that seal: a real database, a folder, a key; sessions settled as a worker settles them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from archiver.config import EvidenceSettings
from archiver.config.path_template import PathTemplate
from archiver.evidence.checkpoints import Checkpoint
from archiver.evidence.keys import SealingKey
from archiver.evidence.merkle import Frontier, leaf_hash
from archiver.evidence.sealer import Sealer, Terms
from archiver.outcome import Archived, Outcome
from archiver.postgres.database import Database
from archiver.queue.ledger import Ledger
from archiver.queue.sessions import Queue
from archiver.runtime.buffers import Buffers
from archiver.session import Attempt, Session, State, StoredFile
from archiver.stores import Store
from archiver.stores.local.store import LocalStore
from tests.conftest import RETRY
from tests.queue.conftest import QueueHarness

PATH = PathTemplate("bot={bot}/date={date:%Y-%m-%d}/{session_id}/{kind}/{file_name}")


class SealedArchive(QueueHarness):
    """A queue whose sessions end in a store, and a sealer. `objects` is what the store has, for a folder."""

    def __init__(self, database: Database, queue: Queue, store: Store, root: Path, evidence: EvidenceSettings) -> None:
        super().__init__(database, queue)
        self.store = store
        self.root = root
        self.evidence = evidence
        self.ledger = Ledger(database)
        self.sealer = self.another_sealer()

    def another_sealer(self, store: Store | None = None, lease: timedelta = timedelta(seconds=5), **changed: Any) -> Sealer:
        """One more, such as of another worker."""
        evidence = self.evidence.model_copy(update=changed)
        return Sealer(self.ledger, store or self.store, Terms(evidence, PATH, lease))

    async def begin(self) -> None:
        """Begin the ledger: what ends from now on is sealed."""
        await self.sealer.begin()

    async def claimed(self, session_id: str, **columns: Any) -> Session:
        """A session that a worker has; added if need be."""
        await self.add(session_id, **columns)
        sessions = await self.claim(await self.worker())
        (session,) = [each for each in sessions if each.session_id == session_id]
        return session

    async def put(self, session: Session, ordinal: int, name: str, content: bytes) -> StoredFile:
        """Keep a file of a session in the store."""
        key = PATH.render(
            bot=session.bot, date=session.archive_date, session_id=session.session_id, kind=session.kind, file_name=name
        )
        async with self.store.upload(key, part=session.part_name) as upload:
            await upload.write(content)
            saved = await upload.save()
        return StoredFile(ordinal, name, name, key, saved.bytes, saved.sha256, "audio/wav", ("streamed_wav",), 1.5)

    async def end(
        self, session_id: str, outcome: Outcome | None = None, files: Mapping[str, bytes] | None = None, **columns: Any
    ) -> State:
        """A session from its claim to its end; a file called transcriptions.json has place 0."""
        session = await self.claimed(session_id, **columns)
        attempt = Attempt(session, calls=1)
        attempt.note("asked", http_status=200, status="available", answer={"url": "https://media.example/a.wav?Signature=secret"})
        place = 0
        for name, content in (files or {}).items():
            place += name != "transcriptions.json"
            attempt.stored.append(await self.put(session, 0 if name == "transcriptions.json" else place, name, content))
        return await self.settle(attempt, outcome or Archived())

    async def retry(self, *ids: str) -> None:
        """Bring sessions back, as an operator does."""
        assert await self.operators.retry(actor="ana@desk", ids=list(ids), states=tuple(State)) == list(ids)

    def lines(self) -> list[dict[str, Any]]:
        """Every entry that the store has, in order."""
        segments = sorted((self.root / "evidence/ledger").glob("*.jsonl"))
        return [json.loads(line) for segment in segments for line in segment.read_bytes().split(b"\n")[:-1]]

    def record(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The record that an entry names."""
        content = (self.root / entry["record_key"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["record"]
        document = json.loads(content)
        assert isinstance(document, dict)
        return document

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """What the folder has, by key."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted((self.root / folder).rglob("*"))
            if path.is_file()
        }


@asynccontextmanager
async def sealed_archive(url: str, folder: Path, store: Store | None = None, **evidence: Any) -> AsyncIterator[SealedArchive]:
    """One in this database, with the store in `folder/store` and the key in `folder/evidence.key`, made if they are not there."""
    key = folder / "evidence.key"
    if not key.exists():
        SealingKey.make(key, "test")
    settings = EvidenceSettings.model_validate({"key_file": key, "origin": "archive.example/calls", **evidence})
    local = LocalStore(folder / "store", Buffers(64 * 2**20))
    try:
        async with Database(url, pool_size=8) as database:
            yield SealedArchive(database, Queue(database, RETRY), store or local, folder / "store", settings)
    finally:
        local.close()


@asynccontextmanager
async def copied_database(url: str) -> AsyncIterator[str]:
    """A copy of a database as it is now, for as long as this; nobody may be connected to it."""
    base, _, source = url.rpartition("/")
    name = f"copy_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(f"{base}/template1")
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy")
        yield f"{base}/{name}"
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


class PowerCut(Exception):
    """What ends a sealer that a test stops."""


class StopsAfter:
    """A store that takes so many objects; then everything ends. `save_last`: the one after that is stored, and not told of."""

    def __init__(self, store: Store, objects: int, *, save_last: bool = False) -> None:
        self._store = store
        self._left = objects
        self._save_last = save_last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[Any]:
        self._left -= 1
        if self._left < 0 and not (self._save_last and self._left == -1):
            raise PowerCut(key)
        async with self._store.upload(key, part=part, movable=movable) as upload:
            yield upload
        if self._left < 0:
            raise PowerCut(key)


def check_chain(root: Path, origin: str = "archive.example/calls") -> list[dict[str, Any]]:
    """The entries of a folder's ledger, which is one history: segments without gaps, each with its claim, and under a checkpoint
    that has its root; no entry twice.
    """
    assert not list(root.rglob("*.part"))
    frontier, entries, folder = Frontier(), [], root / "evidence"
    for segment in sorted((folder / "ledger").iterdir()):
        first, last = map(int, segment.name.removesuffix(".jsonl").split("-"))
        lines = segment.read_bytes().split(b"\n")
        assert lines.pop() == b""
        assert (first, len(lines)) == (frontier.size, last - first + 1)
        for line in lines:
            frontier.append(leaf_hash(line))
            entries.append(json.loads(line))
        checkpoint = (folder / f"checkpoint/{frontier.size:012}").read_bytes()
        assert checkpoint.startswith(Checkpoint(origin, frontier.size, frontier.root()).text)
        assert checkpoint == (folder / f"claim/{first:012}").read_bytes()
    uids = [entry["uid"] for entry in entries]
    assert len(uids) == len(set(uids))
    for entry in entries:
        if "record" in entry:
            beside, aside = root / entry["record_key"], folder / f"record/{entry['record']}.json"
            kept = [path.read_bytes() for path in (beside, aside) if path.exists()]
            assert entry["record"] in [hashlib.sha256(content).hexdigest() for content in kept]
    return entries
