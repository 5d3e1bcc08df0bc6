"""How far the archive is: sessions by state, rates, the time left, and who is at work on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from archiver.config import BotSettings
from archiver.postgres.database import Database
from archiver.postgres.features import Feature, Features
from archiver.queue.accounts import Accounts
from archiver.queue.deadlines import HINT, read_deadlines
from archiver.queue.findings import Findings
from archiver.queue.ledger import Ledger
from archiver.queue.notifications import Notifications
from archiver.queue.pace import Pace, Paces, waiting_of
from archiver.queue.reports import Reports, WorkerReport
from archiver.session import State

STATES = [state.value for state in State]

GENTLE = 10
"""A look at a large queue takes a while: the pause after it is so many times as long, whatever --every says."""


async def status_document(database: Database, bots: Sequence[BotSettings]) -> dict[str, Any]:
    """How far the archive is, and what holds it up: all six states, always, for the whole and for each bot."""
    paces = await Paces.read(database, bots)
    reports = Reports(database)
    counts = await reports.count_sessions()
    totals = await reports.recorded_totals()
    fleet = await reports.fleet()
    reasons = await reports.count_reasons()
    last_days = await Accounts(database).last_complete_days()
    deadlines = {each.bot: each for each in await read_deadlines(database, bots)}
    oldest = await reports.oldest_verification()
    damaged = await Findings(database).damaged()
    workers = await list_workers(database, all_sessions=False)
    forecast = paces.forecast(
        waiting_of(counts),
        paused={pause["bot"] for pause in fleet.pauses},
        held={(hold["bot"], hold["kind"]) for hold in fleet.holds},
        working=any(worker["alive"] for worker in workers),
    )
    by_bot = {name: _no_sessions() for name in forecast.bots}
    whole = _no_sessions()
    for count in counts:
        for counted in (by_bot.setdefault(count.bot, _no_sessions()), whole):
            counted["sessions"][count.state] += count.sessions
            counted["api_calls"] += count.calls
            counted["accepted"] += count.accepted
            counted["rechecks"]["waiting"] += count.rechecks
            if count.next_recheck is not None:
                next_at = count.next_recheck.isoformat()
                counted["rechecks"]["next_at"] = min(counted["rechecks"]["next_at"] or next_at, next_at)
    for name, counted in by_bot.items():
        counted["rates"] = paces.bots.get(name, Pace()).as_document()
        counted["time_left_seconds"] = forecast.bots.get(name, 0)
        last_day = last_days.get(name)
        counted["last_complete_day"] = last_day and last_day.isoformat()
        counted["source_retention"] = deadlines[name].as_document() if name in deadlines else None
    return {
        "at": fleet.at.isoformat(),
        **whole,
        "rates": paces.whole.as_document(),
        "time_left_seconds": forecast.whole,
        "time_left_without": forecast.left_out,
        "bots": by_bot,
        "recordings": totals.files,
        "bytes": totals.bytes,
        "recorded_seconds": totals.seconds,
        "oldest_verification": None if oldest is None else {"at": oldest.at.isoformat(), "seconds": round(oldest.seconds)},
        "damaged": damaged.as_document(),
        "notifications": await _notifications(database),
        "warnings": [{"bot": each.bot, "message": each.warning, "hint": HINT} for each in deadlines.values() if each.warning],
        "reasons": reasons,
        "evidence": (await Ledger(database).standing()).as_document(),
        "holds": fleet.holds,
        "paused": [pause["bot"] for pause in fleet.pauses],
        "pauses": fleet.pauses,
        "bot_events": fleet.bot_events,
        "blocked": fleet.blocked,
        "transfers": _sum_transfers(workers),
        "workers": workers,
    }


async def _notifications(database: Database) -> dict[str, Any] | None:
    """None: the database has no room for messages yet."""
    if not await Features(database).has(Feature.NOTIFICATIONS):
        return None
    return (await Notifications(database).standing()).as_document()


def _sum_transfers(workers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The large transfers of all workers together. `total` is None if one of them does not say how long it is."""
    each = [worker["progress"] for worker in workers]
    return {
        "running": sum(progress["running"] for progress in each),
        "bytes": sum(progress["bytes"] for progress in each),
        "total": None if any(progress["total"] is None for progress in each) else sum(progress["total"] for progress in each),
        "bytes_per_second": sum(progress["bytes_per_second"] for progress in each),
    }


def _no_sessions() -> dict[str, Any]:
    return {"sessions": dict.fromkeys(STATES, 0), "accepted": 0, "api_calls": 0, "rechecks": {"waiting": 0, "next_at": None}}


async def list_workers(database: Database, *, all_sessions: bool) -> list[dict[str, Any]]:
    """Every worker and its transfers, with all of its sessions, or only the one it has had longest."""
    reports = await Reports(database).list_workers(all_sessions=all_sessions)
    return [{**each.worker, "progress": _progress(each), "transfers": _transfers(each.progress)} for each in reports]


def _progress(report: WorkerReport) -> dict[str, Any]:
    """All of a worker's large transfers together, when it last wrote of them; `transfers` has no more than a hundred of them."""
    progress = report.progress
    return {
        "at": report.progress_at and report.progress_at.isoformat(),
        "running": progress.get("running", 0),
        "bytes": progress.get("bytes", 0),
        "total": progress.get("total", 0),
        "bytes_per_second": progress.get("bytes_per_second", 0),
        "received_bytes": progress.get("received_bytes", 0),
    }


def _transfers(progress: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One by one, the longest first, with how far each is and how long it will take, where that can be known."""
    found = []
    for one in progress.get("transfers", ()):
        received, total, rate = one["bytes"], one["total"], one["bytes_per_second"]
        percent = None if not total else round(min(100.0, 100 * received / total), 1)
        left = None if total is None or not rate else round(max(0, total - received) / rate)
        found.append({**one, "percent": percent, "time_left_seconds": left})
    return found


def pause_after(took: float, every: timedelta) -> float:
    """Seconds to wait after a look that took so long."""
    return max(every.total_seconds(), GENTLE * took)
