"""Days of calls on the simulated platform, and what an account of them counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.account.counts import COUNTS
from archiver.simulator.platform import Simulator
from tests.system.conftest import Program

DAY = "2025-03-09"


NEXT = "2025-03-10"


@pytest.fixture
def data(data: dict[str, Any], simulator: Simulator) -> dict[str, Any]:
    simulator.settings.account_rate_limits = ()
    data["bots"][0] |= {"account_id": simulator.settings.account_id, "account_rate_limits": ["60000/minute"]}
    return data


def call(number: int, started_at: str | datetime, seconds: float = 1, **fields: Any) -> dict[str, Any]:
    start = datetime.fromisoformat(started_at) if isinstance(started_at, str) else started_at
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    end = (start + timedelta(seconds=seconds)).isoformat()
    return {"session_id": f"65e7133a3242653c{number:08x}", "started_at": start.isoformat(), "ended_at": end, **fields}


def made(**changes: Any) -> dict[str, Any]:
    fields = {"from": f"{DAY}T00:00:00Z", "to": f"{NEXT}T00:00:00Z", "calls": 300, "seed": 7, "seconds": [0.5, 1.5]}
    return {"made": fields | changes}


def counts_of(document: dict[str, Any]) -> dict[str, int]:
    return {name: document[name] for name in COUNTS if document[name]}


async def account(archiver: Program, *arguments: str, code: int) -> dict[str, Any]:
    result = await archiver("reconcile", "--from", DAY, "--to", NEXT, "--format", "json", *arguments)
    assert result.code == code, result
    document: dict[str, Any] = result.document
    return document
