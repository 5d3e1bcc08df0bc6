"""What was measured, and how it is told: medians with their spread, ratios between neighbours in time."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

OURS = "archiver"


@dataclass(frozen=True)
class Sample:
    """One run of one client."""

    part: str
    size: str
    concurrency: int
    client: str
    beside: str
    """The peer whose turn it was: of ours there is a run beside each."""
    round: int
    files: int
    bytes: int
    seconds: float
    """From the start of the process to its end."""
    cpu_seconds: float
    peak_bytes: int
    server_cpu_seconds: float
    inside_seconds: float | None = None
    """Of clients in Python that tell it: the transfers alone, without the interpreter's start; ours in the whole job: from the
    first claim to the last settle.
    """

    @property
    def rate(self) -> float:
        """Megabytes (10^6) a second."""
        return self.bytes / self.seconds / 1e6


def spread(values: Iterable[float], form: str) -> str:
    """`median (min..max)`."""
    found = list(values)
    if len(found) == 1:
        return f"{found[0]:{form}}"
    return f"{statistics.median(found):{form}} ({min(found):{form}}..{max(found):{form}})"


def report(console: Console, samples: Sequence[Sample]) -> None:
    """A table for each part, size and concurrency."""
    groups = dict.fromkeys((sample.part, sample.size, sample.concurrency) for sample in samples)
    for group in groups:
        chosen = [sample for sample in samples if (sample.part, sample.size, sample.concurrency) == group]
        part, size, concurrency = group
        # Of one file count for all: it is the same work.
        table = Table(
            "client", "MB/s", "files/s", "CPU s/GB", "peak MB", "archiver / it", "inside", title_justify="left",
            title=f"{part}: {chosen[0].files} x {size}, {concurrency} at once",
        )  # fmt: skip
        for client in dict.fromkeys(sample.client for sample in chosen):
            runs = [sample for sample in chosen if sample.client == client]
            table.add_row(
                client,
                spread((run.rate for run in runs), ",.0f"),
                spread((run.files / run.seconds for run in runs), ",.0f"),
                spread((run.cpu_seconds / run.bytes * 1e9 for run in runs), ",.2f"),
                spread((run.peak_bytes / 1e6 for run in runs), ",.0f"),
                _ratios(runs, chosen, inside=False),
                _ratios(runs, chosen, inside=True),
            )
        console.print(table)


def _ratios(runs: Sequence[Sample], chosen: Sequence[Sample], *, inside: bool) -> str:
    ours = {(run.round, run.beside): run for run in chosen if run.client == OURS}
    ratios = []
    for run in runs:
        mine = ours.get((run.round, run.beside))
        if run.client == OURS or mine is None:
            continue
        if not inside:
            ratios.append(run.seconds / mine.seconds)
        elif mine.inside_seconds:
            ratios.append((run.inside_seconds or run.seconds) / mine.inside_seconds)
    return spread(ratios, ".2f") if ratios else ""


def as_json(facts: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """Every figure."""
    return {"facts": facts, "samples": [asdict(sample) | {"mb_per_second": sample.rate} for sample in samples]}
