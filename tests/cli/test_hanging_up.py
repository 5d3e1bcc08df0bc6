"""SIGHUP of a command that reads its configuration again by it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from archiver.cli.compose import reload_on_hangup, run_async
from archiver.runtime.event_loop import VARIABLE


@pytest.fixture(autouse=True)
def on_asyncio(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "asyncio")  # uvloop leaves its handlers in place
    kept = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_it_ends_nothing_after_the_loop_has_ended_either() -> None:
    asked: list[bool] = []

    async def work() -> int:
        reload_on_hangup(lambda: asked.append(True))
        return 3

    assert run_async(work()) == 3
    assert signal.getsignal(signal.SIGHUP) not in (signal.SIG_DFL, signal.SIG_IGN, None)
    signal.raise_signal(signal.SIGHUP)
    assert not asked


def test_other_commands_end_by_it() -> None:
    async def work() -> None:
        pass

    run_async(work())
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
