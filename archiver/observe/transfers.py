"""What is on its way into the store at this moment, how fast, and how much has come in all."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

READINGS = 5
"""A rate is made of so many readings: taken once a second, it is that of the last five seconds."""

BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Seconds up to which the transfers that ended well are counted; a last bucket takes the longer ones."""


@dataclass(eq=False)
class HostPace:
    """How fast its hosts bring the files of one session, one after another: many small ones may drip as one long one does.
    `queue_id` is that of its row.
    """

    queue_id: int = 0
    waited: float = 0.0
    """Seconds that were spent on waiting for a host: the rest is our own disk's, memory's and bandwidth's."""
    came: int = 0
    """Bytes that came in, those of bodies that began again included."""
    rate: float | None = None
    """Bytes a second that a host was waited for, over the last whole `Transfers.window`."""
    _mark: tuple[float, int] = (0.0, 0)

    def judge(self, window: float) -> None:
        """Renew `rate`, if a host has been waited for so many seconds since that was done last."""
        waited, came = self.waited - self._mark[0], self.came - self._mark[1]
        if waited >= window:
            self.rate = came / waited
            self._mark = (self.waited, self.came)

    def judge_anew(self) -> None:
        """What was before tells nothing any more."""
        self.rate, self._mark = None, (self.waited, self.came)


@dataclass(eq=False)
class Transfer:
    """One recording on its way. `total` is None until (or unless) the media host says how long it is; `received` counts each
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
        """The host was waited for."""
        self.hosts.waited += seconds

    def read(self, now: float) -> None:
        """Take a reading, for the rate. `now`: `time.monotonic`, as everywhere here."""
        self._readings.append((now, self.received))

    def rate(self, now: float) -> float:
        """Bytes a second since the oldest of the last readings: what stalls is at 0 within seconds."""
        at, received = self._readings[0]
        # A body that began anew has fewer bytes than before.
        return max(0, self.received - received) / max(now - at, 0.001)

    def seconds(self, now: float) -> float:
        """How long it has been on its way."""
        return now - self.began


class Transfers:
    """The transfers of this process. All on the event loop: no lock."""

    def __init__(self) -> None:
        self.running: dict[Transfer, None] = {}
        """Those on their way, the longest first."""
        self.received: Counter[str] = Counter()
        """Bytes that came in since the start, by bot, those of transfers that failed or began again included."""
        self.lasted: dict[str, Lasted] = {}
        """How long the transfers took that ended well, by bot."""
        self.window = 120.0
        """Seconds that the paces of hosts are measured over."""

    @property
    def bytes(self) -> int:
        """Bytes that came in since the start, those of transfers that failed or began again included."""
        return self.received.total()

    @contextmanager
    def running_one(self, bot: str, session_id: str, file_name: str, hosts: HostPace | None = None) -> Iterator[Transfer]:
        """A transfer, listed as long as it runs. `hosts` is its session's."""
        transfer = Transfer(bot, session_id, file_name, hosts=hosts or HostPace())
        self.running[transfer] = None
        try:
            yield transfer
            self.lasted.setdefault(bot, Lasted()).add(transfer.seconds(time.monotonic()))
        finally:
            del self.running[transfer]

    def count(self, transfer: Transfer, size: int) -> None:
        """So many bytes of a transfer came in."""
        transfer.received += size
        transfer.hosts.came += size
        self.received[transfer.bot] += size

    def read(self, now: float) -> None:
        """Take a reading of each, for the rates and paces; to be called once a second."""
        for transfer in self.running:
            transfer.read(now)
            transfer.hosts.judge(self.window)

    def slowest(self, below: float) -> Transfer | None:
        """The one whose hosts are the slowest over a whole window, of those that bring less than `below` bytes a second. One that
        is at its end is none.
        """
        rates = [(transfer.hosts.rate, transfer) for transfer in self.running if transfer.received != transfer.total]
        slow = [(rate, transfer) for rate, transfer in rates if rate is not None and rate < below]
        return min(slow, key=lambda one: one[0])[1] if slow else None

    def judge_anew(self) -> None:
        """Begin all windows now."""
        for transfer in self.running:
            transfer.hosts.judge_anew()

    def lasting(self, seconds: float, now: float) -> list[Transfer]:
        """Those that have been on their way for at least so long, the longest first."""
        return [transfer for transfer in self.running if transfer.seconds(now) >= seconds]


class Lasted:
    """How long things took: counted by BUCKETS, and in all."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[next((place for place, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1
        self.seconds += seconds
