"""One recording: open -> stream, hash, count -> judge -> save. This is what gets retried, and nothing around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from archiver.archive.audio import Inspection
from archiver.archive.download import Body
from archiver.errors import (
    CredentialsRejected,
    KeyConflict,
    KoreError,
    MediaNotResumable,
    RateLimited,
    RecordingRejected,
    RecordingTooLarge,
    TransferError,
)
from archiver.runtime.retry import retry_transient
from archiver.stores import Saved, Store


@dataclass(frozen=True)
class Transferred:
    """A recording that the store has confirmed, and what it turned out to be. `breaks`: so often it went on in its middle."""

    saved: Saved
    inspection: Inspection
    breaks: int = 0


@dataclass(frozen=True)
class Target:
    """Where one recording goes: its key, the clean name that it has there, and the name of its temporary object. A body that is
    refused goes to `quarantine` + its length + name, always if it conflicts with what `key` holds, else with `keep_rejected`;
    but not one of more than `limit` bytes, as `limited_by` says in the configuration. None for it: nothing refused is kept. If
    `sha256` is given, only a body with that hash is taken.
    """

    key: str
    name: str
    part: str
    quarantine: str | None
    keep_rejected: bool
    limit: int
    limited_by: str
    sha256: str | None = None


@retry_transient(MediaNotResumable)
async def transfer(open_body: Callable[[], Body], to: Target, store: Store, guard: Callable[[], None]) -> Transferred:
    """Take a body into `to.key` of the store. Memory is constant whatever its length.

    A short break of a media host is waited out here: to come again through the queue would cost a call to the platform.
    `guard` is called before any final key appears, and raises LeaseLost. A body that is not the recording, or not all of it,
    raises TransferError; it may be the only copy, so the last one is kept. Raises StoreError, and what the body does, besides.
    """
    # Memory first: while it is waited for, no connection is open that could run out of patience, and no URL has been used. For
    # what lies in the platform's answer it is waited for while the answer is open: that it has one has only just turned out.
    async with store.upload(to.key, part=to.part, movable=to.keep_rejected) as upload, open_body() as body:
        _check_size(body, to)
        if body.expected is not None:
            upload.expect(body.expected)
        digest = hashlib.sha256() if to.sha256 is not None else None
        try:
            async for piece in body.pieces():
                _check_size(body, to)
                if digest is not None:
                    digest.update(piece)
                await upload.write(piece)
            _check_length(body)
            inspection = body.inspect(to.name)
            if digest is not None and digest.hexdigest() != to.sha256:
                raise RecordingRejected(
                    f"{body.received} bytes with the hash {digest.hexdigest()} came, {to.sha256} is recorded",
                    reason="recording_differs",
                    received=body.received,
                )
            return Transferred(await upload.save(guard=guard), inspection, body.breaks)
        except (TransferError, KoreError, KeyConflict) as error:
            # A rate limit and rejected credentials cost no attempt: the session comes again. What is too large is so there, too.
            last = to.keep_rejected and not isinstance(error, RateLimited | CredentialsRejected | RecordingTooLarge)
            if to.quarantine is not None and body.received and (last or isinstance(error, KeyConflict)):
                # An earlier try of this same attempt may have left another body of this length there: then that one stays.
                with suppress(KeyConflict):
                    saved = await upload.save(f"{to.quarantine}{body.received}-{to.name}", guard=guard)
                    error.facts |= {"quarantined": saved.key, "quarantined_sha256": saved.sha256, "whole": body.whole}
            raise


def _check_size(body: Body, to: Target) -> None:
    if max(body.expected or 0, body.received) > to.limit:
        raise RecordingTooLarge(limit=to.limit, key=to.limited_by, promised=body.expected, received=body.received)


def _check_length(body: Body) -> None:
    promised, received = body.expected, body.received
    if promised is not None and promised != received:
        raise RecordingRejected(
            f"{received} bytes came, {promised} were promised", reason="recording_truncated", expected=promised, received=received
        )
