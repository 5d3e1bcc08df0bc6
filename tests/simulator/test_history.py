"""Histories: explicit calls, calls that are made up, and what the recordings API answers about them."""

from __future__ import annotations

import hashlib
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.simulator import platform
from archiver.simulator.calls import EPOCH, MILLISECOND, VOICE_CHANNELS, Call
from archiver.simulator.history import History, HistoryScript, sessions_filter
from archiver.simulator.made import CHAT_CHANNELS
from archiver.simulator.platform import Simulator
from tests.simulator.conftest import Client

MADE: dict[str, Any] = {"from": "2025-03-17T00:00:00Z", "to": "2025-03-18T00:00:00Z", "calls": 300, "seconds": [1, 2]}


def call(session_id: str, at: str = "09:00:00", **fields: Any) -> dict[str, Any]:
    """A call of 17 March 2025 that lasts one and a half seconds, unless `fields` say otherwise."""
    start = datetime.fromisoformat(f"2025-03-17T{at}+00:00")
    end = start + timedelta(seconds=1.5)
    return {"session_id": session_id, "started_at": start.isoformat(), "ended_at": end.isoformat()} | fields


def made(**fields: Any) -> list[Call]:
    """Every call of a script like `MADE`, oldest first, chats included."""
    history = History(HistoryScript.from_json({"made": MADE | fields}))
    page = history.page(sessions_filter(), 0, 2**60, skip=0, limit=len(history), newest_first=False)
    assert page.total == len(page.calls) == len(history)
    return page.calls


# Made up --------------------------------------------------------------------------------------------------


def test_made_calls_are_equal_for_equal_scripts_and_different_for_another_seed() -> None:
    assert made(seed=5) == made(seed=5)
    assert not {each.session_id for each in made(seed=5)} & {each.session_id for each in made(seed=6)}


def test_made_calls_have_ids_like_the_vendors_all_different_and_are_found_by_them() -> None:
    history = History(HistoryScript.from_json({"made": MADE}))
    calls = history.voice_calls(0, 2**60)
    ids = [each.session_id for each in calls]
    assert len(set(ids)) == 300
    assert all(len(each) == 24 and int(each[:8], 16) == at.started_ms // 1000 for each, at in zip(ids, calls, strict=True))
    assert [history.find(each) for each in ids] == calls
    other = "0" if ids[0][9] != "0" else "1"
    for unknown in (ids[0][:9] + other + ids[0][10:], ids[0].upper(), ids[0][:-6] + "ffffff", "x", "é" * 24):
        assert history.find(unknown) is None


def test_made_calls_begin_within_their_time_and_last_as_long_as_they_may() -> None:
    calls = made(seconds=[2.5, 4])
    assert all(f"{each.started_at:%Y-%m-%d}" == "2025-03-17" for each in calls)
    lengths = [(each.ended_ms or 0) - each.started_ms for each in calls]
    assert 2500 <= min(lengths) < 2700
    assert 3800 < max(lengths) <= 4000


def test_each_kind_is_part_of_the_calls_and_the_burst_is_on_top() -> None:
    kinds = {"voicemails": 5, "other_channels": 40, "unavailable": 7, "in_progress": 8, "failing": 9}
    burst = {"from": "2025-03-17T12:00:00Z", "to": "2025-03-17T12:00:01Z", "calls": 100}
    calls = made(busiest=burst, **kinds)
    assert len(calls) == 400
    assert sum(each.voicemail for each in calls) == 5
    assert sum(not each.is_voice for each in calls) == 40
    assert {each.channel for each in calls} == {*VOICE_CHANNELS, *CHAT_CHANNELS}
    outcomes = [each.recording for each in calls]
    assert [outcomes.count(each) for each in ("unavailable", "in_progress", "failing")] == [7, 8, 9]
    noon = datetime(2025, 3, 17, 12, tzinfo=UTC)
    assert sum(noon <= each.started_at < noon + timedelta(seconds=1) for each in calls) >= 100
    assert {each.direction for each in calls} == {"Inbound", "Outbound"}


def test_the_traits_of_a_made_call_are_those_of_the_call() -> None:
    script = HistoryScript.from_json({"made": MADE | {"voicemails": 50, "other_channels": 50, "failing": 50}})
    history = History(script)
    assert all(history._traits(number) == history[number].traits for number in range(len(history)))


@pytest.mark.parametrize(("zone", "minutes"), [("Z", 0), ("+05:30", 330), ("-05:00", -300)])
def test_the_peak_is_an_hour_of_the_clock_of_from(zone: str, minutes: int) -> None:
    span = {"from": f"2025-03-17T00:00:00{zone}", "to": f"2025-03-19T00:00:00{zone}"}
    calls = made(calls=4000, peak={"hour": 10, "share": 0.5}, **span)
    share = sum((each.started_at + timedelta(minutes=minutes)).hour == 10 for each in calls) / len(calls)
    assert 0.45 < share < 0.55


def test_a_peak_outside_of_the_time_changes_nothing() -> None:
    span = {"from": "2025-03-17T02:00:00Z", "to": "2025-03-17T04:00:00Z"}
    assert made(**span) == made(**span, peak={"hour": 10, "share": 0.9})


def test_many_calls_take_little_memory() -> None:
    script = HistoryScript.from_json({"made": MADE | {"calls": 30_000, "voicemails": 100}})
    tracemalloc.start()
    try:
        history = History(script)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(history) == 30_000
    assert kept < 30_000 * 100


# Scripts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "JSON object, not list"),
        ({}, "needs calls, made, or both"),
        ({"calls": [call("a"), call("a")]}, "two calls have the session_id 'a'"),
        ({"calls": [call("*")]}, "stands for no call"),
        ({"calls": [call("a", started_at="2025-03-17T09:00:00")]}, r"calls\[0\]\.started_at: .* timezone"),
        ({"calls": [call("a", ended_at="2025-03-17T08:59:59Z")]}, "ended_at is before started_at"),
        ({"calls": [call("a", ended_at="2025-03-19T08:59:59Z")]}, "more than a day"),
        ({"calls": [call("a", chanel="IVR")]}, "chanel: Extra inputs"),
        ({"calls": [call("a", transferred_to="Ada")]}, "need an agent"),
        ({"calls": [call("a", agent="Ada", ended_at_bot=True)]}, "has not ended_at_bot"),
        ({"made": MADE | {"to": MADE["from"]}}, "to must be after from"),
        ({"made": MADE | {"seconds": [3, 2]}}, "shortest, longest"),
        ({"made": MADE | {"voicemails": 200, "failing": 101}}, "are 301 of 300 calls"),
        ({"made": MADE | {"peak": {"hour": 24, "share": 0.1}}}, "peak.hour"),
    ],
)
def test_an_impossible_history_is_refused_and_the_one_before_stays(sim: Simulator, data: Any, says: str) -> None:
    sim.set_history({"calls": [call("before")]})
    with pytest.raises(ValueError, match=says):
        sim.set_history(data)
    assert [each.session_id for each in sim.calls()] == ["before"]


def test_an_explicit_call_cannot_have_the_id_of_a_made_one() -> None:
    taken = made()[7].session_id
    with pytest.raises(ValueError, match=f"{taken}.* made up"):
        History(HistoryScript.from_json({"made": MADE, "calls": [call(taken)]}))


async def test_a_history_can_be_set_over_http(client: Client) -> None:
    data = {"calls": [call("one"), call("chat", channel="web")], "made": MADE | {"other_channels": 20}}
    answer = await client.control("POST", "history", data)
    assert (answer.status, answer.json) == (200, {"calls": 302, "voice": 281, "recovered": False})
    assert (await client.control("POST", "history", {"calls": []})).json["calls"] == 0
    wrong = await client.control("POST", "history", {"made": {}})
    assert wrong.status == 400
    assert "made.from: Field required" in wrong.message


def test_the_voice_calls_of_a_time_are_told_listed_yet_or_not(sim: Simulator) -> None:
    calls = [call("c", "10:00:01"), call("a", "09:00:00"), call("b", "10:00:00"), call("chat", "09:30:00", channel="web")]
    calls[1] |= {"appears_after": 5}
    calls[2] |= {"voicemail": True}
    sim.set_history({"calls": calls})
    ten = datetime(2025, 3, 17, 10, tzinfo=UTC)
    assert [each.session_id for each in sim.calls()] == ["a", "b", "c"]
    assert [each.session_id for each in sim.calls(None, ten)] == ["a"]
    assert [each.session_id for each in sim.calls(ten)] == ["b", "c"]
    assert [each.session_id for each in sim.calls(ten, ten + timedelta(seconds=1))] == ["b"]
    assert sim.calls()[0].started_at == ten - timedelta(hours=1)


# Recordings -----------------------------------------------------------------------------------------------


async def fetched(client: Client, session_id: str) -> bytes:
    (url,) = await client.urls(session_id)
    return (await client.fetch(url)).body


@pytest.mark.parametrize(("ends", "seconds"), [("09:00:01.500", 1.5), ("09:00:00.125", 0.125), ("09:00:00", 0.1)])
async def test_a_recording_is_as_long_as_its_call(client: Client, ends: str, seconds: float) -> None:
    client.sim.set_history({"calls": [call("one", ended_at=f"2025-03-17T{ends}Z")]})
    body = await fetched(client, "one")
    assert len(body) == 44 + round(seconds * 8000) * 2
    assert int.from_bytes(body[40:44], "little") == len(body) - 44


async def test_the_bytes_follow_from_the_session_id(client: Client) -> None:
    client.sim.set_history({"calls": [call("one"), call("two")]})
    first, second = await fetched(client, "one"), await fetched(client, "two")
    assert first != second
    client.sim.set_history({"calls": [call("one", "11:00:00")]})
    assert await fetched(client, "one") == first
    assert client.sim.sha256_of("one") == [hashlib.sha256(first).hexdigest()]


async def test_the_hash_of_a_call_is_known_before_anyone_asks(client: Client) -> None:
    client.sim.set_history({"calls": [call("one"), call("voicemail", voicemail=True), call("running", ended_at=None)]})
    assert client.sim.sha256_of("running") == []
    assert len(client.sim.sha256_of("voicemail")) == 1
    (digest,) = client.sim.sha256_of("one")
    assert hashlib.sha256(await fetched(client, "one")).hexdigest() == digest
    with pytest.raises(KeyError):
        client.sim.sha256_of("unknown")


@pytest.mark.parametrize(
    ("fields", "statuses"),
    [
        ({}, ["success", "success"]),
        ({"ended_at": None}, ["call_in_progress", "call_in_progress"]),
        ({"voicemail": True}, ["media_unavailable", "media_unavailable"]),
        ({"channel": "msteams"}, ["media_unavailable", "media_unavailable"]),
        ({"channel": "IVR"}, ["success", "success"]),
        ({"recording": "unavailable"}, ["media_unavailable", "media_unavailable"]),
        ({"recording": "failing"}, ["failed", "failed"]),
        ({"recording": "in_progress"}, ["call_in_progress", "media_in_progress", "success", "success"]),
    ],
)
async def test_what_is_answered_about_a_call(client: Client, fields: dict[str, Any], statuses: list[str]) -> None:
    client.sim.set_history({"calls": [call("one", **fields)]})
    assert [(await client.ask("one")).json["status"] for _ in statuses] == statuses
    assert client.sim.report()["api"]["unknown_sessions"] == 0


async def test_what_is_failing_succeeds_once_the_history_has_recovered(client: Client) -> None:
    client.sim.set_history({"calls": [call("fails", recording="failing"), call("waits", recording="in_progress")]})
    assert (await client.ask("fails")).json["status"] == "failed"
    assert (await client.ask("waits")).json["status"] == "call_in_progress"
    answer = await client.control("POST", "history", {"recovered": True})
    assert answer.json == {"calls": 2, "voice": 2, "recovered": True}
    assert (await client.ask("fails")).json["status"] == "success"
    assert (await client.ask("waits")).json["status"] == "media_in_progress"


async def test_a_script_of_its_own_comes_before_the_history_and_that_before_the_script_for_every_other(client: Client) -> None:
    client.sim.script({"session_id": "*", "answers": [{"status": "failed"}]})
    client.sim.set_history({"calls": [call("one"), call("two")]})
    client.sim.script({"session_id": "two", "answers": [{"status": "call_in_progress"}]})
    statuses = [(await client.ask(each)).json["status"] for each in ("one", "two", "three")]
    assert statuses == ["success", "call_in_progress", "failed"]


async def test_another_history_begins_anew(client: Client) -> None:
    client.sim.set_history({"calls": [call("one"), call("two")]})
    url, _ = [*await client.urls("one"), *await client.urls("two")]
    client.sim.set_history({"calls": [call("two", recording="unavailable")]})
    assert (await client.ask("two")).json["status"] == "media_unavailable"
    assert (await client.ask("one")).json["status"] == "media_unavailable"
    assert client.sim.report()["api"]["unknown_sessions"] == 1
    assert (await client.fetch(url)).status == 404


async def test_few_sessions_are_remembered_however_many_calls_there_are(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "STAND_INS", 3)
    client.sim.settings.account_rate_limits = ()
    client.sim.set_history({"made": MADE})
    ids = [each.session_id for each in client.sim.calls()[:10]]
    first = await fetched(client, ids[0])
    for each in ids:
        await client.urls(each)
    assert len(client.sim._api.sessions) == 3
    assert len(client.sim._media.recordings) == 3 * 4, "each has four paths"
    assert await fetched(client, ids[0]) == first


def test_times_finer_than_a_millisecond_are_cut_off() -> None:
    one = Call.model_validate(call("one", started_at="2025-03-17T09:00:00.123999Z", ended_at=None))
    assert EPOCH + one.started_ms * MILLISECOND == datetime(2025, 3, 17, 9, 0, 0, 123_000, tzinfo=UTC)


async def test_a_recording_can_be_shorter_than_its_call_and_a_flac(client: Client) -> None:
    client.sim.set_history({"calls": [call("paused", recorded_seconds=0.5), call("flac", recorded_as="flac")]})
    paused, as_flac = [(await client.fetch((await client.urls(each))[0])).body for each in ("paused", "flac")]
    assert len(paused) == 44 + 8000
    assert as_flac[:4] == b"fLaC"
    assert int.from_bytes(as_flac[21:26]) & (1 << 36) - 1 == 12_000


async def test_the_platform_keeps_recordings_for_so_many_days(client: Client) -> None:
    now = datetime.now(UTC)
    ages = {"old": 31, "recent": 29}
    starts = {each: (now - timedelta(days=days)).isoformat() for each, days in ages.items()}
    client.sim.set_history({"calls": [call(each, started_at=at, ended_at=at) for each, at in starts.items()]})

    async def statuses() -> list[str]:
        return [(await client.ask(each)).json["status"] for each in ages]

    assert await statuses() == ["success", "success"]
    client.sim.alter({"source_retention_days": 30})
    assert await statuses() == ["media_unavailable", "success"]
    assert client.sim.sha256_of("old") == []
    client.sim.alter({"source_retention_days": None})
    assert await statuses() == ["success", "success"]
