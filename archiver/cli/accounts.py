"""How an account of calls is made and shown: for `reconcile`, and for the end of a night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from archiver.account.closing import Closing, close_account
from archiver.account.reconcile import BESIDE, COUNTS, OUTCOMES, Account, closed
from archiver.cli.listing import developers_line, opened_listings, print_problems, print_refusal
from archiver.cli.output import console, fitting, print_csv, print_folded, print_json, safe, told
from archiver.config import BotSettings, Settings
from archiver.kore.listings.calls import Span
from archiver.postgres.database import Database
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores.open import open_store

SHOWN = 50
"""Items that a terminal is shown."""

COLUMNS = (
    "bot", "session_id", "kind", "state", "reason", "started_at", "first_asked_at", "last_asked_at", "asks", "run_at",
    "finished_at", "cancelled_by", "because", "mismatches", "remarks",
)  # fmt: skip

format_option = click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)


async def close(settings: Settings, database: Database, bots: Sequence[BotSettings], spans: Mapping[str, Span]) -> Closing:
    """Account for the calls of each bot, of its span. Changes nothing. Raises DatabaseError, StoreError."""
    async with (
        opened_listings(settings, database) as listings,
        open_store(settings.storage, Buffers(settings.transfer.max_buffer), Network.of(settings.network)) as store,
    ):
        zones = {bot.name: bot.time_zone for bot in settings.bots}
        return await close_account(listings, database, store, bots, spans, zones=zones, on_refused=print_refusal)


def show(closing: Closing, form: str) -> None:
    """On standard output as `form` says; problems of the listings go to standard error besides."""
    match form:
        case "json":
            print_json(closing.as_document())
        case "csv":
            _print_csv(closing.account)
        case _:
            _print_table(closing)
    if form != "json":
        print_problems(closing.account.problems)


def _print_csv(account: Account) -> None:
    rows = []
    for item in account.items:
        document = item.as_document()
        for column, name in (("mismatches", "mismatch"), ("remarks", "remark")):
            document[column] = "; ".join(str(each[name]) for each in document.get(column, ()))
        rows.append([document.get(column) for column in COLUMNS])
    print_csv(COLUMNS, rows)


def _print_table(closing: Closing) -> None:
    out, account = console(), closing.account
    rows = []
    for (bot, day), counts in sorted(account.days.items()):
        mark = "complete" if closed(counts) else "[bold]open[/bold]"
        rows.append((mark, day.isoformat(), safe(bot), *(f"{counts[name]:,}" if counts[name] else "" for name in COUNTS)))
    days = fitting(out.width, ("", "day", "bot", *COUNTS), rows, right=range(3, 3 + len(COUNTS)), head=3)
    out.print(days, soft_wrap=isinstance(days, str))
    open_items = [item for item in account.items if not item.settled]
    for item in open_items[:SHOWN]:
        facts = ", ".join(_describe_fact(key, value, item.reason) for key, value in item.facts.items())
        line = f"{item.state}: {item.bot} {item.session_id} {item.kind}: {item.reason}"
        print_folded(out, line + (f" ({facts})" if facts else ""))
    if len(open_items) > SHOWN:
        out.print(f"... and {len(open_items) - SHOWN:,} more")
    if len(account.items) > min(len(open_items), SHOWN):
        print_folded(out, "--format csv or json names every session that is not simply archived, and why")
    counts = account.counts
    sum_of = ", ".join(f"{counts[name]:,} {name}{_more_of(account, name)}" for name in OUTCOMES if counts[name])
    beside = ", ".join(f"{counts[name]:,} {name}" for name in BESIDE if counts[name])
    print_folded(
        out, f"{counts['calls']:,} calls" + (f" = {sum_of}" if sum_of else "") + (f"; besides {beside}" if beside else "")
    )
    if account.developer_calls:
        out.print(developers_line(account.developer_calls))


def _describe_fact(key: str, value: Any, reason: str) -> str:
    """A fact of an item, in words. Of several findings each has its name; the only one is the item's reason."""
    if key not in ("mismatches", "remarks"):
        return f"{key} {told(value)}"
    findings = []
    for finding in value:
        (_, name), *facts = finding.items()
        words = ", ".join(f"{fact} {' and '.join(map(told, it)) if isinstance(it, list) else told(it)}" for fact, it in facts)
        findings.append(words if len(value) == 1 and name == reason else f"{name}: {words}")
    return "; ".join(findings)


def _more_of(account: Account, outcome: str) -> str:
    """The other reasons of unavailable calls than the platform's word alone: what it has deleted is not what it never had."""
    if outcome != "unavailable":
        return ""
    reasons = Counter(item.reason for item in account.items if item.state == outcome and item.reason != "media_unavailable")
    others = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    return f" ({others})" if others else ""
