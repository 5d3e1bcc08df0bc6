"""The platform's rate limits.

Vendor: 60 calls a minute, counted per account over all of its bots and clients, for recordings, voicemail and call details;
60 a minute and 1,800 an hour, counted per bot, for the sessions history. The wordings are the vendor's, too; which HTTP status
they come with is not said, nor whether with Retry-After. That recordings, voicemail and call details share one counter is the
strict reading of a table that doesn't say.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WINDOW_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}

GENERAL_MESSAGE = "Rate limit for this API has been reached. Please try again later"
"""The wording of an older page."""
PER_MINUTE_MESSAGE = "You've exceeded the per-minute rate limit. Please wait for sometime before retrying."
HOURLY_MESSAGE = "You've exceeded the hourly rate limit. Please wait for sometime before retrying."
MESSAGES = (GENERAL_MESSAGE, PER_MINUTE_MESSAGE, HOURLY_MESSAGE)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` calls in any window of this length, wherever it begins."""

    count: int
    window: str

    @property
    def message(self) -> str:
        """What the platform says past it."""
        return {"minute": PER_MINUTE_MESSAGE, "hour": HOURLY_MESSAGE}.get(self.window, GENERAL_MESSAGE)


class Refusal(NamedTuple):
    """A call over the limit. `retry_after` is in seconds: then a call would be within it."""

    message: str
    retry_after: float


@lru_cache(maxsize=64)
def parse_limit(text: str) -> Limit:
    """Read "60/minute". Raises ValueError that shows the form."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})/(second|minute|hour)", text)
    if found is None:
        raise ValueError(f"rate limit {text!r} is not N/second, N/minute or N/hour, such as '60/minute'")
    return Limit(int(found[1]), found[2])


def retry_after_header(seconds: float) -> str:
    """Whole seconds, rounded up, and at least 1 (RFC 9110, 10.2.3 knows no fractions)."""
    return str(max(1, math.ceil(seconds)))


class SlidingWindows:
    """The calls that one counter counts, in the last second, minute and hour.

    Only calls that were let through count. The windows are kept whatever the limits are, so that limits can
    change at any time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[str, deque[float]] = {window: deque() for window in WINDOW_SECONDS}
        self.most: dict[str, int] = dict.fromkeys(WINDOW_SECONDS, 0)
        """The most calls that any window of each length has held so far."""

    def check(self, limits: Iterable[str]) -> Refusal | None:
        """Whether one more call would exceed a limit; counts nothing. Of several, the one that lasts longest."""
        now = self._clock()
        refusals = []
        for limit in map(parse_limit, limits):
            calls = self._within(limit.window, now)
            if len(calls) >= limit.count:
                frees = calls[-limit.count] + WINDOW_SECONDS[limit.window]
                refusals.append(Refusal(limit.message, frees - now))
        return max(refusals, key=lambda refusal: refusal.retry_after, default=None)

    def count(self) -> None:
        """Note a call that was let through."""
        now = self._clock()
        for window in WINDOW_SECONDS:
            calls = self._within(window, now)
            calls.append(now)
            self.most[window] = max(self.most[window], len(calls))

    def _within(self, window: str, now: float) -> deque[float]:
        calls = self._calls[window]
        begins = now - WINDOW_SECONDS[window]
        while calls and calls[0] <= begins:
            calls.popleft()
        return calls
