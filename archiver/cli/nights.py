"""`archiver nights`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from archiver.account.counts import COUNTS, count_open
from archiver.cli.compose import NO_BOT, TEXT, opened_database, run_async, settings_of
from archiver.cli.output import console, json_option, print_folded, print_json, print_rows
from archiver.config import Settings
from archiver.errors import ConfigError
from archiver.queue.accounts import Accounts, KeptAccount, KnownDay
from archiver.queue.reports import Reports
from archiver.runtime.days import day_of

DAY = timedelta(days=1)


@click.command(short_help="Show the accounts that were made, and which days are complete.")
@click.option("--bot", type=TEXT, help="Only this bot's.")
@click.option("--days", type=click.IntRange(1, 36_525), metavar="N",
              help="The last N days of each bot instead, and what the latest account says of each.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 100_000), default=30, show_default=True, help="So many accounts at most.")
@json_option
@click.pass_context
def command(ctx: click.Context, bot: str | None, days: int | None, limit: int, as_json: bool) -> None:
    """Show the accounts that `nightly` and `reconcile` made, the latest first: when, of what time, and whether every call was
    accounted for.

    With --days a line for each day of each bot, as the bot's time zone has it: complete, open (something failed, is pending,
    missing or mismatched), part (no account was made of the whole day) or none (no account was made of it at all).

    Exit codes: 0; 1 fatal; 2 usage or configuration.
    """
    settings = settings_of(ctx)
    if bot is not None and settings.bots:
        settings.bot(bot)
    if days is not None and not settings.bots:
        raise ConfigError("no bot is configured: there are no days of any", hint=NO_BOT)
    if days is None:
        _show_accounts(run_async(_accounts(settings, bot, limit)), as_json=as_json)
    else:
        _show_days(run_async(_days(settings, bot, days)), as_json=as_json)


async def _accounts(settings: Settings, bot: str | None, limit: int) -> list[KeptAccount]:
    async with opened_database(settings, writes=False) as database:
        return await Accounts(database).list_kept(bot=bot, max_rows=limit)


async def _days(settings: Settings, bot: str | None, count: int) -> list[dict[str, Any]]:
    """JSON, the latest day first."""
    async with opened_database(settings, writes=False) as database:
        now = await Reports(database).now()
        bots = [each for each in settings.bots if bot in (None, each.name)]
        last = {each.name: day_of(now, each.zone) for each in bots}
        earliest = min(last.values(), default=now.date()) - DAY * (count - 1)
        known = await Accounts(database).list_days(list(last), earliest, max(last.values(), default=now.date()))
    by_day = {(each.bot, each.day): each for each in known}
    return sorted(
        (
            _day(each.name, last[each.name] - DAY * number, by_day.get((each.name, last[each.name] - DAY * number)))
            for each in bots
            for number in range(count)
        ),
        key=lambda day: (-date.fromisoformat(day["day"]).toordinal(), day["bot"]),
    )


def _day(bot: str, day: date, known: KnownDay | None) -> dict[str, Any]:
    told: dict[str, Any] = {"bot": bot, "day": day.isoformat()}
    if known is None:
        return {**told, "result": "none", "counts": None, "made_at": None, "command": None, "version": None, "account": None}
    counts = known.counts
    result = "complete" if known.complete and not known.open_later else "open" if known.whole or count_open(counts) else "part"
    return {**told, "result": result, "counts": counts, "made_at": known.made_at.isoformat(), "command": known.command,
            "version": known.version, "account": known.account_id}  # fmt: skip


def _show_accounts(accounts: Sequence[KeptAccount], *, as_json: bool) -> None:
    if as_json:
        print_json({"accounts": [_as_document(each) for each in accounts]})
        return
    if not accounts:
        click.echo("no account was made yet: `archiver nightly` and `archiver reconcile` make them")
        return
    rows = []
    for each in accounts:
        result = "complete" if each.complete else "open"
        spans = _minute(each.from_at), _minute(each.to_at)
        rows.append(
            [_minute(each.made_at), each.command, *spans, f"{each.counts['calls']:,}", _figure(count_open(each.counts)), result]
        )
    columns = ("made (UTC)", "by", "from", "to", "calls", "open", "result")
    print_rows(columns, rows, right=[4, 5], head=2)
    for each in accounts:
        for bot, why in each.failed_bots.items():
            print_folded(console(), f"{_minute(each.made_at)}: the platform listed no calls of {bot}: {why}")


def _show_days(days: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"days": days})
        return
    rows = []
    for day in days:
        counts = day["counts"]
        made = "" if day["made_at"] is None else _minute(datetime.fromisoformat(day["made_at"]))
        result = day["result"]
        figures = ["", "", "", ""]
        if counts is not None:
            figures = [
                f"{counts['calls']:,}",
                f"{counts['archived']:,}",
                _figure(count_open(counts)),
                _figure(counts.get("accepted", 0)),
            ]
        rows.append([day["day"], day["bot"], result, *figures, made])
    columns = ("day", "bot", "result", "calls", "archived", "open", "accepted", "made (UTC)")
    print_rows(columns, rows, right=range(3, 7), head=2)


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _figure(count: int) -> str:
    return f"{count:,}" if count else ""


def _as_document(account: KeptAccount) -> dict[str, Any]:
    return {
        "id": account.id,
        "made_at": account.made_at.isoformat(),
        "made_by": account.made_by,
        "command": account.command,
        "version": account.version,
        "from": account.from_at.isoformat(),
        "to": account.to_at.isoformat(),
        "complete": account.complete,
        "counts": {name: account.counts.get(name, 0) for name in COUNTS},
        "open_days": account.open_days,
        "problems": account.problems,
        "failed_bots": account.failed_bots,
    }
