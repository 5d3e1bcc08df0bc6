"""Cancelling a coroutine at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class CancelledAt:
    """Awaits a coroutine and cancels the current task whenever it suspends for a time that is in `moments`."""

    def __init__(self, work: Coroutine[Any, Any, None], moments: set[int]) -> None:
        self._work = work
        self._moments = moments
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        steps = self._work.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                awaited = steps.send(None) if thrown is None else steps.throw(thrown)
            except StopIteration:
                return
            if self.suspensions in self._moments:
                task.cancel()
            self.suspensions += 1
            thrown = None
            try:
                yield awaited
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # what it waited for has failed: that is for the work
                thrown = error


async def ended(work: CancelledAt) -> BaseException | None:
    """Await it in a task of its own, and return what ended it; None if nothing did."""

    async def through() -> None:
        await work

    (end,) = await asyncio.gather(asyncio.create_task(through()), return_exceptions=True)
    return end
