"""Platforms whose listings are read, as documented and otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.kore.client import KoreClient
from archiver.kore.exchange import api_session
from archiver.kore.listings.calls import Span
from archiver.kore.listings.reader import Listing, Reader
from archiver.kore.listings.sources import (
    CallDetails,
    InteractionDetails,
    SessionsHistory,
    Source,
)
from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.kore.conftest import bot_of

START = datetime(2025, 3, 1, tzinfo=UTC)
SOURCES: dict[str, type[SessionsHistory] | type[CallDetails]] = {"sessions": SessionsHistory, "call_details": CallDetails}
ALL_SOURCES = SOURCES | {"interaction_details": InteractionDetails}


class ListingHarness:
    """One platform, asked by either listing."""

    def __init__(self, simulator: Simulator, client: KoreClient) -> None:
        self.simulator = simulator
        self.client = client
        self.draws = 0

    async def draw(self) -> None:
        self.draws += 1

    def source(self, name: str) -> Source:
        return ALL_SOURCES[name](self.client, self.draw)

    async def read(self, name: str, span: Span, **how: Any) -> list[Listing]:
        return [listing async for listing in Reader(self.source(name)).walk(span, **how)]

    @property
    def requests(self) -> int:
        listings = self.simulator.report()["listings"]
        return int(listings["get_sessions"] + listings["call_details"])


@asynccontextmanager
async def harness_of(**changes: Any) -> AsyncIterator[ListingHarness]:
    unlimited = {"rate_limits": (), "account_rate_limits": ()}
    async with Simulator(SimulatorSettings(**(unlimited | changes))) as simulator, api_session() as http:
        bot = bot_of(simulator, account_id=simulator.settings.account_id)
        yield ListingHarness(simulator, KoreClient(bot, http, max_files=10, on_retry=lambda _error, _wait: None))


@pytest.fixture
async def harness() -> AsyncIterator[ListingHarness]:
    async with harness_of() as harness:
        yield harness


def call(number: int, started_at: datetime, seconds: float = 60, **fields: Any) -> dict[str, Any]:
    return {
        "session_id": f"65e7133a3242653c{number:08x}",
        "started_at": started_at.isoformat(),
        "ended_at": (started_at + timedelta(seconds=seconds)).isoformat(),
        **fields,
    }


def ids(listings: list[Listing]) -> list[str]:
    """Every call of every stretch: one that came twice stands twice."""
    return [key[0] for listing in listings for key in listing.calls]


def days(count: float) -> Span:
    return Span(START, START + timedelta(days=count))


class Odd:
    """Answers as `says` has it, of the pages asked for; counts them."""

    def __init__(self, says: Callable[[dict[str, Any], dict[str, str]], Any]) -> None:
        self.bot = bot_settings()
        self.asked = 0
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self._says = says

    async def listing(self, path: str, *, json: dict[str, Any], **_: object) -> Any:
        self.asked += 1
        self.bodies.append(json)
        self.paths.append(path)
        assert self.asked < 500, "it would go on for ever"
        query = dict(pair.split("=") for pair in path.partition("?")[2].split("&") if pair)
        answer: Any = self._says(json, query)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def read(self, name: str, span: Span, **how: Any) -> list[Listing]:
        client: Any = self
        return [each async for each in Reader(ALL_SOURCES[name](client, draw_nothing)).walk(span, **how)]


async def listed(answer: dict[str, Any]) -> list[Listing]:
    return await Odd(lambda _body, _query: answer).read("sessions", days(1))


def rows(count: int, start: datetime = START) -> list[dict[str, Any]]:
    return [
        {"sessionId": f"s-{n}", "channel": "korevg", "start_time": (start + timedelta(seconds=n)).isoformat()}
        for n in range(count)
    ]


def shown(all_rows: list[dict[str, Any]], body: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the time that is asked for, as getSessions keeps to it."""
    first, last = (datetime.fromisoformat(body[key]) for key in ("dateFrom", "dateTo"))
    return [row for row in all_rows if first <= datetime.fromisoformat(row["start_time"]) <= last]


async def draw_nothing() -> None:
    return None


def bot_settings() -> Any:
    from archiver.config import BotSettings

    return BotSettings.model_validate({"name": "b", "bot_id": "st-1", "client_id": "cs-1", "client_secret": "secret-1"})
