"""Whose store it is: what a database and a marker say together, whatever somebody put there."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from archiver.archive.store_identity import Marker, Standing, adopt, claim_store, mixes, recognise
from archiver.errors import WrongStore
from archiver.postgres.database import Database
from archiver.queue.identity import Identities
from archiver.queue.sessions import NewSession, Queue
from archiver.runtime.buffers import Buffers
from archiver.stores import MARKER, MAX_MARKER
from tests.stores.memory import MemoryStore

URL = "file:///store"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(Buffers(2**26))


async def test_an_empty_store_is_marked_once(database: Database, store: MemoryStore) -> None:
    identities = Identities(database)
    assert (await recognise(identities, store, URL)).standing is Standing.FRESH
    found = await asyncio.gather(*(claim_store(database, store, URL, adopt_known=False) for _ in range(5)))
    assert sorted(each.changed for each in found) == ["", "", "", "", "store_marked"]
    assert {each.standing for each in found} == {Standing.OWN}
    identity = await identities.read()
    assert Marker.parse(store.objects[MARKER]) == Marker(identity.archive_id, identity.created_at)
    assert (identity.url, identity.marked_at is not None) == (URL, True)


async def test_one_that_may_not_be_listed_is_not_taken_for_empty(database: Database, store: MemoryStore) -> None:
    async def refused() -> bool:
        raise WrongStore("no right to list")

    store.empty = refused  # type: ignore[method-assign]
    assert (await claim_store(database, store, URL, adopt_known=True)).marker is None
    assert store.objects == {}


async def test_a_marker_that_was_there_and_is_gone_is_missed(database: Database, store: MemoryStore) -> None:
    await claim_store(database, store, URL, adopt_known=False)
    del store.objects[MARKER]
    with pytest.raises(WrongStore, match=f"has no {MARKER}.*last at {URL}"):
        await claim_store(database, store, "file:///other", adopt_known=True)
    assert store.objects == {}


async def test_another_archives_marker_is_taken_by_a_database_without_sessions_alone(
    database: Database, queue: Queue, store: MemoryStore
) -> None:
    identity = await Identities(database).read()
    theirs = Marker(uuid4(), identity.created_at)
    store.objects[MARKER] = theirs.content
    assert (await claim_store(database, store, URL, adopt_known=False)).changed == "identity_taken"
    assert (await Identities(database).read()).archive_id == theirs.archive_id
    store.objects[MARKER] = Marker(uuid4(), identity.created_at).content
    with pytest.raises(WrongStore, match="is the store of archive"):  # it has a store by now
        await claim_store(database, store, URL, adopt_known=False)
    await queue.enqueue([NewSession("bot", "s-1")], actor="test")
    store.objects[MARKER] = Marker(uuid4(), identity.created_at).content
    with pytest.raises(WrongStore, match="is the store of archive"):
        await claim_store(database, store, URL, adopt_known=True)


async def test_a_second_store_is_adopted_on_purpose_alone(database: Database, store: MemoryStore) -> None:
    """Without recordings there is nothing by which it could be recognised."""
    await claim_store(database, store, URL, adopt_known=False)
    second = MemoryStore(Buffers(2**26))
    with pytest.raises(WrongStore, match="no recordings yet") as caught:
        await adopt(database, second, "file:///second")
    assert "adopt --force" in caught.value.hint
    assert second.objects == {}
    await adopt(database, second, "file:///second", force=True)
    assert second.objects == store.objects


async def test_no_force_makes_two_archives_share_a_store(database: Database, queue: Queue, store: MemoryStore) -> None:
    await queue.enqueue([NewSession("bot", "s-1")], actor="test")
    theirs = Marker(uuid4(), (await Identities(database).read()).created_at)
    store.objects[MARKER] = theirs.content
    with pytest.raises(WrongStore, match="is the store of archive") as caught:
        await adopt(database, store, URL, force=True)
    assert "adopt" not in caught.value.hint


async def test_nothing_is_adopted_under_living_workers(database: Database, queue: Queue, store: MemoryStore) -> None:
    await queue.start_worker(host="h", pid=1, version="v", lease=timedelta(hours=1), bots=["bot"], store="file:///theirs")
    with pytest.raises(WrongStore, match="is at work, and stores into file:///theirs"):
        await adopt(database, store, URL, force=True)
    assert store.objects == {}
    await adopt(database, store, "file:///theirs")
    assert set(store.objects) == {MARKER}, "a worker that stores there has its store marked, and works on"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"null",
        b"\xff" * 100,
        b"[" * 4000,
        b" " * (MAX_MARKER + 1),
        b'{"archive": "x", "created_at": "2026-01-01"}',
        b'{"archive": "356ffea9-0000-4000-8000-000000000000", "created_at": "0001-01-01T00:00:00+14:00"}',
        b'{"archive": "356ffea9-0000-4000-8000-000000000000", "created_at": "2026-01-01"}' + b" " * MAX_MARKER,
    ],
)
async def test_what_the_archiver_did_not_write_is_no_marker(database: Database, store: MemoryStore, content: bytes) -> None:
    store.objects[MARKER] = content
    with pytest.raises(WrongStore, match="not what the archiver writes") as caught:
        await claim_store(database, store, URL, adopt_known=True)
    assert "store adopt" in caught.value.hint


@pytest.mark.parametrize(
    ("one", "other", "mixed"),
    [
        ("file:///a", "file:///b", False),
        ("file:///a", "s3://bucket", True),
        ("s3://bucket/a", "az://bucket/a", True),
        ("s3://bucket/a", "s3://bucket/b", True),
        ("s3://bucket/a", "s3://bucket/a/", False),
    ],
)
def test_which_stores_mix(one: str, other: str, mixed: bool) -> None:
    assert mixes(one, other) is mixes(other, one) is mixed
