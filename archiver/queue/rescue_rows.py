"""What dead workers leave: sessions that were taken back from them, and temporary files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Rescued:
    """A session taken back from a dead worker."""

    bot: str
    session_id: str
    state: str
    crashes: int
    lost_worker: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """A temporary file that a dead worker may have left, and what its folder's name is made of. `left_for`: since when."""

    queue_id: int
    worker_id: int
    epoch: int
    bot: str
    session_id: str
    kind: str
    archive_date: datetime
    left_for: timedelta
