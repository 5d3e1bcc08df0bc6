"""How long a recording, and a session, may be: a store has an end, and what is longer than any call is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from archiver.config import Settings
from archiver.outcome import Archived, Failed, Retry
from archiver.postgres.database import Database
from archiver.simulator.platform import Simulator
from tests.archive.conftest import FOLDER, LAST, SessionHarness, trying

A = {"file_name": "a.wav", "audio": {"bytes": 5000}}
LONG = {"file_name": "a.wav", "audio": {"bytes": 3_000_000}}
NO_LENGTH = {"kind": "no_length", "times": None}

Limited = Callable[..., AbstractAsyncContextManager[SessionHarness]]


@pytest.fixture
def limited(simulator: Simulator, settings: Settings, database: Database) -> Limited:
    """Trials with these terms of the transfer."""

    @asynccontextmanager
    async def make(api: str = "v2", **terms: Any) -> AsyncIterator[SessionHarness]:
        transfer = settings.transfer.model_validate(terms)
        bots = (settings.bots[0].model_copy(update={"api": api}),)
        async with trying(simulator, settings.model_copy(update={"bots": bots, "transfer": transfer}), database) as one:
            yield one

    return make


async def test_a_recording_as_long_as_the_limit_is_stored(limited: Limited) -> None:
    async with limited(max_recording=5000, max_session=5000) as harness:
        harness.script(A)
        assert (await harness.go()).outcome == Archived()


async def test_a_promise_of_more_is_refused_before_its_first_byte(limited: Limited) -> None:
    async with limited(max_recording="2MiB") as harness:
        harness.script(LONG, {**A, "file_name": "b.wav"})
        way = await harness.go(failures=LAST)
        assert (type(way.outcome), way.reason) == (Failed, "recording_too_large")
        assert (way.facts["limit"], way.facts["promised"], way.facts["received"]) == (2 * 2**20, 3_000_000, 0)
        assert "transfer.max_recording" in way.facts["hint"]
        assert list(harness.files()) == [f"{FOLDER}/b.wav"], "nothing of it is kept, and the next is none the worse for it"
        assert [file.file_name for file in way.attempt.stored] == ["b.wav"]
        assert harness.simulator.report()["media"]["requests"] == 2
        assert harness.transfers.bytes == 5000


async def test_a_body_that_turns_out_longer_is_stopped_at_the_limit(limited: Limited) -> None:
    async with limited(max_recording="1MiB") as harness:
        harness.script({**LONG, "faults": [NO_LENGTH]})
        way = await harness.go(failures=LAST)
        assert (type(way.outcome), way.reason) == (Failed, "recording_too_large")
        assert way.facts["promised"] is None
        assert 2**20 < way.facts["received"] < 2**20 + 2**19
        assert harness.files() == {}, "nor is it kept in quarantine: it was not the end that was wrong with it"
        assert harness.simulator.report()["media"]["requests"] == 1


async def test_all_files_of_a_session_share_one_limit(limited: Limited) -> None:
    async with limited(max_session=12_000) as harness:
        harness.script(
            A, {**A, "file_name": "b.wav"}, {**A, "file_name": "c.wav"}, {"file_name": "d.wav", "audio": {"bytes": 1000}}
        )
        way = await harness.go()
        assert (type(way.outcome), way.reason) == (Failed, "session_too_large")
        assert (way.facts["limit"], way.facts["promised"]) == (2000, 5000)
        assert "transfer.max_session" in way.facts["hint"]
        stored = [file.file_name for file in way.attempt.stored]
        assert stored == ["a.wav", "b.wav", "d.wav"], "what has room is stored"
        assert [event["file_name"] for event in way.events("file_failed")] == ["c.wav"]


async def test_what_earlier_attempts_stored_counts(limited: Limited) -> None:
    async with limited(max_session=12_000) as harness:
        harness.script(A, {**A, "file_name": "b.wav"})
        first = await harness.go()
        harness.script(A, {**A, "file_name": "b.wav"}, {**A, "file_name": "c.wav"})
        way = await harness.go(epoch=2, known=tuple(first.attempt.stored))
        assert (type(way.outcome), way.reason) == (Failed, "session_too_large")


async def test_what_goes_into_quarantine_counts(limited: Limited) -> None:
    page = {"kind": "page", "body": "<html>" * 1000, "times": None}
    async with limited(max_session=12_000) as harness:
        harness.script(*({"file_name": name, "faults": [page]} for name in ("a.wav", "b.wav", "c.wav")))
        way = await harness.go(failures=LAST)
        assert ["quarantined" in event for event in way.events("file_failed")] == [True, True, False]
        assert way.events("file_failed")[2]["limit"] == 0
        assert type(way.outcome) is Retry
        assert sum(map(len, harness.files().values())) == 12_000


async def test_what_is_too_large_is_not_fetched_once_a_file(limited: Limited) -> None:
    """A session may not bring more than one may keep, however many of its files never end."""
    async with limited(max_recording="1MiB", max_session="1MiB") as harness:
        harness.script(*({**LONG, "file_name": f"{n}.wav", "faults": [NO_LENGTH]} for n in range(10)))
        way = await harness.go()
        assert type(way.outcome) is Failed
        assert harness.transfers.bytes < 2 * 2**20 + 10 * 2**18


async def test_what_was_said_counts_too(limited: Limited) -> None:
    async with limited(max_recording=6000) as harness:
        harness.script(A, voicemail=True, transcriptions=["x" * 7000])
        way = await harness.go(kind="voicemail")
        assert (way.reason, [file.file_name for file in way.attempt.stored]) == ("recording_too_large", ["a.wav"])


async def test_recordings_inside_an_answer_share_the_limit_and_the_answer_is_not_read_on(limited: Limited) -> None:
    async with limited(max_session=12_000, api="v1") as harness:
        harness.script(*({"audio": {"bytes": 5000}} for _ in range(10)))
        way = await harness.go(failures=LAST)
        assert (type(way.outcome), way.reason) == (Failed, "session_too_large")
        assert [file.ordinal for file in way.attempt.stored] == [1, 2]
        assert way.attempt.calls == 1
        assert len(harness.files()) == 2
