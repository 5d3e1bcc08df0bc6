"""Version 1 of the recordings API: the audio lies in the answer itself, and ends in the store as any other does."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from archiver.errors import LeaseLost, StoreUnavailable
from archiver.outcome import Archived, Failed, NotReady, Retry, Unavailable
from tests.archive.conftest import FOLDER, LAST, MAX_INLINE, SessionHarness, wav
from tests.audio_files import flac

A = {"audio": {"bytes": 5000}}
LONG = {"audio": {"bytes": MAX_INLINE - 100}}
PAGE = "<html><body>sorry</body></html>"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def faulty(recording: dict[str, Any] = A, **fault: Any) -> dict[str, Any]:
    return {**recording, "faults": [fault]}


def answer(*bodies: bytes, media_type: str = "audio/wav", **more: Any) -> dict[str, Any]:
    """A raw answer of the platform."""
    urls = [f"data:{media_type};base64,{base64.b64encode(body).decode()}" for body in bodies]
    return {"raw": json.dumps({"recording": urls, **more})}


async def test_recordings_in_the_answer_are_stored_by_their_place(inline: SessionHarness) -> None:
    inline.script(A, LONG, {**A, "content_type": "audio/x-wav"})
    way = await inline.go()
    assert way.outcome == Archived()
    files = inline.files()
    assert list(files) == [f"{FOLDER}/recording-{number}.wav" for number in (1, 2, 3)]
    assert [sha256(body) for body in files.values()] == inline.simulator.sha256_of(way.attempt.session.session_id)
    stored = way.attempt.stored
    assert [(file.ordinal, file.source_name, file.media_type) for file in stored] == [(n, "", "audio/wav") for n in (1, 2, 3)]
    assert [file.sha256 for file in stored] == [sha256(body) for body in files.values()]
    assert way.attempt.listed == 3
    assert way.attempt.calls == 1
    assert inline.transfers.bytes == sum(map(len, files.values()))
    assert not inline.transfers.running
    assert inline.simulator.report()["media"]["requests"] == 0


async def test_the_evidence_names_the_recordings_and_does_not_hold_them(inline: SessionHarness) -> None:
    inline.script(A)
    way = await inline.go()
    (asked,) = way.events("asked")
    assert asked == {"http_status": 200, "status": None, "answer": '{"recording": ["[recording 1: audio/wav, 5000 bytes]"]}'}


@pytest.mark.parametrize(
    ("media_type", "name", "body"),
    [
        ("audio/mpeg", "recording-1.mp3", b"ID3\x03" + bytes(range(128, 256))),
        ("audio/ogg", "recording-1.ogg", b"OggS" + bytes(200)),
        ("video/x-odd", "recording-1.bin", bytes(300)),
        ("../../etc", "recording-1.bin", bytes(300)),
    ],
)
async def test_the_type_gives_the_name(inline: SessionHarness, media_type: str, name: str, body: bytes) -> None:
    inline.script(answers=[answer(body, media_type=media_type)])
    way = await inline.go()
    assert way.outcome == Archived()
    assert inline.files() == {f"{FOLDER}/{name}": body}


async def test_flac_that_is_declared_a_wav_is_kept_as_it_came(inline: SessionHarness) -> None:
    """The name is given before the bytes are seen."""
    inline.script(answers=[answer(flac())])
    way = await inline.go()
    assert way.outcome == Archived()
    assert inline.files() == {f"{FOLDER}/recording-1.wav": flac()}
    (stored,) = way.attempt.stored
    assert (stored.media_type, stored.seconds, stored.flags) == ("audio/flac", 2, ("type_differs", "name_differs"))


async def test_the_end_of_its_string_proves_that_a_recording_is_whole(inline: SessionHarness) -> None:
    inline.script(answers=[answer(tagged := wav(5000) + b"TAG" + bytes(125))])
    way = await inline.go()
    assert way.outcome == Archived()
    assert inline.files() == {f"{FOLDER}/recording-1.wav": tagged}
    assert way.attempt.stored[0].flags == ("trailing_bytes",)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("call_in_progress", NotReady),
        ("media_in_progress", NotReady),
        ("media_unavailable", Unavailable),
        ("failed", Failed),
        ("archived_to_glacier", Retry),
    ],
)
async def test_a_status_means_what_it_means_in_version_2(inline: SessionHarness, status: str, expected: type) -> None:
    inline.script(answers=[{"status": status}])
    way = await inline.go()
    assert type(way.outcome) is expected
    assert inline.files() == {}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ('{"recording": []}', "api_empty_success"),
        ("{}", "api_answer_invalid"),
        ("[]", "api_answer_invalid"),
        ("sorry", "api_answer_invalid"),
        ('{"recording": null}', "api_answer_invalid"),
        ('{"recording": "data:audio/wav;base64,UklG"}', "api_answer_invalid"),
        ('{"recording": ["https://media.kore.ai/f.wav"]}', "api_answer_invalid"),
        ('{"recording": [{"fileName": "a.wav", "fileUrl": "https://media.kore.ai/f.wav"}]}', "api_answer_invalid"),
        ('{"recording": ["data:audio/wav,UklG"]}', "api_answer_invalid"),
        ('{"recording": ["data:audio/wav;base64,Ukl!"]}', "api_answer_invalid"),
        ('{"recording": ["data:audio/wav;base64,UklG', "api_answer_invalid"),
        ('{"recording": ["data:audio/wav;base64,UklG"', "recording_bad_wav"),
    ],
)
async def test_what_no_page_allows_is_a_defect(inline: SessionHarness, raw: str, reason: str) -> None:
    inline.script(answers=[{"raw": raw}])
    way = await inline.go()
    assert type(way.outcome) is Retry
    assert way.reason in (reason, "api_answer_invalid")
    assert "http_status" in way.facts
    assert way.attempt.calls == 1
    assert inline.files() == {}


async def test_one_bad_recording_does_not_stop_the_next(inline: SessionHarness) -> None:
    inline.script(faulty(kind="page", body=PAGE), A, faulty(kind="empty"), A)
    way = await inline.go(failures=LAST)
    assert (type(way.outcome), way.reason) == (Retry, "recording_is_page")
    assert [file.ordinal for file in way.attempt.stored] == [2, 4]
    assert [event["ordinal"] for event in way.events("file_failed")] == [1, 3]
    assert inline.files()[f"quarantine/{FOLDER}/1-{len(PAGE)}-recording-1.bin"] == PAGE.encode()
    known = tuple(way.attempt.stored)
    again = await inline.go(epoch=2, known=known)
    assert again.outcome == Archived()
    assert [file.ordinal for file in again.attempt.stored] == [1, 3], "what is stored is read past"
    assert len([key for key in inline.files() if key.startswith(FOLDER)]) == 4


async def test_what_is_read_past_is_on_its_way_as_well(inline: SessionHarness) -> None:
    """Else it could hold a slot, as slowly as it likes, and nobody would see it."""
    inline.script(A, A)
    first = await inline.go()
    came = inline.transfers.bytes
    again = await inline.go(epoch=2, known=tuple(first.attempt.stored))
    assert (again.outcome, again.attempt.stored) == (Archived(), [])
    assert inline.transfers.bytes == 2 * came


@pytest.mark.parametrize("kind", ["truncate", "reset"])
async def test_a_break_is_waited_out_and_what_was_stored_stays(inline: SessionHarness, kind: str) -> None:
    inline.script(A, faulty(LONG, kind=kind, at=90_000), A)
    way = await inline.go()
    assert way.outcome == Archived()
    assert way.attempt.calls == 2 == len(way.events("asked"))
    assert [file.ordinal for file in way.attempt.stored] == [1, 2, 3]
    session = way.attempt.session.session_id
    assert [sha256(body) for body in inline.files().values()] == inline.simulator.sha256_of(session)


async def test_what_breaks_again_and_again_goes_back_and_its_last_body_is_kept(inline: SessionHarness) -> None:
    inline.script({**LONG, "faults": [{"kind": "truncate", "at": 90_000, "times": None}]})
    way = await inline.go(failures=LAST)
    assert (type(way.outcome), way.reason) == (Retry, "api_unreachable")
    assert way.attempt.calls == 3
    (key, *_), (body, *_) = zip(*inline.files().items(), strict=True)
    assert key.startswith(f"quarantine/{FOLDER}/1-")
    assert body.startswith(b"RIFF")


async def test_a_recording_above_the_limit_fails_the_session_at_once(inline: SessionHarness) -> None:
    inline.script(A, {"audio": {"bytes": MAX_INLINE + 2}}, A)
    way = await inline.go()
    assert (type(way.outcome), way.reason) == (Failed, "recording_too_large")
    assert way.facts["expected"] == MAX_INLINE < way.facts["received"]
    assert way.facts["ordinal"] == 2
    assert "transfer.max_inline" in way.facts["hint"]
    assert way.attempt.calls == 1 == len(way.events("asked"))
    assert [file.ordinal for file in way.attempt.stored] == [1]
    assert list(inline.files()) == [f"{FOLDER}/recording-1.wav"]


async def test_more_recordings_than_allowed_fail_the_session(inline: SessionHarness) -> None:
    inline.script(answers=[answer(*[wav(60)] * 201)])
    way = await inline.go()
    assert (type(way.outcome), way.reason, way.facts["files"]) == (Failed, "too_many_files", 201)


async def test_the_other_path_is_tried_once_and_then_known(inline: SessionHarness) -> None:
    inline.script(A)
    inline.simulator.settings.v1_paths = ("plain",)
    first, second = await inline.go(), await inline.go(epoch=2)
    assert (first.outcome, first.attempt.calls) == (Archived(), 2)
    assert (second.outcome, second.attempt.calls) == (Archived(), 1)
    assert [event["existed"] for event in second.events("stored")] == [True]
    inline.simulator.settings.v1_paths = ()
    gone = await inline.go(epoch=3)
    assert (gone.reason, gone.attempt.calls) == ("api_http_404", 1)


async def test_no_path_at_all_is_a_defect_after_both(inline: SessionHarness) -> None:
    inline.script(A)
    inline.simulator.settings.v1_paths = ()
    for epoch in (1, 2):
        way = await inline.go(epoch=epoch)
        assert (way.reason, way.attempt.calls) == ("api_http_404", 2)


async def test_other_content_under_the_key_is_a_conflict(inline: SessionHarness) -> None:
    inline.script(A)
    theirs = inline.root / FOLDER / "recording-1.wav"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(wav(300))
    way = await inline.go(epoch=4)
    assert (type(way.outcome), way.reason) == (Failed, "conflict")
    assert way.facts["quarantined"] == f"quarantine/{FOLDER}/4-5000-recording-1.wav"


async def test_a_name_that_another_file_has_already_is_avoided(inline: SessionHarness, harness: SessionHarness) -> None:
    """The bot was asked by version 2 before, and a file of that name came."""
    harness.script({"file_name": "recording-1.wav", "audio": {"bytes": 600}})
    before = await harness.go()
    inline.script(A)
    way = await inline.go(epoch=2, known=tuple(before.attempt.stored))
    assert way.outcome == Archived()
    assert [file.file_name for file in way.attempt.stored] == ["recording-1~2.wav"]


async def test_a_lost_lease_prevents_every_key(inline: SessionHarness) -> None:
    def guard() -> None:
        raise LeaseLost("gone")

    inline.script(A)
    way = await inline.go(guard=guard)
    assert isinstance(way.error, LeaseLost)
    assert inline.files() == {}


async def test_a_store_that_fails_ends_the_call(inline: SessionHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(inline.archive.store), "upload", lambda self, *args, **terms: _Failing())
    inline.script(A, A)
    way = await inline.go()
    assert isinstance(way.error, StoreUnavailable)
    assert way.attempt.calls == 1 == len(way.events("asked"))
    assert way.events("asked")[0]["http_status"] == 200


class _Failing:
    """An upload to a full disk."""

    async def __aenter__(self) -> _Failing:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def write(self, data: bytes) -> None:
        raise StoreUnavailable("disk full")


@pytest.mark.parametrize(
    ("answers", "reason", "calls"),
    [
        ([{"http_status": 503}], "api_http_503", 3),
        ([{"fault": "reset"}], "api_unreachable", 3),
        ([{"fault": "rate_limited", "retry_after": 7}], "rate_limited", 1),
        ([{"fault": "rate_limited", "http_status": 400}], "rate_limited", 1),
        ([{"fault": "unauthorized"}], "credentials_rejected", 2),
    ],
)
async def test_troubles_of_the_api_are_those_of_version_2(
    inline: SessionHarness, answers: list[dict[str, Any]], reason: str, calls: int
) -> None:
    inline.script(A, answers=answers)
    way = await inline.go()
    assert (way.reason, way.attempt.calls) == (reason, calls)
