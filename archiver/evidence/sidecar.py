"""The record of a session: a document beside its recordings that says all that is known of it. Its form is described in
`session-v1.schema.json`, which lies beside this module and in every store.

What people wrote and what the platform answered goes in without anything that is signed or secret: of URLs scheme, host, path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from archiver.evidence.canonical import canonical, utc
from archiver.evidence.fields import MAX_ORDINAL, Fields
from archiver.observe.redact import redact_value
from archiver.queue.ledger import HistoryRow

SCHEMA = 1
MAX_RECORD = 4 * 2**20
"""Bytes of a record as it is made; only the list of its files may take it beyond."""
MAX_READ = 16 * 2**20
"""Bytes of a record as it is read."""
KEPT_AT_EACH_END = 50
"""So many of the first and of the last asks, and acts, are kept."""

STATES = frozenset({"pending", "claimed", "archived", "unavailable", "failed", "cancelled"})
ACTS = frozenset({"retried", "cancelled", "accepted", "unaccepted", "repaired", "raised"})
"""What people do to a session, as its history calls it."""

RECORD_EVENTS = frozenset({"settled", "described", "adopted", "damaged", "accepted", "unaccepted", "repaired"})
"""The events that make an edition."""

_SMALL = 1024
"""Bytes that are not worth leaving out."""

_URL_IN_TEXT = re.compile(
    r"(?P<scheme>:(?:\\{0,4}/){2})(?:[^\s\"'<>/?#]*@)?(?P<path>[^\s\"'<>?#]*)"
    r"(?:[?#][^\s\"'<>]*?(?=\\{0,3}(?:[\s\"'<>]|\Z)))?"
)
_SALT = re.compile("[0-9a-f]{32}")


class LaterSchema(ValueError):
    """A record of a later schema than this program knows: `schema`."""

    def __init__(self, schema: int) -> None:
        super().__init__(f"a record of schema {schema}; this program knows up to {SCHEMA}")
        self.schema = schema


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """One file. Place 0 is no audio: the document of the transcriptions."""

    ordinal: int
    source_name: str | None
    file_name: str
    store_key: str
    bytes: int
    sha256: str
    media_type: str | None
    flags: tuple[str, ...]
    seconds: float | None
    sample_rate: int | None
    channels: int | None
    archived_at: str | None


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the platform, and what it answered."""

    at: str
    http_status: int | None
    status: str | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did to the session."""

    at: str
    event: str
    by: str | None
    data: Any


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Somebody's word that the session stays as it is."""

    at: str
    by: str | None
    because: str | None


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often what was tried."""

    failures: int | None
    checks: int | None
    crashes: int | None
    calls: int | None
    rechecks: int | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """One edition. Times are texts: UTC, milliseconds, Z, or as Postgres writes what is beyond the years 1 to 9999."""

    salt: str
    edition: int
    bot: str
    session_id: str
    kind: str
    state: str
    reason: str | None
    detail: Any
    user_id: str | None
    priority: str | None
    started_at: str | None
    ended_at: str | None
    listed_at: str | None
    archive_date: str | None
    enqueued_at: str | None
    finished_at: str | None
    metadata: Any
    call: Any
    accepted: Acceptance | None
    event: str
    by: str | None
    files: tuple[RecordedFile, ...]
    asks: tuple[Ask, ...]
    asks_left_out: int
    attempts: Attempts
    acts: tuple[Act, ...]
    acts_left_out: int
    version: str
    left_out: tuple[str, ...]
    """What was too large, of asks, acts, detail, metadata, call and source_names."""

    schema: int = SCHEMA


def files_of(session: Fields) -> tuple[RecordedFile, ...]:
    """The files of an outbox row or a record, by place. Raises ValueError."""
    found = [_file_of(file) for file in session.objects("files")]
    return tuple(sorted(found, key=lambda file: (file.ordinal, file.sha256, file.store_key)))


def _file_of(file: Fields) -> RecordedFile:
    return RecordedFile(
        ordinal=file.integer("ordinal", most=MAX_ORDINAL),
        source_name=file.text_or_none("source_name"),
        file_name=file.text("file_name"),
        store_key=file.text("store_key"),
        bytes=file.integer("bytes"),
        sha256=file.sha256("sha256"),
        media_type=file.text_or_none("media_type"),
        flags=file.texts("flags"),
        seconds=file.number_or_none("seconds"),
        sample_rate=file.integer_or_none("sample_rate"),
        channels=file.integer_or_none("channels"),
        archived_at=file.time_or_none("archived_at"),
    )


def described_in(given: Fields) -> dict[str, Any]:
    """What an outbox row and a record say of a session alike. Raises ValueError."""
    return {
        **{name: given.text(name) for name in ("bot", "session_id", "kind")},
        "state": given.word("state", STATES),
        **{name: given.text_or_none(name) for name in ("reason", "user_id", "priority")},
        **{
            name: given.time_or_none(name)
            for name in ("started_at", "ended_at", "listed_at", "archive_date", "enqueued_at", "finished_at")
        },
        **{name: given.all.get(name) for name in ("detail", "metadata", "call")},
    }


def _attempts_of(given: Fields) -> Attempts:
    return Attempts(**{name: given.integer_or_none(name) for name in _NAMES[Attempts]})


def without_secrets(value: Any) -> Any:
    """JSON without what `redact` hides, and with URLs cut to scheme, host and path."""
    # Before, so that of escaped text no backslash is taken along; behind, for what only then shows.
    return _cut(redact_value(_cut(value)))


def _cut(value: Any) -> Any:
    match value:
        case str():
            return _URL_IN_TEXT.sub(r"\g<scheme>\g<path>", value) if ":" in value else value
        case dict():
            return {_cut(key): _cut(item) for key, item in value.items()}
        case list():
            return [_cut(item) for item in value]
        case _:
            return value


def _text_of(value: Any) -> str | None:
    """What should be a text, as one."""
    return value if value is None or isinstance(value, str) else canonical(value).decode()


def _ask_of(row: HistoryRow) -> dict[str, Any]:
    data = row.data if isinstance(row.data, dict) else {"answer": row.data}
    http_status = data.get("http_status")
    return {
        "at": utc(row.at),
        "http_status": http_status if type(http_status) is int and 0 <= http_status <= 999 else None,
        "status": without_secrets(_text_of(data.get("status"))),
        "answer": without_secrets(_text_of(data.get("answer"))),
    }


def _act_of(row: HistoryRow) -> dict[str, Any]:
    return {"at": utc(row.at), "event": row.event, "by": row.actor, "data": without_secrets(row.data)}


@dataclass(frozen=True, slots=True)
class Making:
    """What makes this edition."""

    event: str
    by: str | None
    edition: int
    salt: bytes
    version: str


def record_of(session: Fields, files: Sequence[RecordedFile], history: Sequence[HistoryRow], making: Making) -> bytes | None:
    """The record of an outbox row's session; None if it is too large whatever is left out. Raises ValueError."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "salt": making.salt.hex(),
        "edition": making.edition,
        **described_in(session),
        "accepted": accepted_in(session),
        "event": making.event,
        "by": making.by,
        "files": [_object_of(file) for file in files],
        "attempts": _object_of(_attempts_of(session)),
        "version": making.version,
        "left_out": [],
    }
    document["detail"] = without_secrets(document["detail"])
    content = b""
    for _ in _smaller_and_smaller(document, history):
        content = canonical(document)
        if len(content) <= MAX_RECORD:
            break
    return content if len(content) <= MAX_READ else None


def _smaller_and_smaller(document: dict[str, Any], history: Sequence[HistoryRow]) -> Iterator[None]:
    """Complete the document, then leave out of it more and more."""
    asks = [_ask_of(row) for row in _ends([row for row in history if row.event == "asked"], document, "asks")]
    acts = [_act_of(row) for row in _ends([row for row in history if row.event in ACTS], document, "acts")]
    document |= {"asks": asks, "acts": acts}
    yield
    for name in ("asks", "acts"):
        counted = f"{name}_left_out"
        for kept in (20, 2, 0):
            rows = document[name]
            if len(rows) > kept:
                document[counted] += len(rows) - kept
                document[name] = [*rows[: kept // 2], *rows[len(rows) - kept // 2 :]]
                document["left_out"] = [*document["left_out"], *([name] if name not in document["left_out"] else [])]
                yield
    for name in ("detail", "metadata", "call"):
        size = len(canonical(document[name]))
        if size > _SMALL:
            document[name] = {"left_out": size}
            document["left_out"] = [*document["left_out"], name]
            yield
    document["files"] = [{**file, "source_name": None} for file in document["files"]]
    document["left_out"] = [*document["left_out"], "source_names"]
    yield


def _ends(rows: Sequence[HistoryRow], document: dict[str, Any], name: str) -> Sequence[HistoryRow]:
    """The first and last of many; the document says how many there are between them."""
    left = max(len(rows) - 2 * KEPT_AT_EACH_END, 0)
    document[f"{name}_left_out"] = left
    return [*rows[:KEPT_AT_EACH_END], *rows[len(rows) - KEPT_AT_EACH_END :]] if left else rows


def accepted_in(session: Fields) -> dict[str, Any] | None:
    """An outbox row's word of a person."""
    at = session.time_or_none("accepted_at")
    if at is None:
        return None
    return {
        "at": at,
        "by": session.text_or_none("accepted_by"),
        "because": without_secrets(session.text_or_none("accept_reason")),
    }


def read_record(content: bytes) -> Record:
    """The record that these bytes are. Whoever wrote them: nothing is believed before it is checked. Raises LaterSchema, else
    ValueError.
    """
    if len(content) > MAX_READ:
        raise ValueError("the record is too large")
    try:
        document = json.loads(content.decode())
    except RecursionError:
        raise ValueError("the record is nested too deep") from None
    given = Fields(document, "the record")
    schema = given.integer("schema", 1)
    if schema > SCHEMA:
        raise LaterSchema(schema)
    record = Record(
        salt=given.text("salt", _SALT),
        edition=given.integer("edition", 1),
        **described_in(given),
        accepted=_acceptance_of(given.object("accepted")) if given.all.get("accepted") is not None else None,
        event=given.word("event", RECORD_EVENTS),
        by=given.text_or_none("by"),
        files=files_of(given),
        asks=tuple(_ask_in(each) for each in given.objects("asks")),
        asks_left_out=given.integer("asks_left_out"),
        attempts=_attempts_of(given.object("attempts")),
        acts=tuple(_act_in(each) for each in given.objects("acts")),
        acts_left_out=given.integer("acts_left_out"),
        version=given.text("version"),
        left_out=given.texts("left_out"),
    )
    # Whatever was read in more forms than one: only the one that is written here is right.
    if canonical(_document_of(record)) != content:
        raise ValueError("the record has fields or times that are not of its schema")
    return record


_PARTS = (RecordedFile, Ask, Act, Acceptance, Attempts, Record)
_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in _PARTS}


def _object_of(part: RecordedFile | Ask | Act | Acceptance | Attempts | Record) -> dict[str, Any]:
    """JSON of it, of what lies inside as it is: `asdict` copies all that, and fails where it is deep."""
    return {name: getattr(part, name) for name in _NAMES[type(part)]}


def _document_of(record: Record) -> dict[str, Any]:
    parts = {name: [_object_of(part) for part in getattr(record, name)] for name in ("files", "asks", "acts")}
    accepted = None if record.accepted is None else _object_of(record.accepted)
    return {**_object_of(record), **parts, "accepted": accepted, "attempts": _object_of(record.attempts)}


def _acceptance_of(given: Fields) -> Acceptance:
    return Acceptance(given.time("at"), given.text_or_none("by"), given.text_or_none("because"))


def _ask_in(given: Fields) -> Ask:
    return Ask(
        given.time("at"),
        given.integer_or_none("http_status", 0, 999),
        given.text_or_none("status"),
        given.text_or_none("answer"),
    )


def _act_in(given: Fields) -> Act:
    return Act(given.time("at"), given.word("event", ACTS), given.text_or_none("by"), given.all.get("data"))
