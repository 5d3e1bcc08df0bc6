"""Log lines on their way to a pipe or a terminal that may not be read: a thread waits for it, and nobody else does.

A pipe holds 64 KiB. Whoever writes to one that nobody drains (a stopped terminal, a hung log shipper) is stopped, and the event
loop with its lease would be. So lines wait in memory, and what is more than that is left out, and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

MAX_BYTES = 4 << 20
"""Of lines that wait."""

FLUSH_SECONDS = 2.0
"""How long the end of the program waits for what is not written yet."""


class PatientHandler(logging.Handler):
    """Formats each record at once, and has a thread write it to `descriptor`. Nothing here waits for that but `flush`.

    `on_dropped` is called, in the thread, with the number of lines that were left out, once all others are written.
    """

    def __init__(self, descriptor: int, encoding: str, on_dropped: Callable[[int], None]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._encoding = encoding
        self._on_dropped = on_dropped
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._writing = False
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._size + len(line) > MAX_BYTES:
                self._dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Return when all is written, or after FLUSH_SECONDS."""
        deadline = time.monotonic() + FLUSH_SECONDS
        with self._changed:
            while (self._lines or self._dropped or self._writing) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not (self._lines or self._dropped):
                    self._changed.wait()
                lines, dropped = list(self._lines), self._dropped
                self._writing = True
            for line in lines:
                self._write_line(line)
                with self._changed:
                    self._lines.popleft()
                    self._size -= len(line)
            if dropped:
                with self._changed:
                    self._dropped -= dropped
                self._on_dropped(dropped)

    def _write_line(self, line: bytes) -> None:
        # By its number: an interpreter that ends waits for the lock of a stream in which a thread is writing.
        with suppress(OSError):  # its reader is gone, or its terminal: there is nobody to tell
            while line:
                line = line[os.write(self._descriptor, line) :]
