"""`archiver doctor`."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import click

from archiver.cli.app import Incomplete
from archiver.cli.compose import run_async, settings_of
from archiver.cli.output import console, folded, json_option, print_folded, print_json, printable
from archiver.cli.sealing import evidence_store
from archiver.cli.serving import bot_access
from archiver.config import Settings, all_budgets
from archiver.errors import ArchiverError, StoreError
from archiver.health.bot_checks import check_bot, check_listing
from archiver.health.checks import (
    check_configuration,
    check_damage,
    check_database,
    check_database_settings,
    check_deadlines,
    check_embedded,
    check_host,
    check_network,
    check_schema,
    check_secret_files,
)
from archiver.health.evidence_checks import check_evidence, check_ledger
from archiver.health.findings import Finding, of_error
from archiver.health.media_check import check_media
from archiver.health.notify_checks import check_notifications, check_receiver
from archiver.health.store_checks import check_store
from archiver.postgres.database import Database, open_database
from archiver.queue.discoveries import Discoveries
from archiver.queue.identity import Identities
from archiver.queue.ledger import Ledger

MARKS = {"ok": "[green]ok[/green]     ", "warning": "[yellow]warning[/yellow]", "failure": "[red]failure[/red]"}


@click.command(short_help="Check everything that the first night depends on.")
@click.option("--notify", "try_receiver", is_flag=True, help="Send the receiver of [notify] a message, too, of type test.")
@json_option
@click.pass_context
def command(ctx: click.Context, try_receiver: bool, as_json: bool) -> None:
    """Check everything that the first night depends on: the configuration, who can read its secrets, the database, a small object
    written to the store, read back and deleted, and whether the waiting sessions can be archived before the platform deletes
    their recordings; for each bot a token, one harmless API call, the clocks, a listing of calls, and the first kilobyte of a
    recent recording from its media host, which is not kept. One line each, with what to do next. Then each budget of calls, and
    where its limits come from. Where messages are sent to a receiver, whether they arrive.

    A bot takes four API calls, drawn from its budgets; a few more where something is refused or has no recording.

    Exit codes: 0 nothing is wrong (warnings may be); 2 the configuration cannot be read; 3 something failed.
    """
    settings = settings_of(ctx)
    findings = run_async(_doctor(settings, try_receiver))
    if as_json:
        print_json({"findings": [_as_document(finding) for finding in findings], "budgets": _budgets(settings)})
    else:
        from rich.markup import escape

        out = console()
        for finding in findings:
            line = folded(printable(f"{finding.verdict:<7} {finding.check}: {finding.message}"), out.width, indent=8)
            out.print(MARKS[finding.verdict] + escape(line[len("failure") :]), soft_wrap=True)
            if finding.hint and finding.verdict != "ok":
                print_folded(out, f"        next: {finding.hint}", indent=8)
        budgets = _budgets(settings)
        for budget in budgets:
            shared = f", shared by bots {', '.join(budget['bots'])}" if len(budget["bots"]) > 1 else ""
            limits = ", ".join(budget["limits"]) or "no limit"
            same = [each["calls"] for each in budgets if each["budget"] == budget["budget"] and each is not budget]
            shared += "".join(f", one budget with {calls}" for calls in same)
            line = f"{budget['calls']} of {budget['of']}: {limits} ({budget['from']}){shared}"
            print_folded(out, f"budget  {line}", indent=8)
    if any(finding.verdict == "failure" for finding in findings):
        raise Incomplete


def _as_document(finding: Finding) -> dict[str, Any]:
    # `mend` is the former name of `hint`, kept for one release.
    return {**asdict(finding), "mend": finding.hint}


def _budgets(settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            "budget": each.key,
            "of": each.of,
            "calls": each.calls,
            "limits": each.written_limits,
            "from": each.source,
            "bots": each.bots,
        }
        for each in all_budgets(settings.bots)
    ]


async def _doctor(settings: Settings, try_receiver: bool) -> list[Finding]:
    findings = check_configuration(settings) + check_secret_files(settings) + check_host(settings)
    findings += check_network(settings, os.environ)
    try:
        async with open_database(settings.database, pool_size=2) as database:
            found = await check_database(database)
            findings += [found, *check_embedded(settings)]
            findings += await check_schema(database) if found.verdict == "ok" else []
            findings += await check_database_settings(database) if found.verdict == "ok" else []
            findings += await check_store(settings, Identities(database) if found.verdict == "ok" else None)
            findings += await check_deadlines(settings, database) if found.verdict == "ok" else []
            findings += await check_damage(database) if found.verdict == "ok" else []
            findings += await _evidence(settings, database, findings) if found.verdict == "ok" else []
            findings += await check_notifications(settings, database) if found.verdict == "ok" else []
            findings += [await check_receiver(settings)] if try_receiver else []
            findings += await _bots(settings, database, budget=found.verdict == "ok")
    except ArchiverError as error:
        findings.append(of_error("database", error))
        findings += await check_store(settings, None)
        findings += [await check_receiver(settings)] if try_receiver else []
        # Without the database nobody knows the budget: one call a bot is asked all the same.
        findings += await _bots(settings, Database(""), budget=False)
    return findings


async def _evidence(settings: Settings, database: Database, before: list[Finding]) -> list[Finding]:
    """Of the database; and of the store, where it could be used and is this archive's."""
    found = await check_evidence(settings, database)
    if any(each.verdict == "failure" and each.check.startswith("store") for each in before):
        return found
    try:
        async with evidence_store(settings) as store:
            of_store = await check_ledger(Ledger(database), store)
    except StoreError:
        return found
    return [*found, of_store] if of_store is not None else found


async def _bots(settings: Settings, database: Database, *, budget: bool) -> list[Finding]:
    findings: list[Finding] = []
    async with bot_access(settings, database) as bots:
        for bot in bots.values():
            found = await check_bot(bot, budget=budget)
            failed = {finding.check.rpartition(": ")[2] for finding in found if finding.verdict == "failure"}
            if failed <= {"clock", "scope"}:
                used_before = await Discoveries(database).sources(bot.settings.name) if budget else ()
                listing, source = await check_listing(bot, budget=budget, used_before=used_before)
                found.append(listing)
                found += [await check_media(bot, source, budget=budget)] if "scope" not in failed else []
            findings += found
    return findings
