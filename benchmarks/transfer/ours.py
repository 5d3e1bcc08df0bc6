"""The archiver: all that touches its insides is in this one file.

`python -m benchmarks.transfer.ours ORDER RESULT` is the client process of the parts that transfer. The whole job is run by the
archiver's own command; what that needs is at the end.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import ValidationError

from archiver.archive.download import Download
from archiver.archive.media import MediaClient, MediaHosts
from archiver.archive.transfer import Target, transfer
from archiver.config import BotSettings, RetrySettings, StorageSettings, TransferSettings
from archiver.errors import ArchiverError, MediaUrlExpired
from archiver.observe.logs import configure
from archiver.observe.transfers import Transfers
from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.queue.sessions import NewSession, Queue
from archiver.runtime.buffers import Buffers
from archiver.stores import Store
from archiver.stores.open import open_store

BOT = "bench"
BOT_ID = "st-bench"
API = f"/api/public/bot/{BOT_ID}/v2/recordings?sessionId="

_BOT = {
    "name": BOT,
    "bot_id": BOT_ID,
    "client_id": "cs-bench",
    "client_secret": "a secret of this benchmark alone",
    "media_hosts": ["127.0.0.1"],
    "rate_limits": ["999999999/second"],
}


def folder_storage(folder: Path) -> dict[str, Any]:
    """`[storage]` of a folder."""
    return {"url": folder.as_uri()}


def s3_storage(endpoint: str, bucket: str, prefix: str, access_key_id: str, secret_access_key: str) -> dict[str, Any]:
    """`[storage]` of a bucket."""
    keys = {"access_key_id": access_key_id, "secret_access_key": secret_access_key}
    return {
        "url": f"s3://{bucket}/{prefix}",
        "s3": {"endpoint": endpoint, "region": "us-east-1", "path_style": True, **keys},
    }


def parse_buffer(text: str) -> int:
    """`transfer.max_buffer`; the product's own if empty. Raises ValueError."""
    return (TransferSettings.model_validate({"max_buffer": text}) if text else TransferSettings()).max_buffer


def longest_whole(storage: dict[str, Any]) -> int:
    """Bytes of the longest object that such a store writes by one request."""
    return StorageSettings.model_validate(storage).s3.part_size


def unavailable(storage: dict[str, Any]) -> str:
    """Why there is no such store; empty if there is one."""

    async def try_it() -> None:
        async with open_store(StorageSettings.model_validate(storage), Buffers(parse_buffer(""))):
            pass

    try:
        asyncio.run(try_it())
    except ValidationError as error:
        return "; ".join(str(item["msg"]) for item in error.errors(include_url=False))
    except (ArchiverError, ImportError) as error:
        return str(error)
    return ""


def command(
    scratch: Path,
    storage: dict[str, Any],
    files: Sequence[tuple[str, str, str]],
    concurrency: int,
    *,
    loop: str,
    profile: str,
    max_buffer: int,
    untried: bool = False,
) -> tuple[list[str], Path]:
    """The client process for files of (URL, session, name), and where it leaves its result. `untried`: it does not try the S3
    server, and takes it for one that keeps to all it must.
    """
    order, result = scratch / "order.json", scratch / "result.json"
    told = {"storage": storage, "files": files, "concurrency": concurrency, "loop": loop, "profile": profile}
    order.write_text(json.dumps(told | {"max_buffer": max_buffer, "untried": untried}))
    return [sys.executable, "-m", "benchmarks.transfer.ours", str(order), str(result)], result


@dataclass(frozen=True)
class _Known:
    """A URL that does not expire."""

    url: str

    async def renew(self, refused: MediaUrlExpired) -> None:
        raise refused

    def refused_afresh(self) -> None:
        raise AssertionError


async def _check(store: Store, *, untried: bool) -> None:
    if not untried:
        await store.check()
        return
    # Imported here: a process that has no bucket does not pay for them.
    from archiver.stores.bucket.driver import Tried
    from archiver.stores.bucket.store import BucketStore

    assert isinstance(store, BucketStore)
    store.driver.trial.skip(Tried())


async def _transfer_all(told: dict[str, Any]) -> float:
    """The real transfer into the real store, so many at once. Returns the seconds from the first to the last."""
    transfers = Transfers()
    slots = asyncio.Semaphore(told["concurrency"])
    async with open_store(StorageSettings.model_validate(told["storage"]), Buffers(told["max_buffer"])) as store:
        await _check(store, untried=told["untried"])
        media = MediaClient(MediaHosts.of(BotSettings.model_validate(_BOT)))

        async def one(url: str, session: str, name: str) -> None:
            folder = f"{session}/recording"
            to = Target(f"{folder}/{name}", name, f".{name}.part", f"quarantine/{folder}/", False, 2**40, "the benchmark")
            async with slots:
                with transfers.track(BOT, session, name) as progress:
                    source = _Known(url)
                    await transfer(lambda: Download(media, source, progress, transfers), to, store, lambda: None)

        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as tasks:
                for file in told["files"]:
                    tasks.create_task(one(*file))
            return time.perf_counter() - began
        finally:
            await media.close()


def main() -> None:
    """Do as the order says."""
    told = json.loads(Path(sys.argv[1]).read_text())
    configure(level="warning", form="auto")
    profile = cProfile.Profile() if told["profile"] else None
    if profile is not None:
        profile.enable()
    if told["loop"] == "uvloop":
        import uvloop

        seconds = uvloop.run(_transfer_all(told))
    else:
        seconds = asyncio.run(_transfer_all(told))
    if profile is not None:
        profile.disable()
        profile.dump_stats(told["profile"])
    Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds}))


# --- the whole job


async def install(dsn: str) -> None:
    """Migrated, as the command of that name does it."""
    async with Database(dsn, pool_size=1) as database:
        await migrate(database)
        await Queue(database, RetrySettings()).record_bots([BOT], complete=True)


async def enqueue(dsn: str, sessions: Sequence[str]) -> None:
    """As the archiver's own command does it."""
    async with Database(dsn, pool_size=1) as database:
        added, _ = await Queue(database, RetrySettings()).enqueue([NewSession(BOT, one) for one in sessions], actor="benchmark")
    assert added == len(sessions), "some were there before"


def worker_command(scratch: Path, dsn: str, host: str, folder: Path, concurrency: int, max_buffer: int) -> list[str]:
    """A worker that drains the queue, into keys as the other parts have them."""
    bot = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {**_BOT, "host": host}.items())
    config = scratch / "archiver.toml"
    config.write_text(
        f"[database]\nurl = {json.dumps(dsn)}\n[[bots]]\n{bot}"
        f'[storage]\nurl = "{folder.as_uri()}"\npath = "{{session_id}}/{{kind}}/{{file_name}}"\n'
        f'[transfer]\nmax_buffer = {max_buffer}\n[worker]\nconcurrency = {concurrency}\n[log]\nlevel = "warning"\n'
    )
    return [sys.executable, "-m", "archiver", "--config", str(config), "worker", "--drain"]


async def worked(dsn: str, sessions: int) -> float:
    """Seconds from the first claim to the last settle. Raises ValueError unless every session has its recording."""
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM archive_sessions WHERE state = 'archived') AS archived,
                   (SELECT count(*) FROM archived_recordings) AS recordings,
                   (SELECT extract(epoch FROM max(at) FILTER (WHERE event = 'archived')
                                            - min(at) FILTER (WHERE event = 'claimed'))::float FROM archive_history) AS seconds
            """
        )
        assert row is not None
        if (row["archived"], row["recordings"]) != (sessions, sessions):
            raise ValueError(f"of {sessions} sessions {row['archived']} are archived, with {row['recordings']} recordings")
        seconds: float = row["seconds"]
        return seconds
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
