"""What every part shares: the temporary folder, the turns of the clients, and where the samples go."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.transfer.corpus import Corpus
from benchmarks.transfer.figures import OURS, Sample
from benchmarks.transfer.process import Cost

Run = Callable[[str], tuple[Cost, float, float | None]]
"""Runs the named client; returns what it took, the server's processor time, and the time inside, if told."""


@dataclass(frozen=True)
class Case:
    """So many files of a size, so many at once."""

    part: str
    size: str
    concurrency: int
    corpus: Corpus
    rounds: int


@dataclass
class Bench:
    """One run of the benchmark."""

    folder: Path
    peers: Sequence[str]
    """Only these; all if empty."""
    loop: str
    profiles: Path | None
    """Where ours leaves a profile of each of its runs."""
    max_buffer: int
    """Bytes that ours may have on their way."""
    console: Console
    samples: list[Sample] = field(default_factory=list)

    def wants(self, peer: str) -> bool:
        """Whether a peer was chosen."""
        return not self.peers or peer in self.peers

    def profile(self, case: Case) -> str:
        """The file for a profile of ours; empty for none."""
        if self.profiles is None:
            return ""
        self.profiles.mkdir(parents=True, exist_ok=True)
        return str((self.profiles / f"{case.part}-{case.size}-{case.concurrency}.prof").absolute())

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty folder for one run, which is removed with all that the run left."""
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def turns(self, case: Case, peers: Sequence[str], run: Run, *, without_ours: bool = False) -> None:
        """peer, ours, next peer, ours, ...: each ratio is between neighbours in time."""
        for number in range(case.rounds):
            for peer in peers:
                for client in (peer,) if without_ours else (peer, OURS):
                    # Nothing that an earlier run has written is left for the disk to do in this one.
                    os.sync()
                    cost, server, inside = run(client)
                    self.record(case, client, peer, number, cost, server, inside)

    def record(self, case: Case, client: str, beside: str, number: int, cost: Cost, server: float, inside: float | None) -> None:
        """Keep a sample, and say that it is there."""
        sample = Sample(
            part=case.part,
            size=case.size,
            concurrency=case.concurrency,
            client=client,
            beside=beside,
            round=number,
            files=len(case.corpus.files),
            bytes=case.corpus.bytes,
            seconds=cost.seconds,
            cpu_seconds=cost.cpu_seconds,
            peak_bytes=cost.peak_bytes,
            server_cpu_seconds=server,
            inside_seconds=inside,
        )
        self.samples.append(sample)
        self.console.print(
            f"{case.part} {case.size} x {sample.files}, {case.concurrency} at once, round {number + 1}: {client}:"
            f" {sample.rate:,.0f} MB/s, {sample.files / sample.seconds:,.0f} files/s ({sample.seconds:.2f} s)",
            highlight=False,
        )
