"""Commands that change many sessions are stopped between batches, and say what is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from archiver.cli.progress import changed_in_batches
from archiver.errors import DatabaseError
from archiver.postgres.database import Database
from archiver.queue import operators as module
from archiver.queue.operators import Operators
from archiver.queue.sessions import NewSession, Queue

OnBatch = Callable[[Sequence[str]], None]


@pytest.fixture(autouse=True)
async def sessions(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty, in three batches."""
    monkeypatch.setattr(module, "BATCH", 10)
    await queue.enqueue([NewSession("bot", f"s-{number:02}") for number in range(30)], actor="me")


async def cancelled(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'cancelled'"))


async def run(work: Callable[[OnBatch], Coroutine[Any, Any, object]]) -> list[str]:
    return await changed_in_batches(work, doing="cancelled", done="cancelled", quiet=False)


async def test_a_signal_ends_a_command_after_the_batch_at_hand(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    command: asyncio.Task[list[str]]

    async def work(on_batch: OnBatch) -> None:
        def heard(ids: Sequence[str]) -> None:
            on_batch(ids)
            command.cancel()

        await Operators(database).cancel(reason="x", actor="me", on_batch=heard)

    command = asyncio.create_task(run(work))
    with pytest.raises(asyncio.CancelledError):
        await command
    assert await cancelled(database) == 20, "the one that was under way when the signal came is whole"
    assert capsys.readouterr().err == "interrupted: 20 cancelled; the same again goes on with the others\n"
    rest = await run(lambda on_batch: Operators(database).cancel(reason="x", actor="me", on_batch=on_batch))
    assert rest == [f"s-{number}" for number in range(20, 30)]


async def test_an_error_says_what_was_done_before_it(database: Database) -> None:
    async def work(on_batch: OnBatch) -> None:
        def broken(ids: Sequence[str]) -> None:
            on_batch(ids)
            raise DatabaseError("the connection is gone", hint="run it again")

        await Operators(database).cancel(reason="x", actor="me", on_batch=broken)

    with pytest.raises(DatabaseError) as failed:
        await run(work)
    assert failed.value.hint == "10 cancelled before; the same again goes on with the others. run it again"
