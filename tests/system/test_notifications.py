"""Messages from whole commands: a worker that is killed at it, a night and its end, and what people are shown of it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from archiver.notify.notifier import Notifier
from archiver.postgres.database import Database
from archiver.runtime.network import DIRECT
from archiver.simulator.platform import Simulator
from tests.notify.conftest import NotifyHarness
from tests.system.account.conftest import DAY, NEXT, made
from tests.system.conftest import Program
from tests.webhooks import SECRET, webhook_server


@pytest.fixture
async def notify(database: Database) -> AsyncIterator[NotifyHarness]:
    async with webhook_server() as server:
        yield NotifyHarness(database, server)


def configured(archiver: Program, data: dict[str, Any], notify: NotifyHarness, **changes: Any) -> None:
    (archiver.folder / "whsec").touch(mode=0o600)
    (archiver.folder / "whsec").write_text(f"{SECRET}\n")
    archiver.configure(data | {"notify": {"url": notify.server.url, "secret_file": "whsec", **changes}})


async def test_a_worker_that_is_killed_between_sending_and_noting_it_tells_twice_and_says_so(
    archiver: Program, data: dict[str, Any], notify: NotifyHarness
) -> None:
    configured(archiver, data, notify)
    await notify.write("m-1")
    notify.server.mode = "silent"
    worker = await archiver.start("worker")
    await notify.server.messages(1)
    worker.send(signal.SIGKILL)
    assert (await worker.ended()).code == 137
    (row,) = await notify.waiting()
    assert (row["attempts"], row["sent_at"]) == (1, None)
    notify.server.mode, notify.server.status = "accept", 200
    await notify.make_due()
    await Notifier(notify.settings(), notify.database, DIRECT).tell()
    first, second = notify.server.received
    assert (first.id, first.attempt, second.attempt) == (second.id, 1, 2)
    assert await notify.waiting() == []


async def test_a_night_tells_of_itself_and_of_its_gaps_at_its_end(
    archiver: Program, data: dict[str, Any], simulator: Simulator, notify: NotifyHarness
) -> None:
    configured(archiver, data, notify)
    notify.server.mode, notify.server.status = "refuse", 500  # which is the receiver's failure, and not the night's
    simulator.set_history(made(calls=6, failing=1, seconds=[0.1, 0.2]))
    night = await archiver("nightly", "--from", DAY, "--to", NEXT)
    assert night.code == 3, night
    told = {one.document["type"]: one.document["data"] for one in notify.server.received}
    assert told.keys() == {"night", "gap"}
    assert (told["night"]["complete"], told["night"]["counts"]["failed"]) == (False, 1)
    assert told["gap"]["days"] == [{"bot": "bot", "day": DAY, "open_calls": 1}]
    assert "notification_failed" in night.stderr
    assert SECRET not in night.stderr

    await notify.rows("UPDATE archive_notifications SET created_at = now() - interval '2 hours'")
    status = await archiver("status")
    shown = " ".join(status.stdout.split())
    assert "messages to the receiver: 2 waiting, the oldest for 2:00:0" in shown
    assert "answered HTTP 500 (`archiver doctor --notify` tries it)" in shown
    notify.server.mode, notify.server.status = "accept", 200
    doctor = await archiver("doctor", "--notify", "--json")
    findings = {finding["check"]: finding for finding in doctor.document["findings"]}
    assert (findings["notify"]["verdict"], findings["notify: test"]["verdict"]) == ("warning", "ok")
    assert notify.server.received[-1].document["type"] == "test"
