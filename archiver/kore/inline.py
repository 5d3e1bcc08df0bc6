"""Recordings that lie inside an answer, as version 1 of the API sends them: {"recording": ["data:audio/wav;base64,..."]}.

The answer is read as it arrives. Each data URL in that list is decoded piece by piece and handed on; what is left of the answer,
its skeleton, has a few words in place of each, and is small. Memory is that of a piece, whatever comes.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing

from archiver.errors import ApiDefect

LIST = b"recording"
"""The key of the list."""

MAX_OPENING = 1000
"""A data URL has its comma behind so many characters at most."""

_MARK = re.compile(rb'["{}\[\]]')
_STRING = re.compile(rb'[^"\\]+')
# Whole characters of a string: nothing that ends in the middle of an escape. Nothing can be matched in two ways, so nothing is
# tried again; possessive quantifiers would say so, but early releases of Python 3.11 have them wrong.
_TEXT = re.compile(rb'(?:[^"\\]+|\\(?:u[0-9a-fA-F]{4}|[^u]))*')
_LONGEST_ESCAPE = len(rb"\u0000")
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,80}/[\w.+-]{1,80}", re.ASCII)


class Opened:
    """A recording begins: its place among the answer's, from 1, and what the answer calls its type (empty: nothing sensible)."""

    def __init__(self, ordinal: int, media_type: str) -> None:
        self.ordinal = ordinal
        self.media_type = media_type


class Closed:
    """It ends."""


Event = Opened | bytes | Closed


class Scanner:
    """Takes an answer in pieces of any size, and tells of its recordings: Opened, their bytes, Closed. Does not check that the
    rest is JSON: whoever parses the skeleton does.

    Raises ApiDefect for a recording that is not base64, or of more than `limit` bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.skeleton = bytearray()
        self.placeholders: list[str] = []
        """What stands in the skeleton in place of each recording, as JSON says it."""
        self._state: Callable[[bytes, int], int] = self._between
        self._carry = b""  # the beginning of what could not be told yet
        self._events: list[Event] = []
        self._depth = 0
        self._key = bytearray()  # of the last string in the outermost object, so far as it matters
        self._listing = False
        self._media_type = ""
        self._undecoded = b""
        self._padded = False
        self._size = 0
        self._came = 0

    @property
    def inside(self) -> bool:
        """Whether a recording is open."""
        return self._state == self._content

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes. All events are to be taken before the next call."""
        data, self._carry = self._carry + data, b""
        at = 0
        while at < len(data):
            at = self._state(data, at)
            yield from self._events
            self._events.clear()

    def finish(self) -> None:
        """No more bytes come. Raises ApiDefect inside of a recording; elsewhere it is for the parser to say."""
        if self.inside:
            raise self._defect("the answer ends in the middle of it")
        self.skeleton += self._carry

    def _between(self, data: bytes, at: int) -> int:
        """Outside of strings."""
        found = _MARK.search(data, at)
        stop = found.end() if found else len(data)
        self.skeleton += data[at:stop]
        match found[0] if found else b"":
            case b'"':
                inside = self._listing and self._depth == 2
                self._state = self._opening if inside else self._string
                if self._depth == 1:
                    self._key.clear()
            case b"[" | b"{" as bracket:
                self._depth += 1
                if self._depth == 2:
                    self._listing = bracket == b"[" and self._key == LIST
            case b"]" | b"}":
                self._depth -= 1
        return stop

    def _string(self, data: bytes, at: int) -> int:
        """In a string that is none of ours."""
        found = _STRING.match(data, at)
        stop = found.end() if found else at
        if stop < len(data):
            if data[stop] == ord('"'):
                self._state = self._between
                stop += 1
            elif stop + 1 < len(data):
                stop += 2  # an escape; the digits of one may be taken for text
            else:
                self._carry = data[stop:]
        if self._depth == 1 and len(self._key) <= len(LIST):
            self._key += data[at : min(stop, at + len(LIST) + 2)].removesuffix(b'"')
        self.skeleton += data[at:stop]
        return stop + len(self._carry)

    def _opening(self, data: bytes, at: int) -> int:
        """At the beginning of a string in the list."""
        text, stop = self._text(data, at)
        head, comma, content = text.partition(b",")
        if not comma and len(head) <= MAX_OPENING and stop + _LONGEST_ESCAPE > len(data) and data[stop : stop + 1] != b'"':
            self._carry = data[at:]
            return len(data)
        if not comma or len(head) > MAX_OPENING or not head.startswith(b"data:"):
            self._state = self._string
            return at
        media_type, *parameters = head.removeprefix(b"data:").decode("latin-1").split(";")
        self._media_type = media_type.strip().lower() if _MEDIA_TYPE.fullmatch(media_type.strip()) else ""
        self.placeholders.append("")
        self._undecoded, self._padded, self._size, self._came = b"", False, 0, 0
        self._state = self._content
        if not parameters or parameters[-1].strip().lower() != "base64":
            raise self._defect("it is a data URL, but not of base64")
        self._events.append(Opened(len(self.placeholders), self._media_type))
        self._decode(content)
        return stop

    def _content(self, data: bytes, at: int) -> int:
        """In a recording, behind its comma."""
        text, stop = self._text(data, at)
        self._decode(text)
        if stop == len(data):
            return stop
        if data[stop] != ord('"'):
            if len(data) - stop >= _LONGEST_ESCAPE:
                raise self._defect("an escape in it is not JSON")
            self._carry = data[stop:]
            return len(data)
        if self._undecoded:
            raise self._defect("its base64 ends in the middle of a byte")
        ordinal = len(self.placeholders)
        self.placeholders[-1] = f"[recording {ordinal}: {self._media_type or 'of no type'}, {self._size} bytes]"
        self.skeleton += f'{self.placeholders[-1]}"'.encode()
        self._state = self._between
        self._events.append(Closed())
        return stop + 1

    def _text(self, data: bytes, at: int) -> tuple[bytes, int]:
        """What a string says from `at` to its end, or as far as it can be told by now; and where that is."""
        found = _TEXT.match(data, at)
        assert found is not None
        text = found[0]
        if b"\\" in text:
            try:
                text = json.loads((b'"%b"' % text).decode(), strict=False).encode("utf-8", "surrogatepass")
            except ValueError:
                raise self._defect("an escape in it is not JSON") from None
        return text, found.end()

    def _decode(self, text: bytes) -> None:
        self._came += len(text)
        text = self._undecoded + text.translate(None, b" \t\r\n")
        whole = len(text) - len(text) % 4
        self._undecoded = text[whole:]
        if self._padded and text:
            raise self._defect("something follows the end of its base64")
        try:
            piece = binascii.a2b_base64(text[:whole], strict_mode=True) if whole else b""
        except binascii.Error as error:
            raise self._defect(f"its base64 is invalid: {error}") from None
        self._padded = text[:whole].endswith(b"=")
        self._size += len(piece)
        # What decodes to nothing (white space) must not go on for ever either.
        if self._size > self._limit or self._came > 8 * self._limit:
            ordinal = len(self.placeholders)
            raise ApiDefect(
                f"recording {ordinal}, which lies in the answer itself, is larger than transfer.max_inline = {self._limit} bytes",
                reason="recording_too_large",
                hint="raise transfer.max_inline if that is right, then `archiver retry --reason recording_too_large`",
                ordinal=ordinal,
                expected=self._limit,
                received=self._size,
            )
        if piece:
            self._events.append(piece)

    def _defect(self, what: str) -> ApiDefect:
        ordinal = len(self.placeholders) + (self._state == self._opening)
        return ApiDefect(
            f"recording {ordinal} cannot be read from the answer: {what}",
            ordinal=ordinal,
            content_type=self._media_type,
            received=self._size,
        )


class Inline:
    """One recording on its way out of an answer; iterated, its bytes. Errors are those of Scanner, and of whatever brings the
    answer.
    """

    def __init__(self, opened: Opened, events: AsyncIterator[Event]) -> None:
        self.ordinal = opened.ordinal
        self.media_type = opened.media_type
        self._events = events
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        event = None if self._ended else await anext(self._events)
        if isinstance(event, bytes):
            return event
        self._ended = True
        raise StopAsyncIteration


async def inline_recordings(pieces: AsyncIterator[bytes], scanner: Scanner, *, longest: int) -> AsyncGenerator[Inline, None]:
    """The recordings of an answer, one after another; what is left unread of one is read past. No more is read once the skeleton
    is longer than `longest`. Raises what `pieces` and `scanner` do.
    """
    async with aclosing(_events(pieces, scanner, longest)) as events:
        async for event in events:
            if isinstance(event, Opened):
                recording = Inline(event, events)
                yield recording
                async for _ in recording:
                    pass


async def _events(pieces: AsyncIterator[bytes], scanner: Scanner, longest: int) -> AsyncGenerator[Event, None]:
    async for piece in pieces:
        for event in scanner.feed(piece):
            yield event
        if len(scanner.skeleton) > longest and not scanner.inside:
            return
    scanner.finish()
