"""`python -m benchmarks.transfer`: clients beside each other, size by size."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.transfer import disk, job, ours, s3
from benchmarks.transfer.bench import Bench, Case
from benchmarks.transfer.corpus import UNITS, Corpus, make_corpus, parse_size
from benchmarks.transfer.downloads import PEERS as DOWNLOADS
from benchmarks.transfer.figures import as_json, report
from benchmarks.transfer.nginx import make_certificate, nginx
from benchmarks.transfer.process import adopt_orphans
from benchmarks.transfer.programs import PACKAGES, install_missing, program, versions
from benchmarks.transfer.uploads import PEERS as UPLOADS
from benchmarks.transfer.volume import KINDS, volume

PARTS = ("disk", "https", "s3", "job")

COUNTS = {"64KB": 4000, "1MB": 800, "8MB": 128, "200MB": 8}
JOB_COUNTS = {"64KB": 3000, "8MB": 100}
TOTAL = UNITS["GB"]
"""Of a size that is not listed, so many bytes."""

LONG = 100 * UNITS["MB"]
MANY = 64
"""Of long recordings, with so many at once, there are as many as go at once, in one round: it is the memory that is looked at."""

console = Console(width=130)


def _chosen(among: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def words(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
        found = [word.strip() for word in value.split(",") if word.strip()]
        if unknown := set(found) - set(among):
            raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(among)}")
        return found

    return words


def _sizes(_context: click.Context, _option: click.Parameter, value: str) -> dict[str, int]:
    try:
        return {word.strip(): parse_size(word) for word in value.split(",")}
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _numbers(_context: click.Context, _option: click.Parameter, value: str) -> list[int]:
    try:
        return [int(word) for word in value.split(",")]
    except ValueError:
        raise click.BadParameter("numbers with commas between them") from None


def _buffer(_context: click.Context, _option: click.Parameter, value: str) -> int:
    try:
        return ours.parse_buffer(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--only", "parts", default=",".join(PARTS), show_default=True, callback=_chosen(PARTS), help="Parts to run.")
@click.option("--sizes", default="64KB,1MB,8MB,200MB", show_default=True, callback=_sizes, help="Sizes of the recordings.")
@click.option("--concurrency", default="16,64", show_default=True, callback=_numbers, help="Files at once.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; in each every peer has its turn, and ours after it.")
@click.option("--scale", default=1.0, show_default=True, help="Times as many files; 0.05 for a smoke test.")
@click.option(
    "--peers", default="", callback=_chosen((*DOWNLOADS, *UPLOADS)), metavar="NAMES",
    help=f"Only these: {', '.join(dict.fromkeys((*DOWNLOADS, *UPLOADS)))}.",
)  # fmt: skip
@click.option("--s3-server", type=click.Choice(s3.SERVERS), default=s3.SERVERS[0], show_default=True, help="See the README.")
@click.option("--disk", type=click.Choice(KINDS), default="here", show_default=True,
              help="Work in the temporary folder, or on a file system with a journal (for root); see the README.")  # fmt: skip
@click.option("--loop", type=click.Choice(["asyncio", "uvloop"]), default="uvloop", show_default=True, help="Ours runs on it.")
@click.option("--max-buffer", default="", callback=_buffer, metavar="SIZE",
              help="transfer.max_buffer of ours, such as 64MiB; left out, the product's own.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
@click.option("--profiles", type=click.Path(path_type=Path), help="Keep cProfile's view of ours there; its times suffer.")
def main(json_file: Path | None, **options: Any) -> None:
    """Measure the transfers beside others; see the README beside this file."""
    # Everything is cleaned up on the way out, so a request to end is turned into an exception.
    signal.signal(signal.SIGTERM, _end)
    adopt_orphans()
    install_missing(list(PACKAGES))
    facts = {"python": platform.python_version(), "processors": os.cpu_count(), "versions": versions(), **_plain(options)}
    console.print_json(data=facts)
    with tempfile.TemporaryDirectory(prefix="transfer-benchmark-") as folder:
        # Postgres, started by root, runs as another account, and has to get in.
        Path(folder).chmod(0o755)
        with volume(Path(folder), options["disk"]) as work:
            bench = Bench(work, options["peers"], options["loop"], options["profiles"], options["max_buffer"], console)
            try:
                _measure(bench, **options)
            finally:
                report(console, bench.samples)
                if json_file is not None:
                    json_file.write_text(json.dumps(as_json(facts, bench.samples), indent=1) + "\n")


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, list | dict | int | float) else str(value) for name, value in options.items()}


def _measure(
    bench: Bench,
    *,
    parts: list[str],
    sizes: dict[str, int],
    concurrency: list[int],
    rounds: int,
    scale: float,
    s3_server: str,
    **_: Any,
) -> None:
    with ExitStack() as stack:
        certificate = make_certificate(bench.folder / "certificate")
        http = stack.enter_context(nginx(bench.folder / "http", program("nginx")))
        https = stack.enter_context(nginx(bench.folder / "https", program("nginx"), certificate=certificate, root=http.root))
        upload = stack.enter_context(s3.prepared(bench, s3_server, http)) if "s3" in parts else None
        for label, size in sizes.items():
            for at_once in concurrency:
                memory = size >= LONG and at_once >= MANY
                usual = COUNTS.get(label, min(4000, max(8, TOTAL // size)))
                count = at_once if memory else max(2, int(usual * scale))
                with _corpus(http.files / f"{label}-{count}", size, count, usual if memory else count) as corpus:

                    def case(
                        part: str, at_once: int = at_once, corpus: Corpus = corpus, label: str = label, memory: bool = memory
                    ) -> Case:
                        return Case(part, label, at_once, corpus, 1 if memory else rounds)

                    if "disk" in parts:
                        disk.measure(bench, case("disk"), http, None)
                    if "https" in parts and not memory:
                        disk.measure(bench, case("https"), https, certificate.authority)
                    if upload is not None and not memory:
                        s3.measure(bench, case(f"s3 ({s3_server})"), http, upload)
        if "job" in parts:
            for label, usual in JOB_COUNTS.items():
                if label in sizes:
                    count = max(2, int(usual * scale))
                    with _corpus(http.files / f"job-{label}", sizes[label], count, count) as corpus:
                        asyncio.run(job.measure(bench, label, corpus, concurrency, rounds, http))


@contextmanager
def _corpus(folder: Path, size: int, count: int, distinct: int) -> Iterator[Corpus]:
    try:
        yield make_corpus(folder, size, count, distinct)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
