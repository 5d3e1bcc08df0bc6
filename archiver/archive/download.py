"""The body of one recording, whole and in order, however often its connection breaks; or as it lies in the platform's answer.

Where the media host can, a body goes on at the byte at which it broke, and only if it is the same file still: `If-Range` names
what the first answer was known by. A signed URL that has expired meanwhile is asked for afresh. Where the host cannot, the
transfer begins again at the first byte.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Protocol, Self

import aiohttp

from archiver.archive.audio import Inspection, first_bytes, inspect
from archiver.archive.excerpt import Excerpt
from archiver.archive.media import MediaClient, Rest, promised_by
from archiver.errors import MediaNotResumable, MediaUnreachable, MediaUrlExpired, TransferError
from archiver.kore.inline import Inline
from archiver.observe.logs import logger
from archiver.observe.transfers import Transfer, Transfers
from archiver.runtime.bandwidth import Bandwidth
from archiver.runtime.body_reader import BodyReader, TooSlow, is_chunked
from archiver.runtime.retry import TRIES, retry_transient

log = logger(__name__)

BYTES_A_BREAK = 256 * 1024
"""A body may break a few times, and once more for every so many bytes that came: a long one on a bad line comes through, one that
brings next to nothing each time does not go on for ever.
"""


class Source(Protocol):
    """Where one recording is to be had."""

    @property
    def url(self) -> str:
        """The newest signed URL."""

    async def renew(self, refused: MediaUrlExpired) -> None:
        """Ask the platform for a fresh `url`. Raises `refused` if that would be in vain, else what asking can raise."""

    def refused_afresh(self) -> None:
        """A URL that has just been asked for was refused too."""


class Body(ABC):
    """A file on its way, whichever it is: entered, then read by `pieces`; the rest is known of what has come of them."""

    def __init__(self, progress: Transfer, transfers: Transfers) -> None:
        self._progress = progress
        self._transfers = transfers
        self.expected: int | None = None
        """Bytes that were promised, if any were."""
        self.content_type: str | None = None
        self.whole = True
        """When all pieces have come, that is all there is; False: it may be that the connection was closed before."""
        self.excerpt = Excerpt()
        self.received = 0
        self.breaks = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def inspect(self, name: str) -> Inspection:
        """What the whole file is, named so. Raises RecordingRejected for what is no recording."""
        return inspect(name=name, excerpt=self.excerpt, content_type=self.content_type, whole=self.whole)

    @abstractmethod
    def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, as they come."""

    def _count(self, piece: bytes) -> None:
        self.received += len(piece)
        self._transfers.count(self._progress, len(piece))
        self.excerpt.take(piece)


class InlineBody(Body):
    """A body that lies in the platform's answer. Errors are those of `Inline`."""

    def __init__(self, inline: Inline, bandwidth: Bandwidth | None, progress: Transfer, transfers: Transfers) -> None:
        super().__init__(progress, transfers)
        self._inline = inline
        self._bandwidth = bandwidth
        self.content_type = inline.media_type

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, as they come."""
        began = time.monotonic()
        async for piece in self._inline:
            self._progress.wait(time.monotonic() - began)
            self._count(piece)
            yield piece
            if self._bandwidth is not None:
                await self._bandwidth.take(len(piece) * 4 // 3)  # as base64
            began = time.monotonic()


class Document(Body):
    """What the platform said, as a file."""

    def __init__(self, content: bytes, content_type: str, progress: Transfer, transfers: Transfers) -> None:
        super().__init__(progress, transfers)
        self._content = content
        self.expected = progress.total = len(content)
        self._media_type = content_type

    def inspect(self, name: str) -> Inspection:
        """It is no recording, but what it was said to be."""
        return Inspection(self._media_type)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it."""
        self._count(self._content)
        yield self._content


class Download(Body):
    """An open body. Entered, its answer is there. Errors are those of `MediaClient.open` and of `source`; a body that broke for
    good is MediaUnreachable, or MediaNotResumable if it may be begun again.
    """

    def __init__(self, media: MediaClient, source: Source, progress: Transfer, transfers: Transfers) -> None:
        super().__init__(progress, transfers)
        self._media = media
        self._source = source
        self._response: aiohttp.ClientResponse | None = None
        self._ahead = b""
        self._validator: str | None = None
        self._body = BodyReader(media.stall, media.min_rate, progress.wait)

    async def __aenter__(self) -> Self:
        self._progress.received = 0
        response = await self._connect(None)
        self.expected = self._progress.total = promised_by(response)
        self.content_type = response.headers.get("Content-Type")
        self.whole = self.expected is not None or self._body.framed
        self._validator = _validator(response)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, as they come."""
        whole = False
        while not whole:
            try:
                async for piece in self._arriving():
                    self._count(piece)
                    yield piece
                    if self.expected is not None and self.received > self.expected:
                        break  # more than was promised is not the file, and may never end
                whole = True
            except (aiohttp.ClientError, TimeoutError) as error:
                self._close()
                # Whole all the same, if it broke behind its last byte.
                whole = self.received == self.expected
                if not whole:
                    await self._go_on(self._broken(error))

    async def _arriving(self) -> AsyncIterator[bytes]:
        """What comes over this connection. When it breaks, what had arrived by then comes first: aiohttp would throw it away."""
        assert self._response is not None
        content, bandwidth = self._response.content, self._media.bandwidth
        if self._ahead:
            piece, self._ahead = self._ahead, b""
            yield piece
        try:
            while piece := await self._body.read(content):
                yield piece
                if bandwidth is not None:
                    await bandwidth.take(len(piece))
        except (aiohttp.ClientError, TimeoutError):
            if left := content._read_nowait(-1):
                yield left
            raise

    async def _go_on(self, broken: MediaUnreachable) -> None:
        """Continue behind the last byte. Raises `broken` where that does not help, MediaNotResumable where it cannot be."""
        if self._validator is None or self.expected is None or not self.received:
            raise MediaNotResumable(broken.message, reason=broken.reason, **broken.facts)
        self.breaks += 1
        if self.breaks > TRIES + self.received // BYTES_A_BREAK:
            raise broken
        log.info("transfer_resumed", at=self.received, of=self.expected, because=broken.reason, breaks=self.breaks)
        try:
            await self._connect(Rest(self.received, self.expected, self._validator))
        except MediaNotResumable as error:
            raise MediaNotResumable(broken.message, reason=broken.reason, resumption=error.message, **broken.facts) from None
        except TransferError as error:
            # It is this body that counts, and that may be the only copy: not what became of the request for its rest.
            broken.facts["resumption"] = error.message
            raise broken from None

    @retry_transient(MediaUnreachable, unless=MediaNotResumable)
    async def _connect(self, rest: Rest | None) -> aiohttp.ClientResponse:
        """Open the body, or the rest of it. Of a rest the first bytes have to come too: an answer alone is no progress."""
        try:
            response = await self._open(rest)
        except MediaUrlExpired as expired:
            await self._source.renew(expired)
            try:
                response = await self._open(rest)
            except MediaUrlExpired:
                self._source.refused_afresh()
                raise
        self._response = response
        self._body.reset()
        self._body.framed = is_chunked(response)
        if rest is not None:
            try:
                self._ahead = await self._body.read(response.content)
            except (aiohttp.ClientError, TimeoutError) as error:
                self._close()
                raise self._broken(error) from None
        return response

    async def _open(self, rest: Rest | None) -> aiohttp.ClientResponse:
        began = time.monotonic()
        try:
            return await self._media.open(self._source.url, rest)
        finally:
            if self._media.at_once:  # else it may be its turn that was waited for
                self._progress.wait(time.monotonic() - began)

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _broken(self, error: Exception) -> MediaUnreachable:
        match error:
            case TooSlow():
                reason = "recording_slow"
            case TimeoutError():
                reason = "recording_stalled"
            case _:
                reason = "recording_truncated"
        promised = self.expected
        return MediaUnreachable(
            f"the connection broke after {self.received} bytes" + (f" of {promised}" if promised is not None else ""),
            reason=reason,
            expected=promised,
            received=self.received,
            first_bytes=first_bytes(self.excerpt.head),
            error=type(error).__name__,
        )


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """What `If-Range` may name (RFC 9110, 13.1.5): a strong ETag, or a date that is too old for a second change within it."""
    headers = response.headers
    if response.status not in (200, 206) or headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,500}"', headers.get("ETag", "")):
        return headers["ETag"]
    try:
        modified, sent = headers["Last-Modified"], headers["Date"]
        settled = (parsedate_to_datetime(sent) - parsedate_to_datetime(modified)).total_seconds() >= 60
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return modified if settled else None
