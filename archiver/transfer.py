"""One recording: open -> stream, hash, count -> judge -> save. This is what gets retried, and nothing around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from archiver.errors import KeyConflict, MediaUnreachable, RecordingRejected
from archiver.kore.media import MediaClient
from archiver.recording import HEAD_BYTES, Inspection, inspect
from archiver.stores import Saved, Store


@dataclass(frozen=True)
class Transferred:
    """A recording that the store has confirmed, and what it turned out to be."""

    saved: Saved
    inspection: Inspection


async def transfer(
    media: MediaClient,
    store: Store,
    url: str,
    key: str,
    *,
    name: str,
    part: str,
    quarantine: Callable[[int], str],
    keep_rejected: bool,
    guard: Callable[[], None],
    on_bytes: Callable[[int], None],
) -> Transferred:
    """Fetch `url` into `key` of the store.

    Memory is constant whatever the length. `guard` is called before any final key appears, and raises LeaseLost. A body that is
    not the recording, or not all of it, raises TransferError; with `keep_rejected` it is kept under the key that `quarantine`
    makes of its length, as it may be the only copy. A body that conflicts with what `key` holds is always kept. Raises StoreError
    and LeaseLost besides.
    """
    async with media.open(url) as response, store.upload(key, part=part) as upload:
        head = bytearray()
        received = 0
        try:
            try:
                async for chunk in _body(response):
                    if len(head) < HEAD_BYTES:
                        head += chunk[: HEAD_BYTES - len(head)]
                    received += len(chunk)
                    on_bytes(len(chunk))
                    await upload.write(chunk)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise _broken(error, response.content_length, received, bytes(head)) from None
            _check_length(response, received)
            inspection = inspect(name=name, head=bytes(head), length=received, content_type=response.headers.get("Content-Type"))
            return Transferred(await upload.save(guard=guard), inspection)
        except (MediaUnreachable, RecordingRejected, KeyConflict) as error:
            if received and (keep_rejected or isinstance(error, KeyConflict)):
                # An earlier try of this same attempt may have left another body of this length there: then that one stays.
                with suppress(KeyConflict):
                    error.facts["quarantined"] = (await upload.save(quarantine(received), guard=guard)).key
            raise


async def _body(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes. When the connection breaks, what had arrived by then comes first: aiohttp would throw it away."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError):
        if left := response.content._read_nowait(-1):
            yield left
        raise


def _broken(error: Exception, promised: int | None, received: int, head: bytes) -> MediaUnreachable:
    return MediaUnreachable(
        f"the connection broke after {received} bytes" + (f" of {promised}" if promised is not None else ""),
        reason="recording_stalled" if isinstance(error, TimeoutError) else "recording_truncated",
        expected=promised,
        received=received,
        first_bytes=repr(head[:64])[2:-1],
        error=type(error).__name__,
    )


def _check_length(response: aiohttp.ClientResponse, received: int) -> None:
    promised = response.content_length
    if promised is not None and promised != received:
        raise RecordingRejected(
            f"{received} bytes came, {promised} were promised", reason="recording_truncated", expected=promised, received=received
        )
