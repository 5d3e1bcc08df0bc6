"""What is remembered of a body as it passes: its first bytes, and the few others that tell what it is. A recording of any length
is never held; its chunks are walked where they lie, not as far as the first bytes reach.
"""

from __future__ import annotations

import sys

from archiver.archive.formats import END, Format, Found, Reader, Sound
from archiver.archive.formats.known import recognise

HEAD_BYTES = 64 * 1024
"""How many of the first bytes are kept. What a body is must show in them."""

MAX_READS = 1000
"""So often may a reader ask for bytes: a body of nothing but empty chunks has millions of them."""

_NEVER = sys.maxsize
_MAX_PIECES = 64


class Excerpt:
    """Takes a body piece by piece, in order. Bounded in memory and time, whatever comes."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.length = 0
        self.format: Format | None = None
        """What the first bytes show; known once the head is full, or the excerpt finished."""
        self._reader: Reader | None = None
        self._begun = False
        self._found: Found = Sound()
        self._reads = 0
        self._at, self._size = 0, 0
        self._held = bytearray()
        self._last: list[bytes] = []
        self._last_size = 0
        self._next = 0  # nothing before this position matters any more

    def take(self, piece: bytes) -> None:
        """The next bytes."""
        begin = self.length
        self.length += len(piece)
        if self.length <= self._next:
            return
        if not self._begun:
            room = HEAD_BYTES - len(self.head)
            self.head += piece[:room]
            if len(self.head) < HEAD_BYTES:
                return
            self._begin()
            begin, piece = HEAD_BYTES, piece[room:]
        self._pass(begin, piece)

    def finish(self) -> Found:
        """No more bytes come: what the format's reader has found."""
        if not self._begun:
            self._begin()
        # What a reader did not get in full is the end of the body as well.
        whole = self.length == len(self.head)
        end = bytes(self.head) if whole else b"".join(self._last) or bytes(self._held)
        while self._reader is not None:
            if self._at == END:
                self._held[:] = end
            self._answer()
        return self._found

    def _begin(self) -> None:
        self._begun = True
        self._next = _NEVER
        head = bytes(self.head)
        if recognised := recognise(head):
            self.format, start = recognised
            self._reader = self.format.read(start)
            self._at, self._size = next(self._reader)
            self._pass(0, head)

    def _pass(self, begin: int, piece: bytes) -> None:
        """Hand the reader what it wants of a piece that begins there."""
        end = begin + len(piece)
        while self._reader is not None and self._at != END:
            wanted = self._at + len(self._held)
            self._held += piece[max(wanted - begin, 0) : max(self._at + self._size - begin, 0)]
            if len(self._held) < self._size and self._reads < MAX_READS:
                self._next = max(self._at, end)
                return
            self._answer()
        self._next = _NEVER
        if self._reader is not None and self._size:
            self._next = 0
            self._keep_last(piece)

    def _keep_last(self, piece: bytes) -> None:
        """Hold on to the pieces that the end of the body may lie in. They are not copied, unless they are tiny."""
        self._last.append(piece)
        self._last_size += len(piece)
        while self._last_size - len(self._last[0]) >= self._size:
            self._last_size -= len(self._last.pop(0))
        if len(self._last) > _MAX_PIECES:
            self._last = [b"".join(self._last)[-self._size :]]
            self._last_size = len(self._last[0])

    def _answer(self) -> None:
        """Give the reader what is held, and hear what it wants next."""
        assert self._reader is not None
        held = b"" if self._reads >= MAX_READS else bytes(self._held)
        self._held.clear()
        self._reads += 1
        try:
            self._at, self._size = self._reader.send((held, self.length))
        except StopIteration as stop:
            self._found, self._reader = stop.value, None
