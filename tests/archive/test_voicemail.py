"""Voicemail: its files as recordings are, and what was said in them as one file beside them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from archiver.archive.files import TRANSCRIPTIONS, Files
from archiver.outcome import Archived, Failed, NotReady, Unavailable
from tests.archive.conftest import SESSION, SessionHarness

A = {"file_name": "a.wav", "audio": {"bytes": 5000}}
FOLDER = f"bot=bot/date=2026-01-02/{SESSION}/voicemail"
SAID = [
    {
        "lang": "en",
        "createdOn": "2024-03-05T12:00:00Z",
        "components": [{"data": {"text": "Grüße, 寛. My PIN is 4711"}, "cT": "text"}],
        "url": "https://media.kore.ai/v.wav?e=1&s=SIGNATURE$$",
    }
]
CANONICAL = json.dumps(SAID, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def voicemail(harness: SessionHarness, *recordings: dict[str, Any], **fields: Any) -> None:
    harness.script(*(recordings or (A,)), **{"voicemail": True, "transcriptions": SAID, **fields})


async def go(harness: SessionHarness, **terms: Any) -> Any:
    return await harness.go(kind="voicemail", **terms)


@pytest.mark.parametrize("key", ["voicemail recording", "voicemail_recording"])
async def test_files_and_what_was_said_are_stored(harness: SessionHarness, key: str) -> None:
    voicemail(harness, A, {**A, "file_name": "b.wav"}, voicemail_key=key)
    way = await go(harness)
    assert way.outcome == Archived()
    files = harness.files()
    assert list(files) == [f"{FOLDER}/{name}" for name in ("a.wav", "b.wav", "transcriptions.json")]
    assert files[f"{FOLDER}/transcriptions.json"] == CANONICAL
    assert [hashlib.sha256(body).hexdigest() for body in list(files.values())[:2]] == harness.simulator.sha256_of(SESSION)
    said = way.attempt.stored[-1]
    assert (said.ordinal, said.source_name, said.file_name) == (0, "transcriptions", "transcriptions.json")
    assert (said.media_type, said.bytes, said.sha256) == (
        "application/json", len(CANONICAL), hashlib.sha256(CANONICAL).hexdigest()
    )  # fmt: skip
    assert (said.flags, said.seconds) == ((), None)
    assert way.attempt.listed == 2
    assert way.attempt.calls == 1


async def test_nothing_of_what_was_said_is_in_histories_or_logs(
    harness: SessionHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    voicemail(harness, {**A, "faults": [{"kind": "page", "times": None}]})
    way = await go(harness, failures=2)
    out = capsys.readouterr()
    shown = repr((way.attempt.events, way.outcome, way.error, out.out, out.err))
    assert "a.wav" in shown
    for secret in ("4711", "SIGNATURE", "components"):
        assert secret not in shown


@pytest.mark.parametrize("said", [None, [], {}, ""])
async def test_where_nothing_was_said_there_is_no_file_of_it(harness: SessionHarness, said: Any) -> None:
    voicemail(harness, transcriptions=said)
    way = await go(harness)
    assert way.outcome == Archived()
    assert list(harness.files()) == [f"{FOLDER}/a.wav"]


async def test_what_an_earlier_attempt_stored_is_not_stored_again(harness: SessionHarness) -> None:
    voicemail(harness, {**A, "faults": [{"kind": "page"}]})
    first = await go(harness)
    assert [file.ordinal for file in first.attempt.stored] == [0]
    voicemail(harness, transcriptions=["said otherwise"])
    second = await go(harness, epoch=2, known=tuple(first.attempt.stored))
    assert second.outcome == Archived()
    assert [file.ordinal for file in second.attempt.stored] == [1]
    assert harness.files()[f"{FOLDER}/transcriptions.json"] == CANONICAL


async def test_what_was_stored_but_never_recorded_is_met_again(harness: SessionHarness) -> None:
    voicemail(harness)
    first, second = await go(harness), await go(harness, epoch=2)
    assert second.outcome == Archived()
    assert second.attempt.stored == first.attempt.stored
    assert [event["existed"] for event in second.events("stored")] == [True, True]


async def test_a_file_of_the_same_name_does_not_take_its_place(harness: SessionHarness) -> None:
    voicemail(harness, {**A, "file_name": "Transcriptions.JSON"})
    assert (await go(harness)).outcome == Archived()
    assert sorted(key.rpartition("/")[2] for key in harness.files()) == ["Transcriptions.JSON", "transcriptions~2.json"]


async def test_half_characters_are_kept_as_json_escapes(harness: SessionHarness) -> None:
    voicemail(harness, transcriptions=["\ud83d"])
    assert (await go(harness)).outcome == Archived()
    assert harness.files()[f"{FOLDER}/transcriptions.json"] == b'["\\ud83d"]'


async def test_what_cannot_be_written_as_json_is_missing(harness: SessionHarness) -> None:
    """As what is nested too deep: its session must not pass for one that has all of its files."""
    way = await harness.go(kind="nothing is asked for this")
    said: list[Any] = []
    said.append(said)
    files = Files(way.attempt, harness.bot.media, harness.archive, lambda: None)
    with pytest.raises(ValueError, match="Circular"):
        await files.take_transcriptions(said, [])
    assert way.attempt.missing == {TRANSCRIPTIONS}


async def test_expired_urls_are_renewed(harness: SessionHarness) -> None:
    voicemail(harness, {**A, "faults": [{"kind": "expired"}]})
    way = await go(harness)
    assert (way.outcome, way.attempt.calls) == (Archived(), 2)


@pytest.mark.parametrize(
    ("status", "expected"), [("call_in_progress", NotReady), ("media_unavailable", Unavailable), ("failed", Failed)]
)
async def test_statuses_are_those_of_recordings(harness: SessionHarness, status: str, expected: type) -> None:
    voicemail(harness, answers=[{"status": status}])
    assert type((await go(harness)).outcome) is expected
    assert harness.files() == {}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ('{"status": "success", "transcriptions": [1]}', "api_answer_invalid"),
        ('{"status": "success", "recording": [{"fileName": "a", "fileUrl": "https://x/y"}]}', "api_answer_invalid"),
        ('{"status": "success", "voicemail recording": [], "transcriptions": [1]}', "api_empty_success"),
        ('{"status": "success", "voicemail_recording": [], "voicemail recording": [7]}', "api_answer_invalid"),
    ],
)
async def test_a_success_without_a_file_is_a_defect(harness: SessionHarness, raw: str, reason: str) -> None:
    voicemail(harness, answers=[{"raw": raw}])
    way = await go(harness)
    assert way.reason == reason
    assert harness.files() == {}


async def test_a_missing_scope_is_named(harness: SessionHarness) -> None:
    voicemail(harness)
    harness.simulator.settings.scopes = ("SmartAssist Recordings",)
    way = await go(harness)
    assert way.reason == "credentials_rejected"
    assert "'SmartAssist Voicemail'" in way.facts["hint"]


async def test_a_voicemail_is_no_recording(harness: SessionHarness) -> None:
    voicemail(harness)
    assert type((await harness.go()).outcome) is Unavailable
