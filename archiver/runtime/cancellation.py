"""Ways of awaiting that `asyncio` lacks: to the end despite cancellation, with a timeout that does not await clean-up, and in a
thread that does not keep the process alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

SETTLE_SECONDS = 5.0
"""How long a request that decides over the object is still awaited after a cancellation, to know how it ended."""


async def to_its_end(work: Awaitable[T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Await `work` to its end. A cancellation meanwhile calls `on_cancel`, and is raised after the end."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        # Not asyncio.wait, which takes several times as long, and this is awaited for every block that goes to a disk.
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wake = partial(_wake, over)
        task.add_done_callback(wake)
        try:
            await over
        except asyncio.CancelledError as error:
            task.remove_done_callback(wake)
            cancelled = error
            on_cancel()
    if cancelled is not None:
        task.cancelled() or task.exception()  # its error, if any, has nobody left to handle it
        raise cancelled
    return task.result()


def _wake(over: asyncio.Future[None], task: asyncio.Future[Any]) -> None:
    if not over.done():
        over.set_result(None)


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` for so many seconds, else cancel it and raise TimeoutError at once. `asyncio.timeout` would await its
    clean-up, which takes a connection to a hung database half a minute.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # retrieved, even if nobody waits any more
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not task.done():
        raise TimeoutError(f"no answer for {seconds:.1f} s")
    return task.result()


def in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run blocking `work` in a daemon thread, which does not keep the process alive. It cannot be stopped: cancelling the future
    leaves it running.
    """
    found: Future[T] = Future()
    found.set_running_or_notify_cancel()  # else a cancelled one takes no result, and the thread ends with a traceback

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:  # noqa: BLE001  # it is for whoever waits
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    waiting = asyncio.wrap_future(found)
    waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # retrieved, even if nobody waits any more
    return waiting


async def settled(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end, a cancellation notwithstanding, but then no longer than SETTLE_SECONDS."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()

    def hurry() -> None:
        loop.call_later(SETTLE_SECONDS, task.cancel)

    return await to_its_end(task, on_cancel=hurry)
