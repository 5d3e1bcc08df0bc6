"""When a call took place, as a condition on rows of bots that keep their days in different time zones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Bounds = tuple[datetime | None, datetime | None]
"""From a moment on, until before another; None: no bound."""


@dataclass(frozen=True)
class CallTimes:
    """Calls that began within these bounds: those of a bot in `by_bot` within its own, those of any other within `default`."""

    by_bot: Mapping[str, Bounds] = field(default_factory=dict)
    default: Bounds = (None, None)

    @property
    def widest(self) -> Bounds:
        """What all bounds lie in: one range, which an index can be searched for."""
        every = [self.default, *self.by_bot.values()]
        starts, ends = [start for start, _ in every if start is not None], [end for _, end in every if end is not None]
        return min(starts) if len(starts) == len(every) else None, max(ends) if len(ends) == len(every) else None

    def parameters(self) -> dict[str, Any]:
        """For a statement: `call_from` and `call_to`, the widest bounds, and where bots differ, those of each: `call_bots` with
        `call_starts` and `call_ends`, in which '' stands for the bots that it doesn't name.
        """
        every = {"": self.default, **self.by_bot}
        differ = len(set(every.values())) > 1
        start, end = self.widest
        return {
            "call_from": start,
            "call_to": end,
            "call_bots": list(every) if differ else None,
            "call_starts": [start for start, _ in every.values()] if differ else None,
            "call_ends": [end for _, end in every.values()] if differ else None,
        }
