"""How an account of calls is made and shown: for `reconcile`, and for the end of a night."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import click

from archiver.account.closing import Closing, Earlier, close_account
from archiver.account.counts import BESIDE, COUNTS, OUTCOMES, count_open
from archiver.account.items import Item
from archiver.account.reconcile import Account
from archiver.cli.compose import actor
from archiver.cli.evidence_line import evidence_line
from archiver.cli.json_stream import print_json_list
from archiver.cli.listing import developers_line, opened_listings, print_problems, print_refusal
from archiver.cli.output import console, fitting, print_csv, print_folded, printable, safe, told
from archiver.cli.progress import counting
from archiver.config import BotSettings, Settings
from archiver.errors import DatabaseError
from archiver.kore.listings.calls import Span
from archiver.postgres.database import Database
from archiver.queue.accounts import AccountDay
from archiver.queue.findings import NEXT_FOR_DAMAGED
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores.open import open_store

SHOWN = 50
"""Items that a terminal is shown."""

FEW = 10
"""Sessions of earlier accounts that it is shown."""

COLUMNS = (
    "bot", "session_id", "kind", "state", "reason", "started_at", "first_asked_at", "last_asked_at", "asks", "run_at",
    "finished_at", "cancelled_by", "because", "mismatches", "remarks", "accepted_at", "accepted_by", "accept_reason",
)  # fmt: skip

format_option = click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)


async def close(
    settings: Settings, database: Database, bots: Sequence[BotSettings], spans: Mapping[str, Span], *, command: str
) -> Closing:
    """Account for the calls of each bot, of its span, for a `command`. Raises DatabaseError, StoreError."""
    async with (
        opened_listings(settings, database) as listings,
        open_store(settings.storage, Buffers(settings.transfer.max_buffer), Network.of(settings.network)) as store,
    ):
        with counting("calls accounted for", quiet=False) as progress:
            return await close_account(
                listings,
                database,
                store,
                bots,
                spans,
                all_bots=settings.bots,
                command=command,
                actor=actor(),
                on_refused=print_refusal,
                on_calls=lambda calls: progress("calls accounted for", calls),
            )


AGAIN = "`archiver reconcile` of the same time makes one that is"


async def keep(closing: Closing, database: Database) -> None:
    """Keep the account in the database. It is printed, whatever becomes of that."""
    try:
        await closing.keep(database)
    except DatabaseError as error:
        click.echo(f"warning: this account is not kept: {printable(error.message)}; next: {AGAIN}", err=True)


def show(closing: Closing, form: str) -> None:
    """On standard output as `form` says; problems of the listings go to standard error besides."""
    match form:
        case "json":
            print_json_list(closing.as_document(), "items", (item.as_document() for item in closing.account.items))
        case "csv":
            _print_csv(closing.account)
        case _:
            _print_table(closing)
    if form != "json":
        print_problems(closing.account.problems)


def _print_csv(account: Account) -> None:
    print_csv(COLUMNS, map(_csv_row, account.items))


def _csv_row(item: Item) -> list[Any]:
    document = item.as_document()
    for column, name in (("mismatches", "mismatch"), ("remarks", "remark")):
        if column in document:
            document[column] = "; ".join(str(each[name]) for each in document[column])
    return list(map(document.get, COLUMNS))


def _print_table(closing: Closing) -> None:
    out, account = console(), closing.account
    rows = []
    for day in closing.days():
        if any(day.counts.values()):
            figures = (f"{day.counts[name]:,}" if day.counts[name] else "" for name in COUNTS)
            rows.append((_mark(day), day.day.isoformat(), safe(day.bot), *figures))
    days = fitting(out.width, ("", "day", "bot", *COUNTS), rows, right=range(3, 3 + len(COUNTS)), head=3)
    out.print(days, soft_wrap=isinstance(days, str))
    shown = 0
    for item in islice((each for each in account.items if not each.settled), SHOWN):
        shown += 1
        facts = ", ".join(_describe_fact(key, value, item.reason) for key, value in item.facts.items())
        line = f"{item.state}: {item.bot} {item.session_id} {item.kind}: {item.reason}"
        print_folded(out, line + (f" ({facts})" if facts else ""))
    if account.items.open > shown:
        out.print(f"... and {account.items.open - shown:,} more")
    if len(account.items) > shown:
        print_folded(out, "--format csv or json names every session that is not simply archived, and why")
    counts = account.counts
    sum_of = ", ".join(f"{counts[name]:,} {name}{_more_of(account, name)}" for name in OUTCOMES if counts[name])
    beside = ", ".join(f"{counts[name]:,} {name}" for name in BESIDE if counts[name])
    print_folded(
        out, f"{counts['calls']:,} calls" + (f" = {sum_of}" if sum_of else "") + (f"; besides {beside}" if beside else "")
    )
    if account.developer_calls:
        out.print(developers_line(account.developer_calls))
    if closing.earlier is not None:
        _print_earlier(closing.earlier)
    if closing.damaged is not None and closing.damaged.open:
        print_folded(out, f"verify: {closing.damaged.told}")
        print_folded(out, f"  next: {NEXT_FOR_DAMAGED}", indent=4)
    if closing.evidence is not None:
        evidence = closing.evidence.as_document()
        print_folded(out, evidence_line(evidence))
        if closing.command == "nightly" and evidence["checkpoint"]:  # for whoever is mailed what cron prints
            for line in evidence["checkpoint"].splitlines():
                out.print(safe(line), soft_wrap=True)


def _mark(day: AccountDay) -> str:
    """Of a part of a day nobody can say that the day is complete."""
    if day.complete:
        return "complete"
    return "[bold]open[/bold]" if day.whole or count_open(day.counts) else "part"


def _print_earlier(earlier: Earlier) -> None:
    if not (earlier.failed or earlier.mismatched):
        return
    out = console()
    counts = {"failed": earlier.failed, "mismatched": earlier.mismatched}
    out.print(f"still open of other times: {', '.join(f'{count:,} {name}' for name, count in counts.items() if count)}")
    for each in earlier.sessions[:FEW]:
        line = f"{each.state}: {each.bot} {each.session_id} {each.kind}: {each.reason}"
        print_folded(out, f"  {line}, {each.called_at:%Y-%m-%d}")
    if earlier.failed + earlier.mismatched > FEW:
        out.print("  ... `archiver list --open` names all")
    hint = "`archiver retry` asks for them again, `archiver accept` answers for them as they are"
    print_folded(out, f"  next: {hint}", indent=4)


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
    reasons = sorted((reason, count) for (state, reason), count in account.items.reasons.items() if state == outcome)
    others = ", ".join(f"{count:,} {reason}" for reason, count in reasons if reason != "media_unavailable")
    return f" ({others})" if others else ""
