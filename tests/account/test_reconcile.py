"""In what an archived session differs from its call, and what of that is fine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.account.reconcile import Account, reconcile
from archiver.config import Settings
from archiver.kore.listings.calls import Call, Span
from archiver.kore.listings.reader import Listing
from archiver.postgres.database import Database
from archiver.runtime.buffers import Buffers
from archiver.stores.open import open_store

pytestmark = pytest.mark.once  # the command, which is `once`, meets all that depends on it

BEGAN = datetime(2026, 3, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)

HELD_AGAINST: dict[str, tuple[str, int | None, list[float | None], str | None, list[str]]] = {
    # kind, seconds of the call, seconds of its files, how its dial ended, mismatches
    "equal": ("recording", 60, [57.5], None, []),
    "two-sides": ("recording", 60, [60, 60], None, []),
    "stopped": ("recording", 60, [30], None, ["shorter_than_call"]),
    "segments": ("recording", 60, [20, 20], None, ["shorter_than_call"]),
    "longer": ("recording", 60, [70], None, ["length"]),
    "message": ("voicemail", 60, [10], None, []),
    "silent": ("recording", 60, [0], None, ["zero_length", "shorter_than_call"]),
    "nothing": ("recording", 0, [0], None, []),
    "short": ("recording", 4, [0], None, []),
    "endless": ("recording", None, [0], None, ["zero_length"]),
    "unknown": ("recording", 60, [None], None, []),
    "dial": ("recording", 0, [25], "no-answer", []),
    "silent-dial": ("recording", 0, [0], "busy", []),
}


async def held(database: Database, settings: Settings, **fields: Any) -> Account:
    """The account of these calls, each archived."""
    listing = Listing(Span(BEGAN, BEGAN + DAY))
    async with database.connection() as connection:
        for name, (kind, length, files, dial, _) in HELD_AGAINST.items():
            call = Call(name, kind, BEGAN, None if length is None else BEGAN + timedelta(seconds=length))
            listing.calls[call.key] = call
            number = await connection.fetchval(
                "INSERT INTO archive_queue (bot, session_id, kind) VALUES ('bot', $1, $2) RETURNING id", name, kind
            )
            await connection.execute(
                "UPDATE archive_queue SET state = 'claimed', worker_id = 1, call = $2 WHERE id = $1",
                number, {} if dial is None else {"unanswered": dial},
            )  # fmt: skip
            await connection.execute(
                "UPDATE archive_queue SET state = 'archived', worker_id = NULL, finished_at = now() WHERE id = $1", number
            )
            for place, seconds in enumerate(files, 1):
                key = f"{name}-{place}.wav"
                (settings.storage.folder / key).write_bytes(b"x")
                await connection.execute(
                    """INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256,
                       source_name, seconds, queue_id) VALUES ('bot', $1, $2, $3, $4, $4, 1, repeat('0', 64), $4, $5, $6)""",
                    name, kind, place, key, seconds, number,
                )  # fmt: skip

    async def stretches() -> AsyncIterator[Listing]:
        yield listing

    account = Account()
    async with open_store(settings.storage, Buffers(settings.transfer.max_buffer)) as store:
        await reconcile(settings.bots[0].model_copy(update=fields), stretches(), database, store, account, actor="me")
    return account


@pytest.fixture(autouse=True)
def folder(settings: Settings) -> None:
    settings.storage.folder.mkdir()


async def test_what_is_shorter_than_its_call_is_told_from_what_is_longer(database: Database, settings: Settings) -> None:
    account = await held(database, settings)
    found = {item.session_id: [each["mismatch"] for each in item.facts["mismatches"]] for item in account.items}
    assert found == {name: wrong for name, (*_, wrong) in HELD_AGAINST.items() if wrong}
    assert (account.counts["mismatched"], account.counts["remarked"], account.complete) == (len(found), 0, False)
    [stopped] = [item for item in account.items if item.session_id == "stopped"]
    assert stopped.reason == "shorter_than_call"
    assert stopped.facts["mismatches"] == [{"mismatch": "shorter_than_call", "call_seconds": 60.0, "recorded_seconds": [30.0]}]


async def test_where_agents_stop_recordings_it_is_a_remark(database: Database, settings: Settings) -> None:
    account = await held(database, settings, shorter_is_fine=True)
    items = {item.session_id: item for item in account.items}
    assert items.keys() == {"stopped", "segments", "longer", "silent", "endless"}
    assert (account.counts["mismatched"], account.counts["remarked"]) == (3, 3)
    assert items["stopped"].facts == {
        "remarks": [{"remark": "shorter_than_call", "call_seconds": 60.0, "recorded_seconds": [30.0]}]
    }
    assert (items["stopped"].reason, items["stopped"].settled) == ("shorter_than_call", True)
    assert [each["mismatch"] for each in items["silent"].facts["mismatches"]] == ["zero_length"]
    assert not items["silent"].settled


async def test_who_may_not_keep_what_was_found_has_the_account_all_the_same(database: Database, settings: Settings) -> None:
    async with database.connection() as connection:
        await connection.execute(
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'you may only read'; END $$;
               CREATE TRIGGER refuse BEFORE INSERT ON archive_findings EXECUTE FUNCTION refuse()"""
        )
    account = await held(database, settings)
    assert account.counts["mismatched"] > 0
