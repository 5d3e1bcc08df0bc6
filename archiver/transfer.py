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
from archiver.transient import retry_transient


@dataclass(frozen=True)
class Transferred:
    """A recording that the store has confirmed, and what it turned out to be."""

    saved: Saved
    inspection: Inspection


@dataclass(frozen=True)
class Target:
    """Where one recording goes: its key, the clean name that it has there, and the name of its temporary object. A body that is
    refused goes to `quarantine` + its length + name, always if it conflicts with what `key` holds, else with `keep_rejected`.
    """

    key: str
    name: str
    part: str
    quarantine: str
    keep_rejected: bool


@retry_transient(MediaUnreachable)
async def transfer(
    url: str, to: Target, media: MediaClient, store: Store, guard: Callable[[], None], on_bytes: Callable[[int], None]
) -> Transferred:
    """Fetch `url` into `to.key` of the store. Memory is constant whatever the length.

    A short break of the media host is waited out here: to come again through the queue would cost a call to the platform.
    `guard` is called before any final key appears, and raises LeaseLost. A body that is not the recording, or not all of it,
    raises TransferError; it may be the only copy, so the last one is kept. Raises StoreError besides.
    """
    async with media.open(url) as response, store.upload(to.key, part=to.part, movable=to.keep_rejected) as upload:
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
            inspection = inspect(
                name=to.name, head=bytes(head), length=received, content_type=response.headers.get("Content-Type")
            )
            return Transferred(await upload.save(guard=guard), inspection)
        except (MediaUnreachable, RecordingRejected, KeyConflict) as error:
            if received and (to.keep_rejected or isinstance(error, KeyConflict)):
                # An earlier try of this same attempt may have left another body of this length there: then that one stays.
                with suppress(KeyConflict):
                    error.facts["quarantined"] = (await upload.save(f"{to.quarantine}{received}-{to.name}", guard=guard)).key
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
