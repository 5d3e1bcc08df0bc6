"""What is on its way into the store at this moment, and how much has come in all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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


class Transfers:
    """The transfers of this process. All on the event loop: no lock."""

    def __init__(self) -> None:
        self.running: dict[Transfer, None] = {}
        self.bytes = 0
        """Bytes that came in since the start, those of transfers that failed or began again included."""

    @contextmanager
    def running_one(self, bot: str, session_id: str, file_name: str) -> Iterator[Transfer]:
        """A transfer, listed as long as it runs."""
        transfer = Transfer(bot, session_id, file_name)
        self.running[transfer] = None
        try:
            yield transfer
        finally:
            del self.running[transfer]

    def count(self, transfer: Transfer, size: int) -> None:
        """So many bytes of a transfer came in."""
        transfer.received += size
        self.bytes += size
