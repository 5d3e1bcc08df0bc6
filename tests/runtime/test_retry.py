"""Short retries: three tries, none begun after ten seconds, nobody else's exceptions touched."""

from __future__ import annotations

import asyncio

import backoff
import pytest

from archiver.runtime import retry
from archiver.runtime.retry import TRIES, retry_transient


class Fault(Exception):
    pass


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "full_jitter", lambda value: 0.0)


async def test_a_fault_that_passes_is_repeated() -> None:
    calls: list[int] = []
    told: list[tuple[Exception, float]] = []

    @retry_transient(Fault, on_retry=lambda error, wait: told.append((error, wait)))
    async def ask(answer: str, *, more: str) -> str:
        calls.append(1)
        if len(calls) < TRIES:
            raise Fault
        return answer + more

    assert await ask("a", more="b") == "ab"
    assert len(calls) == TRIES
    assert [type(error) for error, _ in told] == [Fault] * (TRIES - 1)


async def test_the_last_fault_is_raised_and_every_call_counts_anew() -> None:
    calls: list[Fault] = []

    @retry_transient(Fault)
    async def ask() -> None:
        calls.append(Fault(len(calls)))
        raise calls[-1]

    for n in (1, 2):
        with pytest.raises(Fault) as caught:
            await ask()
        assert len(calls) == n * TRIES
        assert caught.value is calls[-1]


async def test_a_try_that_took_longer_than_the_time_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(retry, "time", Clock)
    calls: list[int] = []

    @retry_transient(Fault)
    async def hang() -> None:
        calls.append(1)
        now[0] += retry.SECONDS
        raise Fault

    with pytest.raises(Fault):
        await hang()
    assert len(calls) == 1


@pytest.mark.parametrize("other", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_other_exceptions_pass_at_once(other: type[BaseException]) -> None:
    calls: list[int] = []

    @retry_transient(Fault)
    async def ask() -> None:
        calls.append(1)
        raise other

    # As a coroutine by hand: a KeyboardInterrupt in a task would end the loop.
    coroutine = ask()
    with pytest.raises(other):
        await coroutine
    assert len(calls) == 1


async def test_a_cancelled_wait_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "full_jitter", lambda value: 3600.0)
    waiting = asyncio.Event()
    calls: list[int] = []

    @retry_transient(Fault, on_retry=lambda error, wait: waiting.set())
    async def ask() -> None:
        calls.append(1)
        raise Fault

    task = asyncio.ensure_future(ask())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 1
