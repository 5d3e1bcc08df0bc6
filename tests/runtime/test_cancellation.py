"""Work in a thread that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading

import pytest

from archiver.runtime.cancellation import in_thread


@pytest.mark.parametrize("fails", [False, True])
async def test_work_that_nobody_waits_for_any_more_ends_quietly(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    untold: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", untold.append)
    may_end, threads = threading.Event(), set(threading.enumerate())

    def work() -> None:
        may_end.wait()
        if fails:
            raise OSError

    waiting = in_thread(work)
    (thread,) = set(threading.enumerate()) - threads
    assert waiting.cancel()
    await asyncio.sleep(0)  # then the thread's own future knows it
    may_end.set()
    await asyncio.to_thread(thread.join)
    assert not untold
    assert waiting.cancelled()
