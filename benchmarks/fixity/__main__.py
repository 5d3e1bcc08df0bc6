"""`python -m benchmarks.fixity`: `archiver verify` beside programs that read and hash, or only read, the same files."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from archiver.observe.logs import configure
from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from benchmarks.fixity.peers import BUCKET, FOLDER, Peer, Reading, environment
from benchmarks.queue.server import Server, running
from benchmarks.transfer.corpus import Corpus, File, NotTheSameWork, make_corpus, parse_size
from benchmarks.transfer.figures import OURS, spread
from benchmarks.transfer.nginx import nginx
from benchmarks.transfer.process import Cost, adopt_orphans, run
from benchmarks.transfer.programs import ProgramMissing, program
from benchmarks.transfer.s3_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from benchmarks.transfer.seaweedfs import seaweedfs

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
AT_ONCE = 16
PREFIX = "bot=bot/date=2026-11-28/"

ROWS = """
WITH added AS (
    INSERT INTO archive_queue (bot, session_id) SELECT 'bot', s FROM unnest($1::text[]) s RETURNING id, session_id
)
INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type, source_name,
                                 queue_id, archived_at)
SELECT 'bot', a.session_id, 'recording', 1, n.name, n.key, n.bytes, n.sha256, 'audio/wav', n.name, a.id, now() - interval '1 day'
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[]) AS n (session_id, name, key, bytes, sha256)
JOIN added a ON a.session_id = n.session_id"""


@dataclass(frozen=True)
class Sample:
    """One run of one client."""

    place: str
    files: int
    size: str
    client: str
    beside: str
    seconds: float
    cpu_seconds: float
    database_cpu_seconds: float
    peak_bytes: int


class Bench:
    """What all cases share."""

    def __init__(self, folder: Path, server: Server, rounds: int, peers: Sequence[str], out: Console) -> None:
        self.folder = folder
        self.server = server
        self.out = out
        self.samples: list[Sample] = []
        self._rounds = rounds
        self._peers = peers

    async def rows(self, files: Sequence[File]) -> None:
        """Record these files, and nothing else."""
        connection = await asyncpg.connect(await self.server.create("round", "template_archiver"))
        try:
            for first in range(0, len(files), 10_000):
                some = files[first : first + 10_000]
                await connection.execute(
                    ROWS, [f"{file.session}-{file.name}" for file in some], [file.name for file in some],
                    [PREFIX + file.key for file in some], [file.bytes for file in some], [file.sha256 for file in some],
                    timeout=600,
                )  # fmt: skip
            await connection.execute("VACUUM ANALYZE", timeout=600)
        finally:
            await connection.close()

    def ours(
        self, storage: dict[str, Any], files: int, *, before: Callable[[], None], jobs: int | None = None
    ) -> tuple[Cost, float]:
        """`archiver verify`, once."""
        config = self._configuration(storage)
        before()
        used = self.server.cpu_seconds()
        options = [] if jobs is None else ["--jobs", str(jobs)]
        command = [sys.executable, "-m", "archiver", "--config", str(config), "verify", "--json", *options]
        cost = run(OURS, command, self.folder / "log")
        used = self.server.cpu_seconds() - used
        said = (self.folder / "log").read_text()
        told = json.loads(said[said.index("{\n") :])
        if (told["files"], told["equal"], told["findings_kept"]) != (files, files, True):
            raise NotTheSameWork(str(told)[:500])
        return cost, used

    def _configuration(self, storage: dict[str, Any]) -> Path:
        tables = {
            "database": {"url": self.server.named("round")},
            "log": {"level": "error"},
            "evidence": {"key_file": ""},
            **storage,
        }
        lines = []
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        path = self.folder / "archiver.toml"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        return path

    def turns(
        self, place: str, size: str, reading: Reading, peers: Sequence[Peer], storage: dict[str, Any], before: Callable[[], None]
    ) -> None:
        """Each peer and ours beside it, round by round."""
        count = len(reading.corpus.files)
        jobs = AT_ONCE if reading.bucket else None
        for turn in range(self._rounds):
            for peer in peers:
                if self._peers and peer.name not in self._peers:
                    continue
                for ours in (True, False) if turn % 2 else (False, True):
                    os.sync()
                    if ours:
                        cost, used = self.ours(storage, count, before=before, jobs=jobs)
                    else:
                        command = list(peer.command(reading))
                        before()
                        cost, used = run(peer.name, command, self.folder / "log", env=environment(reading)), 0.0
                        peer.check(reading, (self.folder / "log").read_text())
                    self.samples.append(
                        Sample(
                            place,
                            count,
                            size,
                            OURS if ours else peer.name,
                            peer.name,
                            cost.seconds,
                            cost.cpu_seconds,
                            used,
                            cost.peak_bytes,
                        )
                    )
        self._tell(place, size, reading.corpus)

    def _tell(self, place: str, size: str, corpus: Corpus) -> None:
        chosen = [sample for sample in self.samples if (sample.place, sample.size) == (place, size)]
        table = Table("client", "seconds", "MB/s", "files/s", "CPU s", "database CPU s", "peak MB", "archiver / it",
                      title=f"{place}: {len(corpus.files):,} x {size}", title_justify="left")  # fmt: skip
        for client in dict.fromkeys(sample.client for sample in chosen):
            runs = [sample for sample in chosen if sample.client == client]
            beside = [sample for sample in chosen if sample.client == OURS and sample.beside == client]
            ratios = [theirs.seconds / mine.seconds for theirs, mine in zip(runs, beside, strict=True)] if client != OURS else []
            table.add_row(
                client, spread((one.seconds for one in runs), ".2f"), f"{corpus.bytes / 1e6 / _median(runs):,.0f}",
                f"{len(corpus.files) / _median(runs):,.0f}", spread((one.cpu_seconds for one in runs), ".2f"),
                spread((one.database_cpu_seconds for one in runs), ".2f"), spread((one.peak_bytes / 1e6 for one in runs), ",.0f"),
                spread(ratios, ".2f") if ratios else "",
            )  # fmt: skip
        self.out.print(table)


def _median(runs: Sequence[Sample]) -> float:
    return statistics.median(one.seconds for one in runs)


# --- a folder


def _warm(corpus: Corpus) -> Callable[[], None]:
    def before() -> None:
        for file in corpus.files:
            with (corpus.folder / file.key).open("rb") as opened:
                while opened.read(1024 * 1024):
                    pass

    return before


def _cold() -> None:
    os.sync()
    DROP_CACHES.write_text("3")


async def folder(bench: Bench, size: str, count: int) -> None:
    """Warm, and cold where that can be had."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        store = Path(name) / "store"
        corpus = make_corpus(store / PREFIX, parse_size(size), count, count)
        await bench.rows(corpus.files)
        storage = {"storage": {"url": store.as_uri()}}
        scratch = Path(name) / "scratch"
        scratch.mkdir()
        bench.ours(storage, count, before=lambda: None)
        reading = Reading(corpus, scratch, AT_ONCE)
        await asyncio.to_thread(bench.turns, "folder, warm", size, reading, FOLDER, storage, _warm(corpus))
        if os.access(DROP_CACHES, os.W_OK):
            await asyncio.to_thread(bench.turns, "folder, cold", size, reading, FOLDER, storage, _cold)
        else:
            bench.out.print("folder, cold: left out: only root may drop what the system has cached")


async def many(bench: Bench, count: int) -> None:
    """The memory that it takes to verify very many small files: links to a few, 200 in each folder."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        store = Path(name) / "store"
        few = make_corpus(store / PREFIX / "few", 1024, 10, 10)
        files = []
        for number in range(count):
            of = few.files[number % 10]
            session, file_name = f"t{number // 200:05d}", f"r{number:07d}.wav"
            path = store / PREFIX / session / "recording" / file_name
            if number % 200 == 0:
                path.parent.mkdir(parents=True)
            path.hardlink_to(few.folder / of.key)
            files.append(File(session, file_name, of.bytes, of.sha256))
        await bench.rows(files)
        cost, used = await asyncio.to_thread(bench.ours, {"storage": {"url": store.as_uri()}}, count, before=lambda: None)
        bench.samples.append(Sample("many", count, "1KB", OURS, "", cost.seconds, cost.cpu_seconds, used, cost.peak_bytes))
        bench.out.print(
            f"{count:,} files of 1 KB: {cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s of processor time and {used:.1f} s of the "
            f"database's; peak {cost.peak_bytes / 1e6:.0f} MB",
            soft_wrap=True,
        )


# --- a bucket


@contextmanager
def _buckets(bench: Bench, name: str) -> Iterator[tuple[str, str, Callable[[Corpus], None]]]:
    """A server: its endpoint, its bucket, and what puts the files of a corpus there."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=bench.folder)))
        if name == "nginx":
            served = stack.enter_context(nginx(home / "nginx", program("nginx")))

            def link(corpus: Corpus) -> None:
                (served.root / "bench" / corpus.folder.parent.name).symlink_to(corpus.folder.parent)

            yield served.url, "bench", link
            return
        server = stack.enter_context(seaweedfs(home / "s3", program("weed")))
        place = stack.enter_context(server.place("run"))

        def upload(corpus: Corpus) -> None:
            import asyncio as loops

            from archiver.config import StorageSettings
            from archiver.runtime.buffers import Buffers
            from archiver.stores.open import open_store

            async def put() -> None:
                settings = StorageSettings.model_validate(_s3(server.endpoint, place.bucket, inside=True))
                async with open_store(settings, Buffers(256 * 2**20)) as store:
                    slots = loops.Semaphore(AT_ONCE)

                    async def one(file: File) -> None:
                        async with slots, store.upload(PREFIX + file.key, part=".x.part") as kept:
                            await kept.write((corpus.folder / file.key).read_bytes())
                            await kept.save()

                    await loops.gather(*(one(file) for file in corpus.files))

            loops.run(put())

        yield server.endpoint, place.bucket, upload


def _s3(endpoint: str, bucket: str, *, inside: bool = False) -> dict[str, Any]:
    keys = {"endpoint": endpoint, "region": "us-east-1", "path_style": True, "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET_ACCESS_KEY}  # fmt: skip
    url = f"s3://{bucket}"
    return {"url": url, "s3": keys} if inside else {"storage": {"url": url}, "storage.s3": keys}


async def bucket(bench: Bench, server: str, size: str, count: int) -> None:
    """From a server on this machine."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as name, _buckets(bench, server) as (endpoint, where, put):
        corpus = make_corpus(Path(name) / PREFIX, parse_size(size), count, count)
        await bench.rows(corpus.files)
        await asyncio.to_thread(put, corpus)
        scratch = Path(name) / "scratch"
        scratch.mkdir()
        reading = Reading(corpus, scratch, AT_ONCE, endpoint, where, PREFIX)
        storage = _s3(endpoint, where)
        await asyncio.to_thread(bench.turns, f"bucket ({server})", size, reading, BUCKET, storage, lambda: None)


def _cases(text: str) -> list[tuple[str, int]]:
    """`200x50MB,20000x64KB`."""
    return [(size, int(count)) for count, _, size in (one.partition("x") for one in text.split(",") if one)]


@click.command()
@click.option("--folder", "where", type=click.Path(path_type=Path, file_okay=False), help="Where everything lies.")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--folders", default="200x50MB,20000x64KB", show_default=True, help="Cases of a folder.")
@click.option("--buckets", default="200x8MB,5000x64KB", show_default=True, help="Cases of a bucket.")
@click.option("--servers", default="seaweedfs,nginx", show_default=True)
@click.option("--peers", default="", help="Only these.")
@click.option("--many", "count", type=int, default=200_000, show_default=True, help="Small files, for the memory. 0: none.")
@click.option("--json", "document", type=click.Path(path_type=Path), help="Every figure goes there.")
def main(
    where: Path | None, rounds: int, folders: str, buckets: str, servers: str, peers: str, count: int, document: Path | None
) -> None:
    """`archiver verify` beside programs that read and hash, or only read, the same files."""
    adopt_orphans()
    configure(level="error", form="json")
    out = Console(width=150)
    with tempfile.TemporaryDirectory(dir=where and where.resolve(), prefix="bench-fixity-") as name:
        Path(name).chmod(0o755)
        samples = asyncio.run(_main(Path(name), rounds, folders, buckets, servers, peers, count, out))
    if document is not None:
        document.write_text(json.dumps([asdict(sample) for sample in samples], indent=1))


async def _main(
    home: Path, rounds: int, folders: str, buckets: str, servers: str, peers: str, count: int, out: Console
) -> list[Sample]:
    async with running(home / "postgres") as server:
        async with Database(await server.create("template_archiver")) as database:
            await migrate(database)
        bench = Bench(home, server, rounds, [each for each in peers.split(",") if each], out)
        for size, number in _cases(folders):
            await folder(bench, size, number)
        for name in filter(None, servers.split(",")):
            for size, number in _cases(buckets):
                try:
                    await bucket(bench, name, size, number)
                except ProgramMissing as error:
                    out.print(f"bucket ({name}): left out: {error}")
        if count:
            await many(bench, count)
        return bench.samples


if __name__ == "__main__":
    main()
