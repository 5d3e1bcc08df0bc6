"""The metrics of the whole archive: every process shows the same, as it was read once for all of them. Needs the extra
`metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from archiver.observe.figures import BotFigures, BudgetFigures, Figures

STATES = ("pending", "claimed", "archived", "unavailable", "failed", "cancelled")

Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float | None]]


def fleet_metrics(figures: Figures | None, seen_at: float | None) -> Iterator[Metric]:
    """Every metric of the archive; those that have no value now are there without one. `seen_at`: when figures were read that may
    be too old to be shown.
    """
    whole: Mapping[tuple[()], Figures] = {} if figures is None else {(): figures}
    bots: Mapping[str, BotFigures] = {} if figures is None else figures.bots
    budgets: dict[tuple[str, str], BudgetFigures] = {}
    for bot, of in bots.items():
        for budget, each in ({} if of.configured is None else of.configured.budgets).items():
            budgets[bot, budget] = each

    yield _gauge("archiver_figures_timestamp_seconds",
        "When the figures of the archive were read from the database, by its clock.",
        (), [((), seen_at)])  # fmt: skip
    yield _gauge("archiver_queue_sessions",
        "Sessions of the archive by state, whichever worker had them.",
        ("bot", "state"),
        (((bot, state), of.sessions.get(state, 0)) for bot, of in bots.items() for state in STATES))  # fmt: skip
    yield _gauge("archiver_oldest_ready_seconds",
        "For how long the session has been due that was due first, of those that could be claimed; 0: none is. Low priority, "
        "paused bots and held kinds are left out.",
        ("bot",), _by_bot((bot, of.oldest_ready) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_gaps",
        "Days that are over and not complete, of a bot that was ever accounted for. One of which no account was made counts "
        "a day after its end.",
        ("bot",), _by_bot((bot, of.gap_days) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_oldest_gap_seconds",
        "For how long the first of these days has been over; 0: there is none.",
        ("bot",), _by_bot((bot, of.oldest_gap) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_last_complete_night_timestamp_seconds",
        "The end of the last day that is complete.",
        ("bot",), _by_bot((bot, of.last_complete_night) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_last_archived_timestamp_seconds",
        "When a session was archived last.",
        ("bot",), _by_bot((bot, of.last_archived) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_calls_per_recording",
        "Calls to the platform for each recording that was stored, of the calls (UTC days) of today and yesterday.",
        ("bot",), _by_bot((bot, of.calls_per_recording) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_source_deadline_seconds",
        "Until the platform deletes the recordings of the earliest call that waits (source_retention); below 0: it has.",
        ("bot",),
        _by_bot((bot, None if of.configured is None else of.configured.source_deadline) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_bot_paused",
        "Whether somebody has paused the bot.",
        ("bot",), _by_bot((bot, float(of.paused)) for bot, of in bots.items()))  # fmt: skip
    yield _gauge("archiver_bot_held",
        "1 for each kind of a bot that no worker claims, and why; nothing where none is held.",
        ("bot", "kind", "reason"),
        (((one.bot, one.kind, one.reason), 1) for of in whole.values() for one in of.holds))  # fmt: skip
    yield _gauge("archiver_budget_remaining_ratio",
        "The part that is left of the fullest window of the rate limits: of an account (recordings, voicemail, call details) "
        "or of a bot's sessions history.",
        ("bot", "budget"), ((labels, of.remaining) for labels, of in budgets.items()))  # fmt: skip
    yield _gauge("archiver_budget_blocked_seconds",
        "For how long nobody may draw from the budget, as the platform said; 0: it is not blocked.",
        ("bot", "budget"), ((labels, of.blocked) for labels, of in budgets.items()))  # fmt: skip
    yield _gauge("archiver_unsealed_seconds",
        "For how long what happened first, of what is not in the ledger yet, has waited to be sealed.",
        (), ((labels, of.unsealed) for labels, of in whole.items()))  # fmt: skip
    yield _gauge("archiver_oldest_verification_seconds",
        "How long ago the recording of the archive was read again, or archived, for which that is longest ago.",
        (), ((labels, of.oldest_verification) for labels, of in whole.items()))  # fmt: skip
    yield _gauge("archiver_damaged_sessions",
        "Sessions of the archive of which verify found files wrong that nobody mended or accepted.",
        (), ((labels, of.damaged_sessions) for labels, of in whole.items()))  # fmt: skip
    yield _gauge("archiver_workers",
        "Workers whose lease holds.",
        (), ((labels, of.workers) for labels, of in whole.items()))  # fmt: skip
    yield _gauge("archiver_schema_version",
        "The migration that was applied last.",
        (), ((labels, of.schema_version) for labels, of in whole.items()))  # fmt: skip
    notifications = None if figures is None else figures.notifications
    yield _gauge("archiver_notifications_waiting",
        "Notifications that wait to be delivered.",
        (), [((), None if notifications is None else notifications.waiting)])  # fmt: skip
    yield _gauge("archiver_oldest_notification_seconds",
        "For how long the first of these has waited; 0: there is none.",
        (), [((), None if notifications is None else notifications.oldest)])  # fmt: skip


def _by_bot(values: Iterable[tuple[str, float | None]]) -> Samples:
    return (((bot,), value) for bot, value in values)


def _gauge(name: str, help_text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """What is None is left out."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family
