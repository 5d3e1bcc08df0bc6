"""Log lines on their way to a pipe, a socket or a terminal that may not be read: nobody waits for it but a thread.

A pipe holds 64 KiB. Whoever writes to one that nobody drains (a stopped terminal, a hung log shipper) is stopped, and the event
loop with its lease would be. So a line is written at once only if that does not block. Else it waits in memory, for a thread that
waits for the reader, and what is more than MAX_BYTES is left out, and counted.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import stat
import threading
import time
from collections import deque
from contextlib import suppress

MAX_BYTES = 4 << 20
"""Of lines that wait."""

FLUSH_SECONDS = 2.0
"""How long the end of the program waits for what is not written yet."""

DROPPED = {
    "name": __name__,
    "levelno": logging.WARNING,
    "levelname": "WARNING",
    "msg": "log_lines_dropped",
    "hint": 'see to it that whoever reads the log keeps up, or set log.level = "warning"',
}


class PatientHandler(logging.Handler):
    """Writes to `descriptor`, in the order of the records."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding
        self._way = _way_to(descriptor)
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._rendered(record)
        except Exception:  # noqa: BLE001  # a line that cannot be rendered is logging's to tell of, and nobody's to fail for
            self.handleError(record)
            return
        with self._changed:
            if not self._lines:
                line = self._written(line)
            if not line:
                return
            if self._size + len(line) > MAX_BYTES:
                self._dropped += 1
            else:
                self._tell_dropped()  # where they are missing
                self._append(line)
            self._start()
            self._changed.notify_all()

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._write, name="log", daemon=True)
            with suppress(RuntimeError):  # the system lets us have none: the next line tries again
                thread.start()
                self._thread = thread

    def flush(self) -> None:
        """Return when all is written, or after FLUSH_SECONDS."""
        deadline = time.monotonic() + FLUSH_SECONDS
        with self._changed:
            while self._lines and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _rendered(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _written(self, line: bytes) -> bytes:
        """Write as much as can be without waiting; returns the rest."""
        try:
            while line and self._way.never_blocks:
                line = line[self._way.write(line) :]
        except BlockingIOError:
            return line
        except OSError as error:  # its reader is gone, or its terminal: there is nobody to tell
            self._dropped += error.errno == errno.EMSGSIZE  # or a datagram holds no such line
            return b""
        return line

    def _write(self) -> None:
        """The thread. A line stays the first one until it is written, so that none goes before it."""
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
                line = self._lines[0]
            self._deliver(line)
            with self._changed:
                self._size -= len(self._lines.popleft())
                if not self._lines:
                    self._tell_dropped()
                self._changed.notify_all()

    def _deliver(self, line: bytes) -> None:
        with suppress(OSError):  # as above
            while line:
                try:
                    line = line[self._way.write(line) :]
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(self._way, select.POLLOUT)
                    poll.poll()

    def _tell_dropped(self) -> None:
        if not self._dropped:
            return
        record = logging.makeLogRecord({**DROPPED, "lines": self._dropped})
        self._dropped = 0
        with suppress(Exception):  # the lines that follow are worth more than this one
            self._append(self._rendered(record))


class _Pipe:
    """A pipe or a terminal, opened once more: whether writing blocks is a property of each opening, and the one that we were
    given may be shared with programs that would not expect it of theirs. Raises OSError where it may not be opened.
    """

    never_blocks = True

    def __init__(self, descriptor: int) -> None:
        self._own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._own

    def write(self, data: bytes) -> int:
        return os.write(self._own, data)


class _Socket:
    """A socket, such as the journal's: whether sending blocks can be said each time."""

    never_blocks = True

    def __init__(self, descriptor: int) -> None:
        self._own = socket.socket(fileno=os.dup(descriptor))

    def fileno(self) -> int:
        return self._own.fileno()

    def write(self, data: bytes) -> int:
        return self._own.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class _Blocking:
    """As it was given: of another account, before which a container's process gave up its rights. Only the thread writes."""

    never_blocks = False

    def __init__(self, descriptor: int) -> None:
        self._given = descriptor

    def fileno(self) -> int:
        return self._given

    def write(self, data: bytes) -> int:
        return os.write(self._given, data)


def _way_to(descriptor: int) -> _Pipe | _Socket | _Blocking:
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return _Socket(descriptor)
    try:
        return _Pipe(descriptor)
    except OSError:
        return _Blocking(descriptor)
