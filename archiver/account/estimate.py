"""How many calls a time has, and what archiving them would take: asked of the platform, adding nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from archiver.account.discovery import Listings
from archiver.account.reading import OnRefused, each_bot
from archiver.config import BotSettings, account_budgets
from archiver.kore.listings.calls import Span
from archiver.postgres.database import Database
from archiver.queue.reports import Reports
from archiver.runtime.days import day_of


async def estimate(
    database: Database,
    configured: Sequence[BotSettings],
    bots: Sequence[BotSettings],
    listings: Mapping[str, Listings],
    spans: Mapping[str, Span],
    *,
    on_refused: OnRefused,
) -> dict[str, Any]:
    """What `discover --dry-run --json` prints. Bots of one account among those `configured` share its budget. Raises
    DatabaseError.
    """

    async def count(bot: BotSettings) -> dict[str, Any]:
        return await _count(listings[bot.name], spans[bot.name], database)

    found, failed = await each_bot(bots, count, on_refused=on_refused)
    budgets = account_budgets(configured)
    asks = {each["bot"]: each.pop("asks") for each in found}
    for each in found:
        # What bots share is not left to one of them alone.
        shared = sum(asks.get(name, 0.0) for name in budgets[each["bot"]].bots)
        each["seconds"] = round(listings[each["bot"]].seconds_for(shared))
    return {"bots": found, "failed": failed}


async def _count(listings: Listings, span: Span, database: Database) -> dict[str, Any]:
    bot, reports = listings.bot, Reports(database)
    days: Counter[date] = Counter()
    known = calls = developer_calls = 0
    others: Counter[str] = Counter()
    problems: list[dict[str, Any]] = []
    whole = True
    async for listing in listings.stretches(span):
        keys = list(listing.calls)
        calls += len(keys)
        known += await reports.count_enqueued(bot.name, keys)
        days.update(day_of(call.started_at, bot.zone) for call in listing.calls.values())
        others.update(listing.others)
        developer_calls += listing.developer_calls
        problems += listing.problems
        whole = whole and listing.whole
    cost = await reports.mean_cost(bot.name)
    new = calls - known
    return {
        "bot": bot.name,
        "source": listings.source,
        "from": span.start.isoformat(),
        "to": span.end.isoformat(),
        "time_zone": bot.time_zone,
        "calls": calls,
        "known": known,
        "new": new,
        "days": {day.isoformat(): count for day, count in sorted(days.items())},
        "asks": new * (cost.calls or 1.0),
        "bytes": None if cost.bytes is None else round(new * cost.bytes),
        "other_channels": dict(others),
        "developer_calls": developer_calls,
        "problems": problems,
        "whole": whole,
    }
