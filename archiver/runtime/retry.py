"""Short retries of transient faults: at most three tries in ten seconds, with full jitter. What lasts longer goes back to the
queue. The only module that imports `backoff`: the library is old, and may have to be replaced.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import backoff

TRIES = 3
SECONDS = 10.0

P = ParamSpec("P")
T = TypeVar("T")


def retry_transient(
    *exceptions: type[Exception],
    unless: type[Exception] | tuple[()] = (),
    on_retry: Callable[[Exception, float], None] | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Repeat the decorated coroutine function when it raises one of `exceptions` that is not `unless`; the last one is raised.

    No try begins more than SECONDS (and one short wait) after the first did.
    """

    def report(details: Any) -> None:
        if on_retry is not None:
            on_retry(details["exception"], details["wait"])

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        # The library's max_time looks at the clock before a try, and so repeats one that took minutes to fail.
        too_late: ContextVar[float] = ContextVar(f"{function.__qualname__} is too late")

        async def again(failed: list[Exception], *args: P.args, **kwargs: P.kwargs) -> T:
            if failed:
                raise failed.pop()
            return await function(*args, **kwargs)

        repeat = backoff.on_exception(
            backoff.expo,
            exceptions,
            max_tries=TRIES,
            giveup=lambda error: isinstance(error, unless) or time.monotonic() >= too_late.get(),
            jitter=backoff.full_jitter,
            factor=0.5,
            on_backoff=report,
            logger=None,
        )(again)

        @functools.wraps(function)
        async def retried(*args: P.args, **kwargs: P.kwargs) -> T:
            # Nearly all first tries do well, and to prepare others costs much of a small file's time: that begins with a failure.
            began = time.monotonic()
            try:
                return await function(*args, **kwargs)
            except exceptions as error:
                if isinstance(error, unless):
                    raise
                failed = [error]
            before = too_late.set(began + SECONDS)
            try:
                return await repeat(failed, *args, **kwargs)
            finally:
                too_late.reset(before)

        return retried

    return decorate
