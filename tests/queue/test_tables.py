"""What other programs rely on: they insert with plain SQL, and auditors read with SELECT alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from archiver.outcome import Archived
from archiver.queue.pace import Paces
from archiver.session import Attempt, State
from tests.queue.conftest import QueueHarness, ids, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

INSERT = "INSERT INTO archive_queue (bot, session_id) VALUES ('support-us', '65e7133a3242653c58d70001') ON CONFLICT DO NOTHING"


@pytest.mark.parametrize("conflict", ["DO NOTHING", "(bot, session_id, kind) DO NOTHING"])
async def test_the_statement_of_the_contract_enqueues_once_and_for_all(harness: QueueHarness, conflict: str) -> None:
    worker = await harness.worker("support-us")
    statement = INSERT.replace("DO NOTHING", conflict)
    await harness.fetch(statement)
    (session,) = await harness.claim(worker, 5, "support-us")
    await harness.settle(Attempt(session), Archived())
    before = await harness.row("65e7133a3242653c58d70001")
    await harness.fetch(statement)
    assert await harness.row("65e7133a3242653c58d70001") == before
    assert before["state"] == "archived"


async def test_one_notification_a_statement_and_none_for_what_is_known(harness: QueueHarness) -> None:
    heard: list[str] = []
    end = asyncio.Event()

    def hear(*said: Any) -> None:
        heard.append(said[3])
        if said[3] == "end":
            end.set()

    listener = await asyncpg.connect(harness.database.dsn)
    try:
        await listener.add_listener("archive_queue", hear)
        for statement in (
            INSERT,
            INSERT,
            "INSERT INTO archive_queue (bot, session_id) SELECT 'bot', 's-' || n FROM generate_series(1, 500) n",
            "NOTIFY archive_queue, 'end'",
        ):
            await harness.fetch(statement)
        async with asyncio.timeout(20):
            await end.wait()
    finally:
        await listener.close()
    assert heard == ["", "", "end"]


async def test_a_bot_left_out_is_the_only_configured_one(harness: QueueHarness) -> None:
    await harness.queue.record_bots(["gone", "only"], complete=True)
    await harness.queue.record_bots(["only"], complete=True)
    await harness.add("s-1", bot=None)
    await harness.fetch("INSERT INTO archive_queue (session_id) VALUES ('s-2')")
    assert [(await harness.row(one))["bot"] for one in ("s-1", "s-2")] == ["only", "only"]


@pytest.mark.parametrize(("bots", "hint"), [([], "archiver migrate"), (["b", "a"], "name one of: a, b")])
async def test_a_bot_left_out_without_a_single_configured_one_is_refused_with_a_hint(
    harness: QueueHarness, bots: list[str], hint: str
) -> None:
    await harness.queue.record_bots(bots, complete=True)
    async with harness.database.connection() as connection:
        with pytest.raises(asyncpg.NotNullViolationError) as caught:
            await connection.execute("INSERT INTO archive_queue (session_id) VALUES ('s-1')")
    assert f"{len(bots)} bots are configured" in str(caught.value)
    assert hint in (caught.value.hint or "")


async def test_optional_columns_may_be_null(harness: QueueHarness) -> None:
    optional = dict.fromkeys(["kind", "user_id", "started_at", "priority", "run_at", "metadata"])
    await harness.add("s-1", **optional)
    row = await harness.row("s-1")
    assert (row["kind"], row["priority"], row["metadata"], row["state"]) == ("recording", "normal", {}, "pending")
    assert row["run_at"] == row["enqueued_at"] == row["archive_date"]


async def test_an_insert_cannot_forge_what_the_archiver_writes(harness: QueueHarness) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    forged: dict[str, Any] = {
        "state": "archived", "reason": "forged", "detail": {"a": 1}, "archive_date": past, "enqueued_at": past,
        "claimed_at": past, "first_asked_at": past, "finished_at": past, "worker_id": 7, "epoch": 9, "failures": -5,
        "checks": 3, "crashes": 3, "calls": 3, "files": 3, "recheck_at": past, "rechecks": 3, "recheck_tries": 3,
        "last_asked_at": past, "archived_before": True, "call": {"a": 1}, "listed_at": past,
    }  # fmt: skip
    await harness.add("s-1", **forged)
    row = await harness.row("s-1")
    assert row["state"] == "pending"
    nulls = ("reason", "claimed_at", "first_asked_at", "last_asked_at", "finished_at", "worker_id", "files", "listed_at")
    assert row["recheck_at"] is None
    assert [row[name] for name in nulls] == [None] * len(nulls)
    counters = ("epoch", "failures", "checks", "crashes", "calls", "rechecks", "recheck_tries")
    assert [row[name] for name in counters] == [0] * len(counters)
    assert (row["detail"], row["call"], row["archived_before"]) == ({}, {}, False)
    assert row["enqueued_at"] > past < row["archive_date"]


INVALID = [
    "", "x" * 10_000, "x" * 201, "a\nb", "a\n", "../../etc/passwd", "'; DROP TABLE archive_queue; --", "ä", "\u202e", " s ",
    "".join(chr(0x4E00 + n * 7 % 20_000) for n in range(10_000)),
]  # fmt: skip


async def test_an_invalid_session_id_ends_failed_and_the_others_of_the_batch_go_on(harness: QueueHarness) -> None:
    await harness.add("s-1", *INVALID, "s-2", "A.b_c:d-9")
    assert await harness.states() == {"pending": 3, "failed": len(INVALID)}
    failed = await harness.fetch("SELECT * FROM archive_queue WHERE state = 'failed'")
    assert {row["reason"] for row in failed} == {"invalid_session_id"}
    assert all("A-Z a-z 0-9" in row["detail"]["expected"] and row["finished_at"] for row in failed)
    kept = {row["detail"].get("given", row)["session_id"] for row in failed}
    assert kept == set(INVALID), "what was given is kept whole"
    assert sorted(ids(await harness.claim(await harness.worker()))) == ["A.b_c:d-9", "s-1", "s-2"]


async def test_an_invalid_session_id_is_known_the_second_time_and_found_by_the_text_that_was_given(
    harness: QueueHarness,
) -> None:
    await harness.add(*INVALID)
    await harness.add(*INVALID)
    assert await harness.states() == {"failed": len(INVALID)}
    for one in INVALID:
        assert await harness.history(one) == ["enqueued"]


async def test_a_missing_session_id_does_not_abort_the_batch_either(harness: QueueHarness) -> None:
    await harness.fetch("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', NULL), ('bot', 's-1')")
    assert await harness.states() == {"pending": 1, "failed": 1}
    assert (await harness.row(""))["reason"] == "invalid_session_id"


async def test_two_long_names_that_begin_alike_stay_two(harness: QueueHarness) -> None:
    await harness.add("x" * 500 + "a", "x" * 500 + "b")
    await harness.add("s-1", bot="y" * 500 + "a")
    await harness.add("s-1", bot="y" * 500 + "b")
    assert await harness.states() == {"failed": 2, "pending": 2}


@pytest.mark.parametrize("kind", ["fax", "", "../..", "k" * 5000, "Recording", "re\ncording"])
async def test_a_kind_that_does_not_exist_ends_failed(harness: QueueHarness, kind: str) -> None:
    await harness.add("s-1", kind=kind)
    row = await harness.row("s-1")
    assert (row["state"], row["reason"]) == ("failed", "kind_not_supported")
    assert await harness.operators.retry(ids=None, bot=None, kind=None, states=[State.FAILED], actor="me") == []


@pytest.mark.parametrize("column", ["run_at", "started_at"])
@pytest.mark.parametrize("time", ["infinity", "-infinity", "0001-01-01Z", "4713-01-01 BC", "294276-12-31Z", "1969-12-31Z"])
async def test_a_strange_time_breaks_no_statement(harness: QueueHarness, column: str, time: str) -> None:
    await harness.fetch(f"INSERT INTO archive_queue (bot, session_id, {column}) VALUES ('bot', 's-1', '{time}')")
    await harness.add("s-2")
    row = await harness.fetch("SELECT archive_date, isfinite(run_at) AS finite FROM archive_queue WHERE session_id = 's-1'")
    assert abs(row[0]["archive_date"] - datetime.now(UTC)) < timedelta(minutes=5)
    assert row[0]["finite"]
    start = await harness.queue.clock()
    worker = await harness.worker()
    sleeping = column == "run_at" and time.startswith("294276")
    claimed = await harness.claim(worker)
    assert sorted(ids(claimed)) == (["s-2"] if sleeping else ["s-1", "s-2"])
    for session in claimed:
        await harness.settle(Attempt(session), Archived())
    assert (await harness.queue.backlog(["bot"], start)).workable == sleeping
    assert await harness.claim(worker) == []
    reports = harness.reports
    for report in (reports.count_sessions, reports.count_reasons, reports.recorded_totals, reports.fleet, reports.list_outcomes):
        assert await report() is not None
    assert await reports.list_workers(all_sessions=True)
    assert (await Paces.read(harness.database, [])).whole.calls is not None
    assert await harness.history("s-1") == (["enqueued"] if sleeping else ["enqueued", "claimed", "archived"])


async def test_the_date_of_the_path_is_the_calls_start(harness: QueueHarness) -> None:
    start = datetime(2024, 2, 29, 23, 59, tzinfo=UTC)
    await harness.add("s-1", started_at=start)
    assert (await harness.row("s-1"))["archive_date"] == start


async def test_a_user_with_select_alone_reads_the_views_of_auditors(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session, [stored_file()], calls=1), Archived())
    async with _as_role(harness, "SELECT ON archive_sessions, archived_recordings") as connection:
        row = await connection.fetchrow(
            "SELECT bot, session_id, kind, state, reason, priority, enqueued_at, run_at, finished_at, failures, checks "
            "FROM archive_sessions"
        )
        assert row is not None
        assert (row["session_id"], row["state"]) == ("s-1", "archived")
        file = await connection.fetchrow(
            "SELECT bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type, archived_at "
            "FROM archived_recordings"
        )
        assert file is not None
        assert (file["session_id"], file["bytes"]) == ("s-1", 44)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute("UPDATE archive_sessions SET state = 'failed'")


async def test_a_producer_needs_insert_alone_and_no_search_path(harness: QueueHarness) -> None:
    await harness.queue.record_bots(["bot"], complete=True)
    async with _as_role(harness, "INSERT ON archive_queue") as connection:
        await connection.execute("SET LOCAL search_path = ''")
        await connection.execute("CREATE TEMP TABLE archive_events (queue_id int, event text, epoch int, actor text, data jsonb)")
        await connection.execute("INSERT INTO public.archive_queue (session_id) VALUES ('s-1') ON CONFLICT DO NOTHING")
        await connection.execute("RESET ROLE")
        assert await connection.fetchval("SELECT event FROM public.archive_history") == "enqueued"


@asynccontextmanager
async def _as_role(harness: QueueHarness, grant: str) -> AsyncIterator[Any]:
    """A connection that has these rights alone; afterwards nothing has happened, nor is there the role."""
    async with harness.database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            role = f"role_{await connection.fetchval('SELECT txid_current()')}"
            await connection.execute(f"CREATE ROLE {role}; GRANT {grant} TO {role}; SET LOCAL ROLE {role}")
            yield connection
        finally:
            await transaction.rollback()
