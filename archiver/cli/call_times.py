"""Which calls a command means by when they began: --from and --to, each bot's days in its own time zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

from archiver.config import Settings
from archiver.errors import UsageError
from archiver.queue.call_times import Bounds, CallTimes
from archiver.runtime.days import parse_moment, to_instant

__all__ = ["BOUND", "CallTimes", "call_time_options", "call_times"]

F = TypeVar("F", bound=Callable[..., Any])

_UTC = ZoneInfo("UTC")


class _Bound(click.ParamType[date | datetime]):
    name = "TIME"

    def convert(self, value: str | date | datetime, param: click.Parameter | None, ctx: click.Context | None) -> date | datetime:
        if not isinstance(value, str):
            return value
        try:
            return parse_moment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


BOUND = _Bound()


def call_time_options(command: F) -> F:
    """--from and --to, passed on as `start` and `end`."""
    help_ = "Only those whose call began at this moment or later: ISO 8601; a date is its first moment in the bot's time zone."
    end = click.option("--to", "end", type=BOUND, help="Only those whose call began before this moment.")
    return click.option("--from", "start", type=BOUND, help=help_)(end(command))


def call_times(
    settings: Settings, start: date | datetime | None, end: date | datetime | None, *, now: datetime | None = None
) -> CallTimes:
    """The bounds of each configured bot; a bot that is not configured has its days in UTC. `now` is this machine's unless given.
    Raises UsageError where no call of any bot can lie between them.
    """
    now = now or datetime.now(UTC)
    by_bot = {bot.name: _bounds(start, end, bot.zone) for bot in settings.bots}
    default = _bounds(start, end, _UTC)
    given = [(by_bot[bot.name], bot.zone) for bot in settings.bots] or [(default, _UTC)]
    slips = [_slip(start, end, bounds, zone, now) for bounds, zone in given]
    if slips[0] is not None and None not in slips:
        raise slips[0]
    return CallTimes(by_bot, default)


def _bounds(start: date | datetime | None, end: date | datetime | None, zone: ZoneInfo) -> Bounds:
    try:
        return None if start is None else to_instant(start, zone), None if end is None else to_instant(end, zone)
    except ValueError as error:
        raise UsageError(str(error), hint="name a date such as 2026-03-31") from None


def _slip(
    start: date | datetime | None, end: date | datetime | None, bounds: Bounds, zone: ZoneInfo, now: datetime
) -> UsageError | None:
    first, last = bounds
    if first is not None and last is not None and first >= last:
        return UsageError(
            f"--to {end} is not after --from {start} (time zone {zone.key})",
            hint="--to is the first moment that no longer counts: for a whole day, name the next day",
        )
    if first is not None and first > now:
        return UsageError(
            f"--from {start} lies in the future (time zone {zone.key}): no call has begun since",
            hint="name the date of a call, such as 2026-03-31; without --from every call before --to counts",
        )
    return None
