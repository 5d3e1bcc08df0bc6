"""Every metric of a worker, in one list, and the server that Prometheus scrapes. Needs the extra `metrics`.

Metrics are computed on each scrape from what the worker counts anyway, so they cost a recording nothing. Labels have few values:
names from the configuration, states and reasons. No session ID, no file name, nothing from outside.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from archiver.observe.listening import listening
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.observe.transfers import BUCKETS, Durations

log = logger(__name__)


STATES = ("pending", "claimed", "archived", "unavailable", "failed", "cancelled")


@dataclass(frozen=True)
class Now:
    """A worker's slots and lease at this moment."""

    slots: int
    slots_in_use: int
    lease_remaining_seconds: float


def metrics(bots: Sequence[str], tally: Tally, now: Now, ends: Mapping[str, Iterable[str]]) -> Iterator[Metric]:
    """Every metric. Counters are there at 0 from the start, so that an alert sees the first increase: `ends` are the states and
    reasons with which attempts are known to end.
    """
    transfers = tally.transfers
    running = {bot: [transfer for transfer in transfers.running if transfer.bot == bot] for bot in bots}

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
    if tally.queue is not None:
        queue = GaugeMetricFamily(
            "archiver_queue_sessions", "Sessions of the archive by state, whichever worker had them.", labels=["bot", "state"]
        )
        for bot in bots:
            for state in STATES:
                queue.add_metric([bot, state], tally.queue.get((bot, state), 0))
        yield queue
    if tally.unsealed_seconds is not None:
        yield GaugeMetricFamily("archiver_unsealed_seconds",
            "For how long what happened first, of what is not in the ledger yet, has waited to be sealed.",
            tally.unsealed_seconds)  # fmt: skip
    if tally.oldest_verification_seconds is not None:
        yield GaugeMetricFamily("archiver_oldest_verification_seconds",
            "How long ago the recording of the archive was read again, or archived, for which that is longest ago.",
            tally.oldest_verification_seconds)  # fmt: skip
    if tally.damaged_sessions is not None:
        yield GaugeMetricFamily("archiver_damaged_sessions",
            "Sessions of the archive of which verify found files wrong that nobody mended or accepted.",
            tally.damaged_sessions)  # fmt: skip
    yield _by_bot(GaugeMetricFamily, "archiver_transfers_running",
        "Recordings on their way.",
        {bot: len(of) for bot, of in running.items()})  # fmt: skip
    yield _by_bot(GaugeMetricFamily, "archiver_transfer_bytes_in_flight",
        "Bytes that have come of the recordings on their way.",
        {bot: sum(transfer.received for transfer in of) for bot, of in running.items()})  # fmt: skip
    yield _by_bot(GaugeMetricFamily, "archiver_transfer_bytes_expected",
        "Bytes that the recordings on their way have; of one whose length is not known, those that have come.",
        {bot: sum(transfer.total or transfer.received for transfer in of) for bot, of in running.items()})  # fmt: skip
    yield _histogram("archiver_transfer_seconds",
        "How long recordings took to come and be stored; those that failed are not in it.",
        {bot: transfers.durations.get(bot, Durations()) for bot in bots})  # fmt: skip
    yield GaugeMetricFamily("archiver_slots", "Sessions that this worker may have in hand at once.", now.slots)
    yield GaugeMetricFamily("archiver_slots_in_use", "Sessions that this worker has in hand.", now.slots_in_use)
    yield GaugeMetricFamily("archiver_lease_remaining_seconds",
        "How long this worker may still act unless it renews its lease; 0: it has lost it.",
        now.lease_remaining_seconds)  # fmt: skip


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
        counts[bot, state, _reason_label(reason)] += count
    for labels, value in counts.items():
        family.add_metric(labels, value)
    return family


def _reason_label(reason: str) -> str:
    """A reason as a label. HTTP statuses are grouped by their first digit, as a host can send any of hundreds."""
    reason = re.sub(r"_http_(\d)\d*$", r"_http_\1xx", reason)
    return reason if re.fullmatch(r"[a-z_]{0,60}(\dxx)?", reason) else "other"


def _histogram(name: str, help_text: str, values: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=["bot"])
    for bot, durations in values.items():
        upto = itertools.accumulate(durations.counts)
        family.add_metric([bot], list(zip([*map(str, BUCKETS), "+Inf"], upto, strict=True)), durations.seconds)
    return family


class _WorkerCollector(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


@asynccontextmanager
async def served(
    host: str, port: int, read: Callable[[], Iterable[Metric]], *, before: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Serve what `read` returns at /metrics, `before` having been awaited each time; port 0 is any free one. Raises OSError, such
    as for a port in use.
    """
    registry = CollectorRegistry()
    registry.register(_WorkerCollector(read))

    async def answer(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        if before is not None:
            await before()
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def close(_: web.Request, response: web.StreamResponse) -> None:
        response.force_close()  # one request for each connection, within its limits
        response.headers["Connection"] = "close"

    app = web.Application()
    app.router.add_get("/metrics", answer)
    app.on_response_prepare.append(close)
    # An open connection does not delay the end of the worker.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        assert runner.server is not None
        async with AsyncExitStack() as stack:
            try:
                bound_port = await stack.enter_async_context(listening(runner.server, host, port))
            except (OSError, UnicodeError) as error:
                number = getattr(error, "errno", None) or 0
                why = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or "not a host name"
                raise OSError(number, why) from None
            log.info("metrics_server_started", host=host, port=bound_port, path="/metrics")
            yield
    finally:
        await runner.cleanup()
