"""One claimed session's way through the real client, media client and store, against the simulated platform."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archiver.archive.context import Archive, BotAccess
from archiver.archive.route import archive_session
from archiver.cli.serving import bot_access
from archiver.config import Settings
from archiver.observe.transfers import Transfers
from archiver.outcome import Outcome, classify
from archiver.postgres.database import Database
from archiver.runtime.buffers import Buffers
from archiver.session import Attempt, KnownFile, Session, StoredFile
from archiver.simulator.platform import Simulator
from archiver.stores.open import open_store
from tests.conftest import is_recording
from tests.kore.conftest import kore, unknown_authority

__all__ = ["kore", "unknown_authority"]

SESSION = "65e7133a3242653c58d70001"
DAY = datetime(2026, 1, 2, 23, 59, tzinfo=UTC)
FOLDER = f"bot=bot/date=2026-01-02/{SESSION}/recording"
LAST = 2
"""So many failures make the next attempt the last one: the settings allow three."""


def wav(size: int, fill: bytes = b"\x55") -> bytes:
    """A telephone-format WAV of `size` bytes, made here and not by the code under test."""
    data = fill * (size - 44)
    header = b"fmt " + (16).to_bytes(4, "little") + bytes.fromhex("0700 0100 401f0000 401f0000 0100 0800")
    return b"RIFF" + (size - 8).to_bytes(4, "little") + b"WAVE" + header + b"data" + len(data).to_bytes(4, "little") + data


@dataclass
class Way:
    """What one attempt came to."""

    outcome: Outcome
    error: Exception | None
    attempt: Attempt

    @property
    def reason(self) -> str:
        return str(getattr(self.outcome, "reason", ""))

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = getattr(self.outcome, "detail", {})
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.attempt.events if event["event"] == name]


@dataclass
class SessionHarness:
    """All that an attempt needs."""

    simulator: Simulator
    archive: Archive
    bot: BotAccess
    root: Path
    transfers: Transfers

    def script(self, *recordings: dict[str, Any], **fields: Any) -> None:
        """What the platform has of the session."""
        self.simulator.script({"session_id": SESSION, "recordings": list(recordings), **fields})

    async def go(
        self,
        *,
        failures: int = 0,
        epoch: int = 1,
        known: tuple[StoredFile, ...] = (),
        guard: Callable[[], None] = lambda: None,
        **fields: Any,
    ) -> Way:
        """Archive the session once."""
        session = Session(
            id=7,
            epoch=epoch,
            worker_id=3,
            bot="bot",
            session_id=SESSION,
            user_id=None,
            archive_date=DAY,
            claimed_at=DAY,
            failures=failures,
            checks=0,
            crashes=0,
            known=tuple(KnownFile(file.ordinal, file.source_name, file.file_name, file.store_key, file.bytes) for file in known),
            **{"kind": "recording", **fields},
        )
        attempt = Attempt(session)
        calls = self.simulator.report()["api"]["calls"]
        try:
            outcome, error = await archive_session(attempt, self.bot, self.archive, guard), None
        except Exception as caught:  # noqa: BLE001  # as the worker does
            outcome, error = classify(caught), caught
        # Always: every call was counted, no token went astray, no URL was altered, no temporary file is left.
        report = self.simulator.report()
        assert attempt.calls == report["api"]["calls"] - calls
        assert (report["media"]["altered_urls"], report["media"]["leaked_auth"]) == (0, 0)
        assert not [name for name in self.files() if name.endswith(".part")]
        return Way(outcome, error, attempt)

    def files(self) -> dict[str, bytes]:
        """All that lies in the store."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if is_recording(path)
        }


@asynccontextmanager
async def trying(simulator: Simulator, settings: Settings, database: Database) -> AsyncIterator[SessionHarness]:
    """Attempts with these settings."""
    transfers = Transfers()
    buffers = Buffers(settings.transfer.max_buffer)
    async with bot_access(settings, database) as bots, open_store(settings.storage, buffers) as store:
        archive = Archive(store, settings.storage.path, settings.retry, settings.transfer, transfers)
        yield SessionHarness(simulator, archive, bots["bot"], settings.storage.folder, transfers)


@pytest.fixture
async def harness(simulator: Simulator, settings: Settings, database: Database) -> AsyncIterator[SessionHarness]:
    async with trying(simulator, settings, database) as one:
        yield one


MAX_INLINE = 200_000


@pytest.fixture
async def inline(simulator: Simulator, settings: Settings, database: Database) -> AsyncIterator[SessionHarness]:
    """The same for a bot whose recordings lie in the platform's answers, with up to MAX_INLINE bytes each."""
    bot = settings.bots[0].model_copy(update={"api": "v1"})
    transfer = settings.transfer.model_copy(update={"max_inline": MAX_INLINE})
    async with trying(simulator, settings.model_copy(update={"bots": (bot,), "transfer": transfer}), database) as one:
        yield one
