"""A session's way: what the platform may answer, what the media host may send, and what lies in the store afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from archiver.archive.media import MediaClient, MediaHosts
from archiver.config import TransferSettings
from archiver.errors import ApiDefect, LeaseLost
from archiver.outcome import Archived, Failed, NotReady, Retry, Unavailable
from tests.archive.conftest import DAY, FOLDER, LAST, SESSION, SessionHarness, wav

A = {"file_name": "a.wav", "audio": {"bytes": 5000}}
SIZE = 5000

ALWAYS: dict[str, Any] = {"times": None}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def faulty(*, resumable: str = "yes", **fault: Any) -> dict[str, Any]:
    return {**A, "resumable": resumable, "faults": [fault]}


async def test_a_recording_is_stored_as_the_platform_serves_it(harness: SessionHarness) -> None:
    harness.script(A)
    way = await harness.go()
    (stored,) = way.attempt.stored
    (name, body), *none = harness.files().items()
    assert way.outcome == Archived()
    assert none == []
    assert name == stored.store_key == f"{FOLDER}/a.wav"
    assert [sha256(body)] == harness.simulator.sha256_of(SESSION) == [stored.sha256]
    assert (stored.bytes, stored.ordinal, stored.source_name, stored.media_type, stored.flags) == (
        len(body), 1, "a.wav", "audio/wav", ()
    )  # fmt: skip
    assert harness.transfers.bytes == len(body)
    assert not harness.transfers.running
    assert [event["event"] for event in way.attempt.events] == ["asked", "stored"]
    assert way.attempt.calls == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("call_in_progress", NotReady("call_in_progress")),
        ("media_in_progress", NotReady("media_in_progress")),
        ("media_unavailable", Unavailable),
        ("failed", Failed),
        ("archived_to_glacier", Retry),
    ],
)
async def test_each_status_has_its_end_and_leaves_the_raw_answer(harness: SessionHarness, status: str, expected: Any) -> None:
    harness.script(answers=[{"status": status}])
    way = await harness.go()
    assert way.outcome == expected or type(way.outcome) is expected
    assert way.events("asked") == [{"http_status": 200, "status": status, "answer": f'{{"status": "{status}"}}'}]
    assert harness.files() == {}
    if type(way.outcome) is Unavailable:
        assert way.outcome.detail == {"http_status": 200, "answer": '{"status": "media_unavailable"}'}
        assert way.reason == "media_unavailable"
    if type(way.outcome) is Failed:
        assert way.reason == "platform_failed"
    if type(way.outcome) is Retry:
        assert way.reason == "api_status_unknown"
        assert way.facts["status"] == status


@pytest.mark.parametrize(
    ("age", "said_at", "reason", "final"),
    [
        (timedelta(days=89, hours=23), None, "media_unavailable", False),
        (timedelta(days=90, seconds=1), None, "probably_purged", True),
        (timedelta(days=99), timedelta(days=91), "probably_purged", True),
        (timedelta(days=91), timedelta(days=89), "media_unavailable", True),  # it was said in time: there was none
    ],
)
async def test_a_recording_that_the_platform_has_probably_deleted_is_told_from_none(
    harness: SessionHarness, age: timedelta, said_at: timedelta | None, reason: str, final: bool
) -> None:
    bot = harness.bot.settings.model_copy(update={"source_retention": timedelta(days=90)})
    harness.bot = dataclasses.replace(harness.bot, settings=bot)
    harness.script(answers=[{"status": "media_unavailable"}])
    began = DAY - age
    way = await harness.go(began_at=began, unavailable_since=said_at and began + said_at, recheck=said_at is not None)
    assert isinstance(way.outcome, Unavailable)
    assert (way.outcome.reason, way.outcome.final) == (reason, final)
    assert way.facts["answer"] == '{"status": "media_unavailable"}'
    if final:
        assert (way.facts["call_age_days"], way.facts["source_retention_days"]) == (round(age / timedelta(days=1), 1), 90)


async def test_a_dial_that_nobody_answered_has_none_for_good(harness: SessionHarness) -> None:
    harness.script(answers=[{"status": "media_unavailable"}])
    way = await harness.go(unanswered="busy")
    assert isinstance(way.outcome, Unavailable)
    assert (way.outcome.reason, way.outcome.final, way.facts["contact_status"]) == ("not_answered", True, "busy")
    harness.script(A)
    assert (await harness.go(unanswered="busy")).outcome == Archived(), "what is there is archived"


async def test_a_kind_that_is_not_supported_fails_without_a_call(harness: SessionHarness) -> None:
    way = await harness.go(kind="fax")
    assert way.outcome == Failed("kind_not_supported", {"kind": "fax", "supported": ["recording", "voicemail"]})
    assert way.attempt.calls == 0


# --- downloads that go wrong once: a short break is waited out, the rest goes back to the queue

BREAKS = {
    "truncated": {"kind": "truncate", "at": 1000},
    "truncated in the header": {"kind": "truncate", "at": 20},
    "truncated before the first byte": {"kind": "truncate", "at": 0},
    "reset": {"kind": "reset", "at": 1000},
    "reset before any answer": {"kind": "reset"},
    "HTTP 500": {"kind": "status", "http_status": 500},
    "HTTP 503": {"kind": "status", "http_status": 503, "body": "<h1>busy</h1>"},
    "HTTP 429": {"kind": "status", "http_status": 429},
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=list(BREAKS))
async def test_a_short_break_is_waited_out_without_another_call(harness: SessionHarness, fault: dict[str, Any]) -> None:
    harness.script(faulty(**fault))
    way = await harness.go()
    assert way.outcome == Archived()
    assert way.attempt.calls == 1
    assert [sha256(body) for body in harness.files().values()] == harness.simulator.sha256_of(SESSION)
    assert harness.simulator.report()["media"]["requests"] == 2


@pytest.mark.parametrize(
    ("fault", "requests"),
    [({"kind": "slow", "bytes_per_second": 20_000}, 1), ({"kind": "no_length"}, 1), ({"kind": "redirect", "to": "same"}, 2)],
    ids=["slow", "no length", "redirected"],
)
async def test_what_is_odd_but_right_is_taken(harness: SessionHarness, fault: dict[str, Any], requests: int) -> None:
    harness.script(faulty(**fault))
    way = await harness.go()
    assert way.outcome == Archived()
    assert [sha256(body) for body in harness.files().values()] == harness.simulator.sha256_of(SESSION)
    assert harness.simulator.report()["media"]["requests"] == requests


# --- downloads that go wrong for ever

PAGE = "<html><body>sorry</body></html>"
JSON = '{"error": "try again"}'
REJECTED: dict[str, tuple[dict[str, Any], str, dict[str, Any], bytes | None]] = {
    # fault, reason, facts, the body in quarantine
    "truncated": (
        {"kind": "truncate", "at": 1000},
        "recording_truncated",
        {"expected": SIZE, "received": 1000, "error": "ClientPayloadError"},
        b"",
    ),
    "truncated before the first byte": (
        {"kind": "truncate", "at": 0},
        "recording_truncated",
        {"expected": SIZE, "received": 0, "first_bytes": ""},
        None,
    ),
    "reset": ({"kind": "reset", "at": 1000}, "recording_truncated", {"expected": SIZE}, b""),
    "a page": (
        {"kind": "page", "body": PAGE},
        "recording_is_page",
        {"received": len(PAGE), "first_bytes": PAGE, "content_type": "text/html"},
        PAGE.encode(),
    ),
    "a page that says audio/wav": (
        {"kind": "page", "body": PAGE, "content_type": "audio/wav"},
        "recording_is_page",
        {"received": len(PAGE), "first_bytes": PAGE, "content_type": "audio/wav"},
        PAGE.encode(),
    ),
    "JSON": (
        {"kind": "json", "body": JSON},
        "recording_is_json",
        {"received": len(JSON), "first_bytes": JSON, "content_type": "application/json"},
        JSON.encode(),
    ),
    "JSON that says audio/wav": (
        {"kind": "json", "body": JSON, "content_type": "audio/wav"},
        "recording_is_json",
        {"received": len(JSON), "first_bytes": JSON, "content_type": "audio/wav"},
        JSON.encode(),
    ),
    "empty": ({"kind": "empty"}, "recording_empty", {"received": 0}, None),
    "cut off without a length": ({"kind": "no_length", "at": 1000}, "recording_bad_wav", {"received": 1000}, b""),
    "HTTP 503": ({"kind": "status", "http_status": 503}, "media_http_503", {"http_status": 503}, None),
    "HTTP 400": ({"kind": "status", "http_status": 400}, "media_http_400", {"http_status": 400}, None),
    "HTTP 404": ({"kind": "status", "http_status": 404}, "media_url_rejected", {"http_status": 404}, None),
    "reset before any answer": ({"kind": "reset"}, "media_unreachable", {}, None),
}


@pytest.mark.parametrize("last", [False, True], ids=["not the last attempt", "the last attempt"])
@pytest.mark.parametrize(("fault", "reason", "facts", "body"), REJECTED.values(), ids=list(REJECTED))
async def test_what_is_not_the_recording_is_told_with_its_facts_and_kept_at_the_end(
    harness: SessionHarness, fault: dict[str, Any], reason: str, facts: dict[str, Any], body: bytes | None, last: bool
) -> None:
    harness.script(faulty(resumable="no", **fault, **ALWAYS))
    way = await harness.go(failures=LAST if last else 0, epoch=5)
    assert (type(way.outcome), way.reason) == (Retry, reason)
    assert way.facts.items() >= facts.items()
    assert way.attempt.stored == []
    assert way.events("file_failed") == [{"ordinal": 1, "source_name": "a.wav", "file_name": "a.wav", **way.facts}]
    files = harness.files()
    if body is None or not last:
        assert files == {}
        assert "quarantined" not in way.facts
    else:
        received = way.facts["received"]
        assert list(files) == [f"quarantine/{FOLDER}/5-{received}-a.wav"] == [way.facts["quarantined"]]
        (kept,) = files.values()
        assert kept == body or (body == b"" and kept[:4] == b"RIFF" and len(kept) == received)


async def test_every_body_of_the_last_attempt_is_kept_under_its_length(harness: SessionHarness) -> None:
    """The platform cuts off ever earlier: what is kept must include the longest."""
    faults = [{"kind": "truncate", "at": at} for at in (100, 3000, 200)]
    harness.script({**A, "resumable": "no", "faults": faults})
    way = await harness.go(failures=LAST)
    assert way.facts["received"] == 200
    assert way.facts["quarantined"] == f"quarantine/{FOLDER}/1-200-a.wav"
    assert {len(body) for body in harness.files().values()} == {100, 200, 3000}


async def test_a_body_that_stalls_is_given_up(harness: SessionHarness) -> None:
    impatient = MediaClient(MediaHosts.of(harness.bot.settings), TransferSettings(stall_timeout=timedelta(seconds=1)))
    harness.bot = dataclasses.replace(harness.bot, media=impatient)
    harness.script(faulty(resumable="no", kind="stall", at=1000, **ALWAYS))
    try:
        way = await harness.go(failures=LAST)
    finally:
        await impatient.close()
    assert (type(way.outcome), way.reason) == (Retry, "recording_stalled")
    assert way.facts.items() >= {"expected": SIZE, "received": 1000}.items()
    assert [len(body) for body in harness.files().values()] == [1000]


@pytest.mark.parametrize(
    ("recording", "media_type", "flags"),
    [
        ({"riff_sizes": "true"}, "audio/wav", ()),
        ({"riff_sizes": "zero"}, "audio/wav", ("streamed_wav",)),
        ({"riff_sizes": "ffffffff"}, "audio/wav", ("streamed_wav",)),
        ({"riff_sizes": "7ffff000"}, "audio/wav", ("streamed_wav",)),
        ({"riff_sizes": "riff_wrong"}, "audio/wav", ("riff_size_wrong",)),
        ({"extra": "list"}, "audio/wav", ()),
        ({"extra": "id3"}, "audio/wav", ("trailing_bytes",)),
        ({"audio": {"seconds": 2, "format": "flac"}}, "audio/flac", ("type_differs", "name_differs")),
    ],
    ids=str,
)
async def test_a_recording_is_taken_for_what_it_is_and_flagged(
    harness: SessionHarness, recording: dict[str, Any], media_type: str, flags: tuple[str, ...]
) -> None:
    harness.script({**A, "audio": {"seconds": 2}, **recording})
    way = await harness.go()
    assert way.outcome == Archived()
    (stored,) = way.attempt.stored
    assert (stored.file_name, stored.media_type, stored.flags, stored.seconds) == ("a.wav", media_type, flags, 2)


async def test_a_wav_whose_header_disagrees_with_its_length_is_rejected(harness: SessionHarness) -> None:
    harness.script({**A, "riff_sizes": "wrong"})
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Retry, "recording_bad_wav")
    assert way.facts["first_bytes"].startswith("RIFF")
    assert harness.files() == {}


# --- signed URLs


async def test_an_expired_url_is_asked_for_again_once(harness: SessionHarness) -> None:
    harness.script(faulty(kind="expired"))
    way = await harness.go()
    assert way.outcome == Archived()
    assert way.attempt.calls == 2
    assert way.events("url_expired") == [{"ordinal": 1, "http_status": 403}]
    assert harness.simulator.report()["media"]["expired_urls"] == 1


async def test_urls_that_expire_for_ever_go_back_to_the_queue(harness: SessionHarness) -> None:
    harness.script(faulty(kind="expired", **ALWAYS))
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Retry, "media_url_rejected")
    assert way.attempt.calls == 2


async def test_where_fresh_urls_are_refused_too_the_budget_is_spared(harness: SessionHarness) -> None:
    """A media host that refuses everything: one more call an attempt, not one a file."""
    names = [f"{number}.wav" for number in range(10)]
    refused = {"kind": "status", "http_status": 403, **ALWAYS}
    harness.script(*({"file_name": name, "audio": {"bytes": 500}, "faults": [refused]} for name in names))
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Retry, "media_url_rejected")
    assert way.attempt.calls == 2
    assert len(way.events("file_failed")) == 10


async def test_a_key_that_the_store_cannot_keep_leaves_the_other_files_alone(harness: SessionHarness) -> None:
    harness.script({"file_name": "a.wav", "audio": {"bytes": 500}}, {"file_name": "b.wav", "audio": {"bytes": 500}})
    (harness.root / FOLDER / "a.wav").mkdir(parents=True)
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Failed, "conflict")
    assert way.facts["message"].endswith("already holds a folder")
    assert len((harness.root / way.facts["quarantined"]).read_bytes()) == 500
    assert [file.file_name for file in way.attempt.stored] == ["b.wav"]


async def test_a_session_whose_folder_leads_outside_is_refused_alone(harness: SessionHarness, tmp_path: Path) -> None:
    harness.script({"file_name": "a.wav", "audio": {"bytes": 500}})
    outside = tmp_path / "outside"
    outside.mkdir()
    (harness.root / FOLDER).parent.mkdir(parents=True)
    (harness.root / FOLDER).symlink_to(outside)
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Retry, "store_refused")
    assert "is a symbolic link" in way.facts["message"]
    assert not list(outside.iterdir())


async def test_one_fresh_answer_serves_all_files_that_come_after(harness: SessionHarness) -> None:
    """The URLs of ten files expire together: one more call, not ten."""
    names = [f"{number}.wav" for number in range(10)]
    harness.script(*({"file_name": name, "audio": {"bytes": 500}, "faults": [{"kind": "expired"}]} for name in names))
    way = await harness.go()
    assert way.outcome == Archived()
    assert way.attempt.calls == 2
    assert len(harness.files()) == 10


async def test_a_second_answer_without_the_file_is_a_defect(harness: SessionHarness) -> None:
    harness.script(faulty(kind="expired"), answers=[{"status": "success", "times": 1}, {"status": "media_in_progress"}])
    way = await harness.go()
    assert isinstance(way.error, ApiDefect)
    assert (type(way.outcome), way.reason) == (Retry, "api_answer_changed")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "media_url_refused"),
        ("http://169.254.169.254/latest/meta-data/", "media_host_refused"),
        ("https://recordings.example.net/x.wav", "media_host_refused"),
        ("x.wav", "media_url_refused"),
    ],
)
async def test_a_url_that_must_not_be_fetched_fails_the_session(harness: SessionHarness, url: str, reason: str) -> None:
    harness.script({**A, "url": url})
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Failed, reason)
    assert harness.simulator.report()["media"]["requests"] == 0


async def test_a_redirect_to_an_inner_address_is_not_followed(harness: SessionHarness) -> None:
    harness.script(faulty(kind="redirect", to="http://169.254.169.254/latest/meta-data/"))
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Failed, "media_host_refused")


# --- several files


async def test_one_bad_file_does_not_keep_the_others_out(harness: SessionHarness) -> None:
    bad = {**faulty(kind="page", body=PAGE, **ALWAYS), "file_name": "b.wav"}
    harness.script({**A}, bad, {**A, "file_name": "c.wav"})
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Retry, "recording_is_page")
    assert [file.file_name for file in way.attempt.stored] == ["a.wav", "c.wav"]
    assert list(harness.files()) == [f"{FOLDER}/a.wav", f"{FOLDER}/c.wav"]


async def test_what_an_earlier_attempt_stored_is_not_fetched_again(harness: SessionHarness) -> None:
    harness.script(A, {**faulty(kind="page", body=PAGE), "file_name": "b.wav"})
    first = await harness.go()
    second = await harness.go(epoch=2, failures=1, known=tuple(first.attempt.stored))
    assert second.outcome == Archived()
    assert [file.file_name for file in second.attempt.stored] == ["b.wav"]
    assert harness.simulator.report()["media"]["requests"] == 3
    assert [sha256(body) for body in harness.files().values()] == harness.simulator.sha256_of(SESSION)


LISTS = [
    (["a", "b"], ["b", "a"], []),
    (["a", "b"], ["c", "a", "b"], ["c"]),
    (["a", "b"], ["b"], []),
    (["a", "b"], ["b", "c"], ["c"]),
    (["a", "a"], ["a", "a", "a"], ["a"]),
    (["a", "b", "a"], ["a", "a", "b", "a"], ["a"]),
]


@pytest.mark.parametrize(("before", "after", "new"), LISTS)
async def test_of_a_later_list_only_what_is_new_is_fetched(
    harness: SessionHarness, before: list[str], after: list[str], new: list[str]
) -> None:
    harness.script(*({"file_name": f"{name}.wav", "audio": {"bytes": 500 + at * 2}} for at, name in enumerate(before)))
    first = await harness.go()
    stored = harness.files()
    harness.script(*({"file_name": f"{name}.wav", "audio": {"bytes": 600 + at * 2}} for at, name in enumerate(after)))
    second = await harness.go(epoch=2, known=tuple(first.attempt.stored))
    assert second.outcome == Archived()
    assert [file.source_name for file in second.attempt.stored] == [f"{name}.wav" for name in new]
    assert (second.attempt.listed, second.attempt.missing) == (len(after), set())
    assert stored.items() <= harness.files().items()
    assert len(harness.files()) == len(before) + len(new)


async def test_what_was_stored_beside_the_files_is_none_of_them(harness: SessionHarness) -> None:
    harness.script(A)
    first = await harness.go()
    beside = tuple(dataclasses.replace(file, ordinal=0, file_name="x", store_key="x") for file in first.attempt.stored)
    harness.script(A, {**A, "file_name": "b.wav"})
    assert len((await harness.go(epoch=2, known=beside)).attempt.stored) == 2


async def test_which_files_are_missing_is_told(harness: SessionHarness) -> None:
    harness.script(A, {**faulty(kind="page", body=PAGE, **ALWAYS), "file_name": "b.wav"}, {**A, "file_name": "c.wav"})
    way = await harness.go()
    assert (way.attempt.listed, way.attempt.missing, len(way.attempt.stored)) == (3, {(2, "b.wav")}, 2)


async def test_a_session_is_not_given_up_while_one_of_its_files_may_still_come(harness: SessionHarness) -> None:
    refused = {**A, "file_name": "b.wav", "url": "file:///etc/passwd"}
    harness.script(refused, faulty(kind="page", body=PAGE, **ALWAYS))
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Retry, "recording_is_page")
    assert len(way.events("file_failed")) == 2


HOSTILE = [
    "../../etc/passwd", "/etc/cron.d/x.wav", "..\\..\\x.wav", "call\0.wav", "call\r\n.wav", "n" * 396 + ".wav", "CON.wav",
    "a:b?.wav", ".part", "..", "", "call.wav", "CALL.wav", "call.wav", "a/call.wav", "\u202ecall.wav", "\ud800.wav",
]  # fmt: skip


async def test_hostile_and_equal_names_stay_inside_and_apart(harness: SessionHarness) -> None:
    harness.script(*({"file_name": name, "audio": {"bytes": 500 + at * 2}} for at, name in enumerate(HOSTILE)))
    way = await harness.go()
    assert way.outcome == Archived()
    files = harness.files()
    names = [key.rpartition("/")[2] for key in files]
    assert all(key.rpartition("/")[0] == FOLDER for key in files)
    assert len({name.casefold() for name in names}) == len(HOSTILE)
    assert [sha256(files[file.store_key]) for file in way.attempt.stored] == harness.simulator.sha256_of(SESSION)
    again = await harness.go(epoch=2)
    assert again.attempt.stored == way.attempt.stored


# --- meeting one's own work, and other people's


async def test_files_that_were_stored_but_never_recorded_are_met_again(harness: SessionHarness) -> None:
    """A worker that died between the store and the row."""
    harness.script(A, {**A, "file_name": "b.wav"})
    first = await harness.go()
    times = {path: path.stat().st_mtime_ns for path in harness.root.rglob("*.wav")}
    second = await harness.go(epoch=2)
    assert second.outcome == Archived()
    assert second.attempt.stored == first.attempt.stored
    assert [event["existed"] for event in first.events("stored")] == [False, False]
    assert [event["existed"] for event in second.events("stored")] == [True, True]
    assert {path: path.stat().st_mtime_ns for path in harness.root.rglob("*.wav")} == times


async def test_other_content_under_the_key_is_a_conflict_and_both_are_kept(harness: SessionHarness) -> None:
    harness.script(A, {**A, "file_name": "b.wav"})
    theirs = harness.root / FOLDER / "a.wav"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(wav(300))
    way = await harness.go(epoch=4)
    ours = harness.simulator.sha256_of(SESSION)[0]
    assert (type(way.outcome), way.reason) == (Failed, "conflict")
    quarantined = f"quarantine/{FOLDER}/4-{SIZE}-a.wav"
    assert (
        way.facts.items()
        >= {
            "store_key": f"{FOLDER}/a.wav",
            "stored_sha256": sha256(wav(300)),
            "stored_bytes": 300,
            "sha256": ours,
            "bytes": SIZE,
            "quarantined": quarantined,
            "whole": True,
        }.items()
    )
    files = harness.files()
    assert files[f"{FOLDER}/a.wav"] == wav(300)
    assert sha256(files[quarantined]) == ours
    assert [file.file_name for file in way.attempt.stored] == ["b.wav"]


async def test_a_lost_lease_prevents_every_key_also_in_quarantine(harness: SessionHarness) -> None:
    def guard() -> None:
        raise LeaseLost("gone")

    harness.script(A)
    way = await harness.go(guard=guard)
    assert isinstance(way.error, LeaseLost)
    assert harness.files() == {}
    harness.script(faulty(kind="page", body=PAGE, **ALWAYS))
    way = await harness.go(guard=guard, failures=LAST)
    assert isinstance(way.error, LeaseLost)
    assert harness.files() == {}


# --- the API's own troubles, seen from a session


@pytest.mark.parametrize(
    ("answers", "reason", "calls"),
    [
        ([{"raw": "not JSON"}], "api_answer_invalid", 1),
        ([{"raw": "[]"}], "api_answer_invalid", 1),
        ([{"http_status": 503}], "api_http_503", 3),
        ([{"fault": "reset"}], "api_unreachable", 3),
        ([{"fault": "rate_limited", "retry_after": 7}], "rate_limited", 1),
        ([{"fault": "unauthorized"}], "credentials_rejected", 2),
    ],
    ids=["not JSON", "a list", "503", "reset", "429", "401"],
)
async def test_each_trouble_of_the_api_has_its_reason_and_its_number_of_calls(
    harness: SessionHarness, answers: list[dict[str, Any]], reason: str, calls: int
) -> None:
    harness.script(A, answers=answers)
    way = await harness.go()
    assert way.reason == reason
    assert way.attempt.calls == calls == len(way.events("asked"))
    assert harness.files() == {}


@pytest.mark.parametrize("files", [None, []], ids=["missing", "empty"])
async def test_a_success_without_recordings_is_a_defect(harness: SessionHarness, files: list[Any] | None) -> None:
    harness.simulator.script({"session_id": SESSION, "recordings": files})
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Retry, "api_answer_invalid" if files is None else "api_empty_success")


async def test_more_files_than_allowed_fail_the_session_before_any_is_fetched(harness: SessionHarness) -> None:
    harness.script(*({"file_name": f"{number}.wav"} for number in range(201)))
    way = await harness.go()
    assert (type(way.outcome), way.reason) == (Failed, "too_many_files")
    assert harness.simulator.report()["media"]["requests"] == 0


async def test_nothing_that_is_noted_holds_a_signature(harness: SessionHarness) -> None:
    harness.script(A, {**faulty(kind="page", body=PAGE, **ALWAYS), "file_name": "b.wav"})
    way = await harness.go(failures=LAST)
    text = repr(way.attempt.events) + repr(way.outcome)
    assert "a.wav" in text
    assert "e=1" not in text
    assert "s=" not in text


async def test_a_signed_url_as_a_files_name_is_kept_without_its_signature_and_known_again(harness: SessionHarness) -> None:
    def named(signature: str) -> dict[str, Any]:
        return {"file_name": f"https://media.example/get/f-1.wav?e=1&s={signature}", "audio": {"bytes": 500}}

    harness.script(named("FIRST-SIGNATURE"), {"file_name": "b\0.wav?sig=THIRD-SIGNATURE", "audio": {"bytes": 502}})
    first = await harness.go()
    assert first.outcome == Archived()
    assert [file.source_name for file in first.attempt.stored] == ["https://media.example/get/f-1.wav", "b\ufffd.wav"]
    assert [file.file_name for file in first.attempt.stored] == ["f-1.wav", "b\ufffd.wav"]
    harness.script(named("SECOND-SIGNATURE"), {"file_name": "b\0.wav?sig=FOURTH-SIGNATURE", "audio": {"bytes": 502}})
    second = await harness.go(epoch=2, known=tuple(first.attempt.stored))
    assert (second.outcome, second.attempt.stored) == (Archived(), [])
    told = repr((first.attempt.stored, first.attempt.events, second.attempt.events, list(harness.files())))
    assert "SIGNATURE" not in told
