"""The metrics of one process, in one list; those of the whole archive are in `fleet_metrics`. Needs the extra `metrics`.

Metrics are computed on each scrape from what the worker counts anyway, so they cost a recording nothing. Labels have few values:
names from the configuration, states and reasons. No session ID, no file name, nothing from outside.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from archiver.observe.readiness import REASONS, Readiness
from archiver.observe.tally import Tally
from archiver.observe.transfers import BUCKETS, Durations


@dataclass(frozen=True)
class Now:
    """A worker's slots and lease at this moment."""

    slots: int
    slots_in_use: int
    lease_remaining_seconds: float | None = None
    """None: it never had one."""


def metrics(bots: Sequence[str], tally: Tally, ends: Mapping[str, Iterable[str]]) -> Iterator[Metric]:
    """Those of what was done. Counters are there at 0 from the start, so that an alert sees the first increase: `ends` are the
    states and reasons with which attempts are known to end.
    """
    transfers = tally.transfers

    yield _by_bot(CounterMetricFamily, "archiver_received_bytes_total",
        "Bytes of recordings that came in, those of transfers that failed or began again included.",
        {bot: transfers.received[bot] for bot in bots})  # fmt: skip
    yield _by_bot(CounterMetricFamily, "archiver_files_total",
        "Recordings that are stored, confirmed and recorded.",
        {bot: tally.stored[bot] for bot in bots})  # fmt: skip
    yield _by_bot(CounterMetricFamily, "archiver_bytes_stored_total",
        "Bytes of these recordings.",
        {bot: tally.stored_bytes[bot] for bot in bots})  # fmt: skip
    yield _sessions(
        "archiver_sessions_total",
        "Attempts that ended, by the state that the session is in then (pending: it was put back), and why.",
        {(bot, state, reason): 0 for bot in bots for state, reasons in ends.items() for reason in reasons},
        tally.attempts)  # fmt: skip
    yield _by_bot(CounterMetricFamily, "archiver_api_calls_total",
        "Calls to the platform's API, whatever came of them.",
        {bot: tally.api_calls[bot] for bot in bots})  # fmt: skip
    yield _histogram("archiver_transfer_seconds",
        "How long recordings took to come and be stored; those that failed are not in it.",
        {bot: transfers.durations.get(bot, Durations()) for bot in bots})  # fmt: skip
    yield CounterMetricFamily("archiver_worker_leases_lost_total",
        "How often a worker lost its lease, and so its right to what it had in hand.",
        tally.leases_lost)  # fmt: skip
    yield CounterMetricFamily("archiver_session_leases_lost_total",
        "Attempts whose outcome could not be written, as the session was another's by then, or cancelled.",
        tally.lost)  # fmt: skip


def momentary_metrics(bots: Sequence[str], tally: Tally, now: Now) -> Iterator[Metric]:
    """Those that say what a worker is at, and nothing once it has ended."""
    running = {bot: [transfer for transfer in tally.transfers.running if transfer.bot == bot] for bot in bots}
    yield _by_bot(GaugeMetricFamily, "archiver_transfers_running",
        "Recordings on their way.",
        {bot: len(of) for bot, of in running.items()})  # fmt: skip
    yield _by_bot(GaugeMetricFamily, "archiver_transfer_bytes_in_flight",
        "Bytes that have come of the recordings on their way.",
        {bot: sum(transfer.received for transfer in of) for bot, of in running.items()})  # fmt: skip
    yield _by_bot(GaugeMetricFamily, "archiver_transfer_bytes_expected",
        "Bytes that the recordings on their way have; of one whose length is not known, those that have come.",
        {bot: sum(transfer.total or transfer.received for transfer in of) for bot, of in running.items()})  # fmt: skip
    yield GaugeMetricFamily("archiver_slots", "Sessions that this worker may have in hand at once.", now.slots)
    yield GaugeMetricFamily("archiver_slots_in_use", "Sessions that this worker has in hand.", now.slots_in_use)
    yield GaugeMetricFamily("archiver_lease_remaining_seconds",
        "How long this worker may still act unless it renews its lease; 0: it has lost it.",
        now.lease_remaining_seconds)  # fmt: skip
    if tally.config_reloaded_at is not None:
        yield GaugeMetricFamily("archiver_config_last_reload_successful",
            "Whether the configuration that was read last is in force.",
            float(bool(tally.config_reload_successful)))  # fmt: skip
        yield GaugeMetricFamily("archiver_config_last_reload_success_timestamp_seconds",
            "When one was put in force last; at first the start.",
            tally.config_reloaded_at)  # fmt: skip


def build_info(version: str) -> Metric:
    """Which program it is."""
    family = GaugeMetricFamily("archiver_build_info", "Always 1; the label says which version this is.", labels=["version"])
    family.add_metric([version], 1)
    return family


def readiness_metrics(readiness: Readiness) -> Iterator[Metric]:
    """What /readyz says."""
    yield GaugeMetricFamily("archiver_ready", "Whether /readyz answers 200.", float(readiness.ready))
    found = {each.reason for each in readiness.reasons}
    family = GaugeMetricFamily("archiver_not_ready", "Whether this is a reason why it does not.", labels=["reason"])
    for reason in REASONS:
        family.add_metric([reason], float(reason in found))
    yield family


def store_metrics(space: tuple[int, int] | None) -> Iterator[Metric]:
    """Bytes that are free, and bytes in all, of a folder; of a bucket nobody knows."""
    free = GaugeMetricFamily("archiver_store_free_bytes", "Bytes that may still be written where the store's folder is.")
    size = GaugeMetricFamily("archiver_store_size_bytes", "Bytes that there are in all.")
    if space is not None:
        free.add_metric([], space[0])
        size.add_metric([], space[1])
    yield from (free, size)


def _by_bot(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily], name: str, help_text: str, values: Mapping[str, float]
) -> Metric:
    family = kind(name, help_text, labels=["bot"])
    for bot, value in values.items():
        family.add_metric([bot], value)
    return family


Ends = Mapping[tuple[str, str, str], int]


def _sessions(name: str, help_text: str, zeros: Ends, attempts: Ends) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=["bot", "state", "reason"])
    counts = Counter(zeros)
    for (bot, state, reason), count in attempts.items():
        counts[bot, state, reason_label(reason)] += count
    for labels, value in counts.items():
        family.add_metric(labels, value)
    return family


def reason_label(reason: str) -> str:
    """A reason as a label. HTTP statuses are grouped by their first digit, as a host can send any of hundreds."""
    reason = re.sub(r"_http_(\d)\d*$", r"_http_\1xx", reason)
    return reason if re.fullmatch(r"[a-z_]{0,60}(\dxx)?", reason) else "other"


def _histogram(name: str, help_text: str, values: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=["bot"])
    for bot, durations in values.items():
        upto = itertools.accumulate(durations.counts)
        family.add_metric([bot], list(zip([*map(str, BUCKETS), "+Inf"], upto, strict=True)), durations.seconds)
    return family
