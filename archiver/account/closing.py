"""Closing a time: the account of all bots' calls, and whether it is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archiver.account.discovery import Listings
from archiver.account.reading import OnRefused, each_bot
from archiver.account.reconcile import COUNTS, Account, closed, reconcile
from archiver.config import BotSettings
from archiver.kore.listings.calls import Span
from archiver.postgres.database import Database
from archiver.stores import Store


@dataclass(frozen=True)
class Closing:
    """An account, of which times of which bots it is, and which bots the platform gave no answer for."""

    account: Account
    spans: Mapping[str, Span]
    zones: Mapping[str, str]
    failed: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Exit code 0 or 3."""
        return self.account.complete and not self.failed

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        account, spans = self.account, self.spans
        return {
            "from": min(span.start for span in spans.values()).isoformat(),
            "to": max(span.end for span in spans.values()).isoformat(),
            **{name: account.counts[name] for name in COUNTS},
            "developer_calls": account.developer_calls,
            "complete": self.complete,
            "bots": [
                {"bot": bot, "from": span.start.isoformat(), "to": span.end.isoformat(), "time_zone": self.zones[bot]}
                for bot, span in spans.items()
            ],
            "days": [
                {"bot": bot, "day": day.isoformat(), **{name: counts[name] for name in COUNTS}, "complete": closed(counts)}
                for (bot, day), counts in sorted(account.days.items())
            ],
            "items": [item.as_document() for item in account.items],
            "problems": account.problems,
            "failed_bots": dict(self.failed),
        }


async def close_account(
    listings: Mapping[str, Listings],
    database: Database,
    store: Store,
    bots: Sequence[BotSettings],
    spans: Mapping[str, Span],
    *,
    zones: Mapping[str, str],
    on_refused: OnRefused,
) -> Closing:
    """Account for the calls of each bot, of its span. Changes nothing. `spans` and `zones` may have more bots than `bots`.

    Raises DatabaseError, StoreError.
    """
    accounts = {bot.name: Account() for bot in bots}

    async def one(bot: BotSettings) -> None:
        await reconcile(bot, listings[bot.name].stretches(spans[bot.name]), database, store, accounts[bot.name])

    _, failed = await each_bot(bots, one, on_refused=on_refused)
    whole = Account()
    for account in accounts.values():
        whole.add(account)  # of one that was broken off, too: it says how far it came
    # A stretch is listed newest first; an account is read from its beginning.
    whole.items.sort(key=lambda item: (item.bot, item.started_at.timestamp() if item.started_at else 0.0, item.session_id))
    return Closing(whole, spans, zones, failed)
