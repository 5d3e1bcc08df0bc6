"""What becomes of an outbox row, whatever it holds, and what is read as an entry."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import archiver.evidence
from archiver.config.path_template import PathTemplate
from archiver.evidence.canonical import canonical, utc_text
from archiver.evidence.entries import (
    ARCHIVE_EVENTS,
    EVENTS,
    MAX_LINE,
    RESERVED,
    SESSION_EVENTS,
    Entry,
    Made,
    made_of,
    parse,
    session_sha256,
)
from archiver.evidence.objects import record_fallback_key
from archiver.evidence.sidecar import MAX_RECORD, RECORD_EVENTS, LaterSchema, Record, read_record
from archiver.postgres.json_codec import from_json
from archiver.queue.ledger import HistoryRow, OutboxRow
from tests.evidence.test_canonical import ANY_JSON, ANY_TEXT

SCHEMA = Draft202012Validator(json.loads((Path(archiver.evidence.__file__).parent / "session-v1.schema.json").read_text()))
TEMPLATE = PathTemplate("bot={bot}/{date}/{session_id}/{kind}/{file_name}")
SALT = bytes(range(16))
AT = datetime(2026, 3, 30, 10, 11, 12, 345678, UTC)
HASH = "ab" * 32
PLANTED = "Plänted-secret"

FILE: dict[str, Any] = {
    "ordinal": 1, "source_name": f"{PLANTED}.wav", "file_name": f"{PLANTED}.wav", "store_key": f"x/{PLANTED}.wav",
    "bytes": 8044,
    "sha256": HASH, "media_type": "audio/wav", "flags": [PLANTED], "seconds": 1.5, "sample_rate": 8000, "channels": 2,
    "archived_at": "2026-03-30T10:11:12.3+00:00",
}  # fmt: skip
SESSION: dict[str, Any] = {
    "bot": "support-us", "session_id": "65e7:1", "kind": "recording", "state": "archived", "reason": PLANTED,
    "detail": {PLANTED: PLANTED}, "user_id": PLANTED, "started_at": "2026-03-30T10:00:00+00:00", "ended_at": "infinity",
    "archive_date": "2026-03-30T23:30:00-02:00", "enqueued_at": "2026-03-30T10:00:00+00:00",
    "finished_at": "2026-03-30T10:11:12+00:00",
    "metadata": {PLANTED: [PLANTED, 1.25]}, "call": {"agent": PLANTED}, "priority": "high", "failures": 1,
    "checks": 2, "crashes": 3,
    "calls": 4, "rechecks": 5, "epoch": 6, "listed_at": None, "accepted_at": "2026-03-30T10:11:12+00:00",
    "accepted_by": PLANTED,
    "accept_reason": PLANTED,
}  # fmt: skip
BODY: dict[str, Any] = {"session": SESSION, "files": [FILE], "by": f"ana@{PLANTED}", "history": 7}
HISTORY = (
    HistoryRow(AT, "asked", "worker 7", {"http_status": 200, "status": "success", "answer": f'{{"who":"{PLANTED}"}}'}),
    HistoryRow(AT, "stored", "worker 7", {"file_name": PLANTED}),
    HistoryRow(AT, "retried", PLANTED, {"was": "failed", "reason": PLANTED}),
)
KEY = {
    "origin": "archive.example.com/calls", "public_key": "ssh-ed25519 " + "A" * 68, "fingerprint": "SHA256:" + "B" * 43,
    "format_sha256": HASH, "schema_sha256": HASH, "signers": 1, "signers_sha256": HASH, "previous": None,
}  # fmt: skip
ACCOUNT = {
    "bot": None, "from": "2026-03-30T00:00:00+02:00", "to": "2026-03-31T00:00:00+02:00",
    "counts": {"archived": 12, "failed": 0},
    "complete": True, "account": 3, "by": "worker 1",
}  # fmt: skip
FIXITY = {"files": 5, "equal": 4, "bytes": 2**40, "wrong": 1, "bot": "support-us", "by": "ana"}
NOTED = {"object_sha256": HASH, "bytes": 0}
EXPORTED = {"sessions": 2, "files": 3, "bytes": 4096, "manifest_sha256": "c" * 64}
REBUILT = {"size": 118, "sessions": 7, "files": 9, "unnamed": 0, "lost": 1, "given_up": 130}
OF_THE_ARCHIVE: dict[str, dict[str, Any]] = {
    "key": KEY, "account": ACCOUNT, "fixity": FIXITY, "noted": NOTED, "exported": EXPORTED, "rebuilt": REBUILT,
}  # fmt: skip


def sealed(
    body: object = BODY, event: str = "settled", *, queue_id: int | None = 5, earlier: int = 0,
    history: Sequence[HistoryRow] = HISTORY, path: PathTemplate = TEMPLATE, at: datetime = AT,
) -> Made:  # fmt: skip
    row = OutboxRow(1, UUID(int=7), at, event, queue_id, body)
    return made_of(
        row,
        path=path,
        earlier_editions=earlier,
        asks=history,
        is_bot_name=lambda name: name != "stranger",
        version="0.2.0",
        salt=SALT,
    )


def with_session(**fields: Any) -> dict[str, Any]:
    return {**BODY, "session": {**SESSION, **fields}}


def with_files(*files: dict[str, Any]) -> dict[str, Any]:
    return {**BODY, "files": [{**FILE, **file} for file in files]}


def checked(made: Made) -> tuple[Entry, Record | None]:
    """What was made, after everything that holds of whatever is made."""
    assert made.line.isascii()
    assert len(made.line) <= MAX_LINE
    entry = parse(made.line)
    assert entry.uid == UUID(int=7)
    assert (made.record is None) == (entry.record is None) == (made.edition is None)
    if made.record is None:
        return entry, None
    assert (entry.record, entry.record_bytes) == (hashlib.sha256(made.record).hexdigest(), len(made.record))
    assert entry.record_key == made.record_key
    SCHEMA.validate(json.loads(made.record))
    record = read_record(made.record)
    assert (record.salt, record.edition) == (SALT.hex(), made.edition)
    return entry, record


# --- whatever the row holds


@given(ANY_JSON, st.sampled_from(sorted(EVENTS | RESERVED)) | ANY_TEXT, st.none() | st.just(5))
@settings(max_examples=80, deadline=None)
def test_of_any_body_something_is_made(body: Any, event: str, queue_id: int | None) -> None:
    entry, _ = checked(sealed(body, event, queue_id=queue_id))
    assert entry.event == "unreadable"
    assert entry.body == ({"event_given": event} if event in EVENTS | RESERVED else {})


TIMES = st.sampled_from([
    "infinity", "-infinity", "0044-03-15T00:00:00+00:00 BC", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00",
    "294276-12-31T23:59:59.999999+00:00", "1890-01-01T00:00:00+00:53:28", None, "yesterday", 7,
])  # fmt: skip
HOSTILE = ANY_JSON | TIMES | st.sampled_from([
    "archived", "recording", "stranger", "support-us", "65e7\n", "../..", "evidence", "", "a" * 300, 2**31, 2**63,
    -1, 0, True, 1.0,
    from_json("[" * 3000 + "]" * 3000), from_json("9" * 5000), [], [[]], HASH, HASH.upper(), "x/\0", "SESSION.JSON",
])  # fmt: skip


@given(
    st.sampled_from(sorted(SESSION_EVENTS)),
    st.dictionaries(st.sampled_from(sorted(SESSION)), HOSTILE, max_size=3),
    st.dictionaries(st.sampled_from(sorted(FILE)), HOSTILE, max_size=2),
    st.lists(st.tuples(st.sampled_from(["asked", "retried", "raised", "released"]), ANY_JSON), max_size=3),
    st.dictionaries(st.sampled_from(["by", "history", "files", "session"]), HOSTILE, max_size=1),
)
@example("settled", {"metadata": from_json('{"a":' * 3000 + "1" + "}" * 3000), "detail": from_json("9" * 5000)}, {}, [], {})
@settings(max_examples=120, deadline=None)
def test_of_a_body_that_is_wrong_somewhere_something_is_made_and_nothing_personal(
    event: str, session: dict[str, Any], file: dict[str, Any], history: list[tuple[str, Any]], others: dict[str, Any]
) -> None:
    body = {"session": {**SESSION, **session}, "files": [{**FILE, **file}], "by": f"ana@{PLANTED}", "history": 7, **others}
    rows = [HistoryRow(AT, name, PLANTED, data) for name, data in history]
    made = sealed(body, event, history=rows)
    checked(made)
    assert b"secret" not in made.line
    assert b"ana@" not in made.line


@given(ANY_JSON, ANY_JSON, ANY_JSON, ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, max_size=3), TIMES, st.floats(0, 1e9))
@settings(max_examples=60, deadline=None)
def test_a_record_gives_back_what_was_put_in(
    metadata: Any, call: Any, data: Any, user: str, name: str, flags: list[str], time: Any, seconds: float
) -> None:
    ended_at = time if isinstance(time, str) and time != "yesterday" else None
    body = with_session(metadata=metadata, call=call, user_id=user, ended_at=ended_at)
    body["files"] = [{**FILE, "file_name": name, "flags": flags, "seconds": seconds}, {**FILE, "ordinal": 0, "seconds": None}]
    entry, record = checked(sealed(body, history=[HistoryRow(AT, "raised", user, {"priority": 1})]))
    assert record is not None

    def back(value: Any) -> Any:
        return json.loads(canonical(value))

    assert (record.metadata, record.call, record.user_id) == (back(metadata), back(call), back(user))
    assert record.ended_at == (None if ended_at is None else utc_text(ended_at))
    document, file = record.files
    assert (file.file_name, list(file.flags), file.seconds, file.sample_rate, file.channels) == (
        back(name), back(flags), seconds, 8000, 2)  # fmt: skip
    assert (document.ordinal, document.sha256) == (0, HASH)
    assert entry.files == ((1, HASH),)
    assert record.acts[0].by == back(user)


# --- what it is made of


def test_a_session_has_its_entry_and_its_record() -> None:
    made = sealed()
    entry, record = checked(made)
    assert (entry.event, entry.actor, entry.bot, entry.session, entry.kind) == (
        "settled",
        "person",
        "support-us",
        "65e7:1",
        "recording",
    )
    assert (entry.state, entry.files, entry.at) == ("archived", ((1, HASH),), AT.replace(microsecond=345000))
    assert entry.record_key == "bot=support-us/2026-03-31/65e7~1/recording/session.json"
    assert (made.edition, made.salt) == (1, SALT)
    assert record is not None
    assert (record.archive_date, record.ended_at, record.event) == ("2026-03-31T01:30:00.000Z", "infinity", "settled")
    assert record.accepted is not None
    assert (record.accepted.by, record.accepted.because) == (PLANTED, PLANTED)
    assert (record.attempts.failures, record.attempts.epoch, record.priority, record.version) == (1, 6, "high", "0.2.0")
    assert [(ask.http_status, ask.status, ask.answer) for ask in record.asks] == [(200, "success", f'{{"who":"{PLANTED}"}}')]
    assert [(act.event, act.by, act.data) for act in record.acts] == [("retried", PLANTED, {"was": "failed", "reason": PLANTED})]
    assert json.loads(made.line) == {
        "v": 1, "uid": str(UUID(int=7)), "at": "2026-03-30T10:11:12.345Z", "event": "settled", "actor": "person",
        "bot": "support-us",
        "session": "65e7:1", "kind": "recording", "state": "archived", "files": [[1, HASH]], "record": entry.record,
        "record_key": entry.record_key, "record_bytes": entry.record_bytes,
    }  # fmt: skip


@pytest.mark.parametrize("event", sorted(SESSION_EVENTS))
def test_every_event_but_a_reopening_has_a_record(event: str) -> None:
    made = sealed(event=event)
    entry, record = checked(made)
    assert entry.event == event
    assert (record is None) == (made.salt is None) == (event not in RECORD_EVENTS)
    assert (entry.bot, entry.session_sha256) == ("support-us", None)


@pytest.mark.parametrize(
    ("by", "actor"), [("worker 7", "worker"), ("worker", "worker"), ("workers", "person"), ("ana", "person"), (None, "person")]
)
def test_who_did_it_is_a_worker_or_a_person(by: str | None, actor: str) -> None:
    assert checked(sealed({**BODY, "by": by}))[0].actor == actor


@pytest.mark.parametrize(
    "fields",
    [
        {"bot": "stranger"}, {"bot": "a b"}, {"bot": ""}, {"session_id": "+49 170 1234567"}, {"session_id": "65e7\n"},
        {"session_id": "a" * 201}, {"kind": "telephone"}, {"session_id": "../x"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("event", ["settled", "reopened"])
def test_a_session_that_may_be_called_anything_is_called_nothing(fields: dict[str, str], event: str) -> None:
    made = sealed(with_session(**fields), event)
    entry, record = checked(made)
    named = {**SESSION, **fields}
    assert (record, made.record_key, entry.bot, entry.session, entry.kind) == (None, None, None, None, None)
    assert entry.session_sha256 == session_sha256(SALT, named["bot"], named["session_id"], named["kind"])
    assert made.salt == SALT
    assert entry.files == ((1, HASH),)


@pytest.mark.parametrize(
    ("names", "earlier", "edition", "name"),
    [
        ([], 0, 1, "session.json"), ([], 4, 5, "session.5.json"), (["Session.JSON"], 0, 2, "session.2.json"),
        (["session.json", "ｓession.2.json", "session.4.json"], 0, 3, "session.3.json"), (["session.json"], 1, 2,
        "session.2.json"),
    ],
)  # fmt: skip
def test_an_edition_takes_the_next_name_that_no_recording_has(names: list[str], earlier: int, edition: int, name: str) -> None:
    made = sealed(with_files(*({"file_name": each, "ordinal": n} for n, each in enumerate(names))), earlier=earlier)
    assert made.edition == edition
    assert (made.record_key or "").endswith(f"/{name}")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("{bot}/{kind}/" + "long/" * 250 + "{session_id}/{file_name}", {}),
        ("{bot}/{kind}/{session_id}/{file_name}", {"archive_date": "infinity"}),
        ("{bot}/{kind}/{session_id}/{file_name}", {"archive_date": "0044-03-15T00:00:00+00:00 BC"}),
        ("{bot}/{kind}/{session_id}/{file_name}", {"archive_date": None}),
    ],
)
def test_a_record_without_a_place_beside_its_recordings_has_one(path: str, fields: dict[str, Any]) -> None:
    made = sealed(with_session(**fields), path=PathTemplate(path))
    entry, _ = checked(made)
    assert made.record_key == record_fallback_key(entry.record or "")


def test_files_are_places_and_hashes_of_audio_each_once_and_in_order() -> None:
    made = sealed(with_files({"ordinal": 2}, {"ordinal": 0, "sha256": "0" * 64}, {"store_key": "other"}, {"sha256": "0" * 64}))
    entry, record = checked(made)
    assert entry.files == ((1, "0" * 64), (1, HASH), (2, HASH))
    assert record is not None
    assert [file.ordinal for file in record.files] == [0, 1, 1, 2]


def test_more_files_than_a_line_takes_are_counted() -> None:
    few, many = (sealed(with_files(*({"ordinal": n} for n in range(1, number + 1)))) for number in (800, 2000))
    assert len(checked(few)[0].files or ()) == 800
    entry, record = checked(many)
    assert (entry.files, entry.files_count) == (None, 2000)
    assert record is not None
    assert len(record.files) == 2000


@pytest.mark.parametrize("event", sorted(ARCHIVE_EVENTS))
def test_what_the_archive_did_is_said_as_it_is(event: str) -> None:
    body = OF_THE_ARCHIVE[event]
    entry, _ = checked(sealed({**body, "left": PLANTED}, event, queue_id=None))
    expected = {name: value for name, value in body.items() if name != "by"}
    if event == "account":
        expected |= {"from": "2026-03-29T22:00:00.000Z", "to": "2026-03-30T22:00:00.000Z"}
    assert (entry.event, entry.body) == (event, expected)
    assert entry.actor == ("person" if event == "fixity" else "worker")


@given(st.sampled_from(sorted(ARCHIVE_EVENTS)), st.integers(0, 7), HOSTILE)
@settings(max_examples=80, deadline=None)
def test_what_the_archive_did_is_said_or_unreadable(event: str, which: int, value: Any) -> None:
    body = OF_THE_ARCHIVE[event]
    field = sorted(body)[which % len(body)]
    entry, _ = checked(sealed({**body, field: value}, event, queue_id=None))
    assert entry.event in (event, "unreadable")


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("account", {"counts": {PLANTED: 1}}), ("account", {"counts": {"archived": -1}}), ("account", {"complete": 1}),
        ("account", {"counts": {f"c{n}": 1 for n in range(101)}}), ("account", {"bot": "stranger"}), ("fixity",
        {"bot": PLANTED}),
        ("fixity", {"files": True}), ("noted", {"bytes": 2**63}), ("exported", {"manifest_sha256": "c"}),
        ("exported", {"files": -1}), ("rebuilt", {"lost": None}),
        ("key", {"origin": "Upper"}), ("key", {"previous": PLANTED}),
    ],
)  # fmt: skip
def test_what_the_archive_cannot_have_done_is_unreadable(event: str, fields: dict[str, Any]) -> None:
    assert checked(sealed({**OF_THE_ARCHIVE[event], **fields}, event, queue_id=None))[0].body == {"event_given": event}


# --- what must not get in, and what is too large


SIGNED = "https://ana:pw@h.kore.ai:8443/a/b.wav?X-Amz-Signature=0123abcd&Expires=1#x"
CUT = "https://h.kore.ai:8443/a/b.wav"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SIGNED, CUT), (f"see <{SIGNED}>, then", f"see <{CUT}>, then"), (f'{{"u":"{SIGNED}","v":1}}', f'{{"u":"{CUT}","v":1}}'),
        (json.dumps(json.dumps({"u": SIGNED})), json.dumps(json.dumps({"u": CUT}))), (f"{SIGNED} {SIGNED}", f"{CUT} {CUT}"),
        ("http:\\/\\/h\\/p?sig=abcdef", "http:\\/\\/h\\/p"), ("why? a:b#c", "why? a:b#c"),
        ("x://?" + "\\" * 30_000 + "a", None),
        ("://" * 10_000, None), ("password=hunter22", "password=[redacted]"),
    ],
)  # fmt: skip
def test_nothing_signed_gets_into_a_record(text: str, expected: str | None) -> None:
    history = [
        HistoryRow(AT, "asked", None, {"http_status": "200", "status": 7, "answer": text}),
        HistoryRow(AT, "cancelled", text, {"reason": [text], text: 1}),
    ]
    _, record = checked(sealed(with_session(detail={"message": [text], text: 1}, accept_reason=text), history=history))
    assert record is not None
    if expected is not None:
        assert record.asks[0].answer == expected
        assert record.detail == {"message": [expected], expected: 1}
        assert record.acts[0].data == {"reason": [expected], expected: 1}
        assert record.accepted is not None
        assert record.accepted.because == expected
    assert (record.asks[0].http_status, record.asks[0].status) == (None, "7")


def test_of_many_asks_the_first_and_the_last_are_kept() -> None:
    rows = [HistoryRow(AT, event, "ana", {"answer": str(n)}) for n in range(120) for event in ("asked", "retried")]
    _, record = checked(sealed(history=rows))
    assert record is not None
    assert [ask.answer for ask in record.asks] == [str(n) for n in (*range(50), *range(70, 120))]
    assert (record.asks_left_out, len(record.acts), record.acts_left_out, record.left_out) == (20, 100, 20, ())


@pytest.mark.parametrize(
    ("size", "history", "left_out"),
    [
        ({"metadata": 2}, 80, ("asks",)), ({"metadata": 3, "detail": 1}, 80, ("asks",)),
        ({"metadata": 5}, 1, ("asks", "metadata")), ({"call": 3, "metadata": 3, "detail": 0}, 3, ("asks", "metadata")),
    ],
)  # fmt: skip
def test_a_record_is_never_too_large(size: dict[str, int], history: int, left_out: tuple[str, ...]) -> None:
    large = {name: ["x" * 1000] * (1000 * megabytes) for name, megabytes in size.items()}
    rows = [HistoryRow(AT, "asked", None, {"answer": "y" * 30_000}) for _ in range(history)]
    made = sealed(with_session(**large), history=rows)
    _, record = checked(made)
    assert record is not None
    assert len(made.record or b"") <= MAX_RECORD
    assert record.left_out == left_out
    assert len(record.asks) + record.asks_left_out == history
    if "metadata" in left_out:
        assert record.metadata == {"left_out": len(canonical(large["metadata"]))}


def test_a_session_of_which_too_much_is_known_is_recorded_without_its_record() -> None:
    made = sealed(with_session(user_id="x" * 17_000_000))
    entry, record = checked(made)
    assert record is None
    assert (entry.state, entry.files) == ("archived", ((1, HASH),))
    assert entry.session_sha256 is not None


# --- reading


def _lines() -> list[tuple[str, bytes]]:
    good = json.loads(sealed().line)
    reopened = json.loads(sealed(event="reopened").line)

    def changed(**fields: Any) -> bytes:
        return canonical({name: value for name, value in {**good, **fields}.items() if value != "gone"}, ascii_only=True)

    line = sealed().line
    return [
        ("white space", line.replace(b",", b", ", 1)), ("newline", line + b"\n"), ("nothing", b""), ("a list",
        b"[]"), ("a number", b"1"),
        ("other order", b'{"v":1,' + line[1:-7] + b"}"), ("a key twice", line.replace(b'"v":1', b'"v":1,"v":1')),
        ("v 2", changed(v=2)), ("v true", changed(v=True)), ("v 1.0", changed(v=1.0)), ("no v", changed(v="gone")),
        ("UTF-8", line.replace(b"bot=support-us", "bot=é".encode())), ("escaped", line.replace(b"settled", b"\\u0073ettled")),
        ("unknown event", changed(event="forged")), ("a time without milliseconds", changed(at="2026-03-30T10:11:12Z")),
        ("upper uid", changed(uid=str(UUID(int=0xABC)).upper())), ("actor", changed(actor="unknown")),
        ("one more", changed(x=1)),
        ("no record", changed(record="gone")), ("no key", changed(record_key="gone")), ("no bytes",
        changed(record_bytes="gone")),
        ("key outside", changed(record_key="../x")), ("long key", changed(record_key="k" * 1025)), ("bytes",
        changed(record_bytes=-1)),
        ("kind", changed(kind="fax")), ("state", changed(state="lost")), ("bot", changed(bot="a b")), ("ID",
        changed(session="a\n")),
        ("files and count", changed(files_count=1)), ("neither", changed(files="gone")), ("files", changed(files=[[0, HASH]])),
        ("file twice", changed(files=[[1, HASH], [1, HASH]])), ("unsorted", changed(files=[[2, HASH], [1, HASH]])),
        ("upper hash", changed(files=[[1, HASH.upper()]])), ("place", changed(files=[[1.0, HASH]])), ("both",
        changed(session_sha256=HASH)),
        ("reopened with a record", canonical({**reopened, "record": HASH, "record_key": "k", "record_bytes": 1},
        ascii_only=True)),
        ("NaN", line.replace(b'"v":1', b'"v":NaN')), ("deep", b"[" * 50_000), ("long", changed(event="hold", x="x" * MAX_LINE)),
        ("half", changed(event="hold", x="HALF").replace(b"HALF", b"\\ud800")), ("digits", b'{"v":' + b"1" * 9000 + b"}"),
    ]  # fmt: skip


@pytest.mark.parametrize(("what", "line"), _lines(), ids=[what for what, _ in _lines()])
def test_what_is_no_entry_is_not_read_as_one(what: str, line: bytes) -> None:
    with pytest.raises(ValueError):
        parse(line)


@pytest.mark.parametrize("event", sorted(RESERVED))
def test_an_entry_of_a_later_version_is_read_and_what_it_says_is_not(event: str) -> None:
    good = {"v": 1, "uid": str(UUID(int=7)), "at": "2026-03-30T10:11:12.345Z", "event": event, "actor": "person"}
    said = {"anything": [1, {"x": None}], "session": 5}
    entry = parse(canonical({**good, **said}, ascii_only=True))
    assert (entry.event, entry.body, entry.session) == (event, said, None)


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_makes_another_entry_or_none(at: int, byte: int) -> None:
    line = bytearray(sealed().line)
    line[at % len(line)] = byte
    try:
        found = parse(bytes(line))
    except ValueError:
        return
    assert (found == parse(sealed().line)) == (bytes(line) == sealed().line)


def _damaged_records() -> list[bytes]:
    document = json.loads(sealed().record or b"")
    damaged = [b"", b"[]", b"\xff", b"[" * 100_000, canonical({**document, "x": 1}), canonical(document) + b"\n"]
    damaged += [canonical(document)[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}" for depth in (250, 500, 900, 990)]
    damaged += [canonical({**document, "metadata": 7}).replace(b'"metadata":7', b'"metadata":' + b"[" * 900 + b"]" * 900)]
    damaged += [canonical({key: value for key, value in document.items() if key != gone}) for gone in document]
    for name, value in {
        "salt": "x", "edition": 0, "state": "lost", "started_at": "2026-03-30T10:00:00+00:00",
        "finished_at": "now", "files": {},
        "asks": [{}], "acts": [{"at": "infinity", "event": "forged", "by": None, "data": 1}], "attempts": None,
        "schema": 0, "by": 1,
        "accepted": {}, "event": "reopened", "left_out": [1], "asks_left_out": -1,
    }.items():  # fmt: skip
        damaged.append(canonical({**document, name: value}))
    swapped = copy.deepcopy(document)
    swapped["files"] = [{**FILE, "archived_at": None, "ordinal": 2}, {**FILE, "archived_at": None}]
    return [*damaged, canonical(swapped)]


@pytest.mark.parametrize("content", _damaged_records(), ids=lambda content: hashlib.sha256(content).hexdigest()[:6])
def test_what_is_no_record_is_not_read_as_one(content: bytes) -> None:
    with pytest.raises(ValueError):
        read_record(content)


def test_a_record_of_a_later_schema_is_told_apart() -> None:
    with pytest.raises(LaterSchema) as caught:
        read_record(canonical({**json.loads(sealed().record or b""), "schema": 2, "more": 1}))
    assert caught.value.schema == 2
    with pytest.raises(ValueError, match="large"):
        read_record(b" " * (2**24 + 1))
