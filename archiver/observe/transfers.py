"""Running transfers, their rates, and the bytes received in all."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

READINGS = 5
"""Readings that a rate is computed from: one a second, so a rate covers the last five seconds."""

BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Upper bounds in seconds of the histogram of completed transfers; one more bucket takes the longer ones."""


@dataclass(eq=False)
class HostPace:
    """How fast hosts deliver the files of one session, over all of them: many small files can trickle as one long file can.
    `queue_id` is the session's row.
    """

    queue_id: int = 0
    waited: float = 0.0
    """Seconds spent waiting for hosts; time on our own disk, memory and bandwidth limit is not counted."""
    came: int = 0
    """Bytes received, those of restarted bodies included."""
    rate: float | None = None
    """Bytes for each second of waiting, over the last complete `Transfers.window`; None before the first."""
    _mark: tuple[float, int] = (0.0, 0)

    def update_rate(self, window: float) -> None:
        """Update `rate` once `window` seconds were spent waiting since the last update."""
        waited, came = self.waited - self._mark[0], self.came - self._mark[1]
        if waited >= window:
            self.rate = came / waited
            self._mark = (self.waited, self.came)

    def restart_windows(self) -> None:
        """Forget the rate, and begin a new window."""
        self.rate, self._mark = None, (self.waited, self.came)


@dataclass(eq=False)
class Transfer:
    """One running transfer. `total` is None until (or unless) the media host says the length; `received` counts each
    byte of the file once, however often the connection broke.
    """

    bot: str
    session_id: str
    file_name: str
    total: int | None = None
    received: int = 0
    began: float = field(default_factory=time.monotonic)
    hosts: HostPace = field(default_factory=HostPace)
    _readings: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=READINGS + 1), repr=False)

    def __post_init__(self) -> None:
        self._readings.append((self.began, self.received))

    def wait(self, seconds: float) -> None:
        """Add time spent waiting for the host."""
        self.hosts.waited += seconds

    def read(self, now: float) -> None:
        """Take a reading, for the rate. `now`: `time.monotonic`, as everywhere here."""
        self._readings.append((now, self.received))

    def rate(self, now: float) -> float:
        """Bytes a second since the oldest of the last readings: a stalled transfer is at 0 within seconds."""
        at, received = self._readings[0]
        # A restarted body has fewer bytes than before.
        return max(0, self.received - received) / max(now - at, 0.001)

    def seconds(self, now: float) -> float:
        """Seconds since it began."""
        return now - self.began


class Transfers:
    """The transfers of this process. Used on the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self.running: dict[Transfer, None] = {}
        """Running transfers, the oldest first."""
        self.received: Counter[str] = Counter()
        """Bytes received since the start, by bot, those of failed and restarted transfers included."""
        self.durations: dict[str, Durations] = {}
        """Durations of completed transfers, by bot."""
        self.window = 120.0
        """Seconds of waiting that a host's rate is measured over."""

    @property
    def bytes(self) -> int:
        """Bytes received since the start, those of failed and restarted transfers included."""
        return self.received.total()

    @contextmanager
    def track(self, bot: str, session_id: str, file_name: str, hosts: HostPace | None = None) -> Iterator[Transfer]:
        """List a transfer while the context lasts. `hosts` is its session's."""
        transfer = Transfer(bot, session_id, file_name, hosts=hosts or HostPace())
        self.running[transfer] = None
        try:
            yield transfer
            self.durations.setdefault(bot, Durations()).add(transfer.seconds(time.monotonic()))
        finally:
            del self.running[transfer]

    def count(self, transfer: Transfer, size: int) -> None:
        """Count `size` bytes received by a transfer."""
        transfer.received += size
        transfer.hosts.came += size
        self.received[transfer.bot] += size

    def read(self, now: float) -> None:
        """Take a reading of each transfer, for the rates; to be called once a second."""
        for transfer in self.running:
            transfer.read(now)
            transfer.hosts.update_rate(self.window)

    def slowest(self, below: float) -> Transfer | None:
        """The transfer with the slowest hosts over a complete window, if they deliver less than `below` bytes a second. Complete
        bodies are left out.
        """
        rates = [(transfer.hosts.rate, transfer) for transfer in self.running if transfer.received != transfer.total]
        slow = [(rate, transfer) for rate, transfer in rates if rate is not None and rate < below]
        return min(slow, key=lambda one: one[0])[1] if slow else None

    def restart_windows(self) -> None:
        """Begin new windows for all hosts."""
        for transfer in self.running:
            transfer.hosts.restart_windows()

    def lasting(self, seconds: float, now: float) -> list[Transfer]:
        """Transfers that have run for at least `seconds`, the longest first."""
        return [transfer for transfer in self.running if transfer.seconds(now) >= seconds]


class Durations:
    """A histogram of durations by BUCKETS, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[next((place for place, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1
        self.seconds += seconds

    def merge(self, counts: Sequence[int], seconds: float) -> None:
        """Add those of another one."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, counts, strict=True)]
        self.seconds += seconds
