"""How far large recordings are: in the log, and in the worker's row, from where `archiver status` reads it.

A fleet of small files costs nothing here: only what has been on its way for a while is written down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from archiver.errors import DatabaseError
from archiver.observe.logs import logger
from archiver.observe.transfers import Transfer, Transfers
from archiver.outcome import facts_of
from archiver.queue.sessions import Queue
from archiver.worker.lease import Lease

log = logger(__name__)

READ_SECONDS = 1.0
"""The pause between two readings that rates are made of."""

WRITE_SECONDS = 2.0
"""What has been on its way for so long is written to the worker's row, and so often."""

TELL_SECONDS = 30.0
"""What has been on its way for so long is logged, and so often."""

LISTED = 100
"""So many transfers are written one by one, those that have been on their way longest; the others are only counted."""


async def log_long_transfers(transfers: Transfers) -> None:
    """Take the readings that rates are made of, and log how far each large recording is, for a worker that nobody watches."""
    due: dict[Transfer, float] = {}
    while True:
        await asyncio.sleep(READ_SECONDS)
        now = time.monotonic()
        transfers.read(now)
        due = {transfer: due.get(transfer, now) for transfer in transfers.lasting(TELL_SECONDS, now)}
        for transfer, at in due.items():
            if now >= at:
                due[transfer] = now + TELL_SECONDS
                log.info("transfer_progressed", session=transfer.session_id, bot=transfer.bot, file=transfer.file_name,
                         bytes=transfer.received, total=transfer.total, bytes_per_second=round(transfer.rate(now)),
                         seconds=round(transfer.seconds(now)))  # fmt: skip


async def record_long_transfers(transfers: Transfers, queue: Queue, lease: Callable[[], Lease | None]) -> None:
    """Keep the worker's row up to date while something large is on its way, and write once more when nothing is.

    Beside everything else: neither a transfer nor the lease waits for it. One write at a time, so that it never has more than one
    connection, however the database hangs.
    """
    written = False
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        now, held = time.monotonic(), lease()
        large = transfers.lasting(WRITE_SECONDS, now)
        if held is None or held.lost or not (large or written):
            continue
        try:
            await queue.record_progress(held.worker_id, progress_of(large, transfers.bytes, now))
            written = bool(large)
        except DatabaseError as error:
            log.debug("progress_write_failed", **facts_of(error))  # others say that the database is away


def progress_of(large: Sequence[Transfer], received: int, now: float) -> dict[str, Any]:
    """What the worker's row says. `total` is None unless all of them have one."""
    totals = [transfer.total for transfer in large if transfer.total is not None]
    return {
        "running": len(large),
        "bytes": sum(transfer.received for transfer in large),
        "total": sum(totals) if len(totals) == len(large) else None,
        "bytes_per_second": round(sum(transfer.rate(now) for transfer in large)),
        "received_bytes": received,
        "transfers": [
            {
                "bot": transfer.bot,
                "session_id": transfer.session_id,
                "file_name": transfer.file_name,
                "bytes": transfer.received,
                "total": transfer.total,
                "bytes_per_second": round(transfer.rate(now)),
                "seconds": round(transfer.seconds(now), 1),
            }
            for transfer in large[:LISTED]
        ],
    }
