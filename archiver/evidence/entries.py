"""The entries of the ledger: one line of JSON for everything that happened to the archive, without personal data.

`made_of` makes a line of whatever stands in an outbox row, and `parse` reads one whoever wrote it. What they look like is said
in FORMAT.md, which lies beside this module and in every store.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from archiver.config.path_template import QUARANTINE, PathTemplate
from archiver.errors import StoreError
from archiver.evidence.canonical import canonical, moment_of, utc
from archiver.evidence.fields import MAX_ORDINAL, Fields
from archiver.evidence.objects import FOLDER, record_fallback_key
from archiver.evidence.sidecar import (
    MAX_READ,
    RECORD_EVENTS,
    STATES,
    Making,
    RecordedFile,
    files_of,
    record_of,
)
from archiver.queue.ledger import HistoryRow, OutboxRow
from archiver.stores import check_key

VERSION = 1
MAX_LINE = 60_000
"""Bytes of a line without its newline. Where all hashes do not fit, their number stands for them."""
MAX_KEY = 1024
"""Bytes of a record's key."""

SESSION_EVENTS = RECORD_EVENTS | {"reopened"}
ARCHIVE_EVENTS = frozenset({"key", "account", "fixity", "noted", "exported", "rebuilt"})
RESERVED = frozenset({
    "stamped", "hold", "released", "purging", "purged", "source_deleting", "source_deleted", "policy",
})  # fmt: skip
"""Words of later versions: their entries are read, and what they say is not."""
EVENTS = SESSION_EVENTS | ARCHIVE_EVENTS | {"unreadable"}
KINDS = frozenset({"recording", "voicemail"})
ACTORS = frozenset({"worker", "person"})

_SESSION = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_BOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ORIGIN = re.compile(r"[a-z0-9][a-z0-9./_-]{0,99}")
_PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COMMON = frozenset({"v", "uid", "at", "event", "actor"})
_NAMED = frozenset({"bot", "session", "kind"})
_RECORDED = frozenset({"record", "record_key", "record_bytes"})
_MAX_COUNTS = 100


@dataclass(frozen=True, slots=True)
class Made:
    """An entry's line (without newline), and the record that belongs to it, if one does. `salt`: if the record or the entry has
    it.
    """

    line: bytes
    record: bytes | None = None
    record_key: str | None = None
    edition: int | None = None
    salt: bytes | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that was read. What an event has not is None; `body` is what an archive-wide event says, as `unreadable` does."""

    uid: UUID
    at: datetime
    event: str
    actor: str
    bot: str | None = None
    session: str | None = None
    kind: str | None = None
    state: str | None = None
    files: tuple[tuple[int, str], ...] | None = None
    """Place and hash of audio, each pair once, in order."""
    files_count: int | None = None
    record: str | None = None
    record_key: str | None = None
    record_bytes: int | None = None
    session_sha256: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


def made_of(
    row: OutboxRow,
    *,
    path: PathTemplate,
    earlier_editions: int,
    asks: Sequence[HistoryRow],
    is_bot_name: Callable[[str], bool],
    version: str,
    salt: bytes,
) -> Made:
    """The entry of an outbox row, and its record. Whatever the row holds, it is something that may be sealed: an event
    `unreadable` where the body is not what its event needs.

    `earlier_editions` is the number of the session's last edition (0: none), `asks` its history, oldest first. `salt` are 16
    random bytes, which nothing else has. `path` says where the record lies.
    """
    try:
        body = Fields(row.body, "the body")
        by = body.text_or_none("by")
        if row.event in SESSION_EVENTS and row.queue_id is not None:
            making = Making(row.event, by, earlier_editions + 1, salt, version)
            return _of_session(row, body, making, path, asks, is_bot_name)
        if row.event in ARCHIVE_EVENTS:
            said = SAID[row.event](body)
            if said.get("bot") is None or is_bot_name(said["bot"]):
                return Made(_line(row, row.event, "worker" if by is None else _actor(by), said))
    except (ValueError, RecursionError):
        pass
    given = {"event_given": row.event} if row.event in EVENTS | RESERVED else {}
    return Made(_line(row, "unreadable", "unknown", given))


def _actor(by: str | None) -> str:
    return "worker" if by is not None and (by == "worker" or by.startswith("worker ")) else "person"


def _line(row: OutboxRow, event: str, actor: str, said: Mapping[str, Any]) -> bytes:
    common = {"v": VERSION, "uid": str(row.uid), "at": utc(row.at), "event": event, "actor": actor}
    return canonical({**said, **common}, ascii_only=True)


def _of_session(
    row: OutboxRow,
    body: Fields,
    making: Making,
    path: PathTemplate,
    history: Sequence[HistoryRow],
    is_bot_name: Callable[[str], bool],
) -> Made:
    session, files = body.object("session"), files_of(body)
    bot, session_id, kind = (session.text(name) for name in ("bot", "session_id", "kind"))
    actor = _actor(making.by)
    said: dict[str, Any] = {"state": session.word("state", STATES)}
    pairs = sorted({(file.ordinal, file.sha256) for file in files if file.ordinal > 0})
    plain = is_bot_name(bot) and is_plain(bot, session_id) and kind in KINDS
    record = key = None
    name = record_name(making.edition)
    if plain and row.event in RECORD_EVENTS:
        name, making = _edition(making, files)
        record = record_of(session, files, history, making)
    if record is not None:
        sha256 = hashlib.sha256(record).hexdigest()
        key = _record_key(session, path, name) or record_fallback_key(sha256)
        said |= {"record": sha256, "record_key": key, "record_bytes": len(record)}
    if record is not None or (plain and row.event not in RECORD_EVENTS):
        said |= {"bot": bot, "session": session_id, "kind": kind}
        salted = record is not None
    else:
        # Also a session of which nothing but too much is known.
        said["session_sha256"] = session_sha256(making.salt, bot, session_id, kind)
        salted = True
    line = _line(row, row.event, actor, {**said, "files": pairs})
    if len(line) > MAX_LINE:
        line = _line(row, row.event, actor, {**said, "files_count": len(pairs)})
    return Made(line, record, key, making.edition if record is not None else None, making.salt if salted else None)


def is_plain(bot: str, session_id: str) -> bool:
    """Whether these may be in the ledger as they are: they are nothing but names."""
    return _BOT.fullmatch(bot) is not None and _SESSION.fullmatch(session_id) is not None


def session_sha256(salt: bytes, bot: str, session_id: str, kind: str) -> str:
    """What stands for a session whose ID must not be in the ledger."""
    return hashlib.sha256(salt + canonical([bot, session_id, kind])).hexdigest()


def record_name(edition: int) -> str:
    """The file name of a session's first, second... record."""
    return "session.json" if edition == 1 else f"session.{edition}.json"


def _edition(making: Making, files: Sequence[RecordedFile]) -> tuple[str, Making]:
    """The next edition whose name no recording has, as a careless file system compares them."""
    taken = {_folded(name) for file in files for name in (file.file_name, file.store_key.rpartition("/")[2])}
    edition = next(number for number in itertools.count(making.edition) if record_name(number) not in taken)
    return record_name(edition), replace(making, edition=edition)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _record_key(session: Fields, path: PathTemplate, name: str) -> str | None:
    """Where the template puts a record; None: nowhere that a store could keep it."""
    try:
        key = path.render(
            bot=session.text("bot"),
            date=datetime.fromisoformat(session.text("archive_date")),
            session_id=session.text("session_id"),
            kind=session.text("kind"),
            file_name=name,
        )
        check_key(key)
    except (ValueError, OverflowError, StoreError):
        return None
    folder = key.split("/", maxsplit=1)[0].casefold()
    return key if len(key.encode()) <= MAX_KEY and folder not in (FOLDER.rstrip("/"), QUARANTINE) else None


# --- what archive-wide events say


def _key_said(body: Fields) -> dict[str, Any]:
    return {
        "origin": body.text("origin", _ORIGIN),
        "public_key": body.text("public_key", _PUBLIC_KEY),
        "fingerprint": body.text("fingerprint", _FINGERPRINT),
        "format_sha256": body.sha256("format_sha256"),
        "schema_sha256": body.sha256("schema_sha256"),
        "signers": body.integer("signers", 1, MAX_ORDINAL),
        "signers_sha256": body.sha256("signers_sha256"),
        "previous": body.text_or_none("previous", _FINGERPRINT),
    }


def _account_said(body: Fields) -> dict[str, Any]:
    counts = body.object("counts")
    if len(counts.all) > _MAX_COUNTS or not all(_WORD.fullmatch(name) for name in counts.all):
        raise body.wrong("counts")
    return {
        "bot": body.text_or_none("bot", _BOT),
        "from": body.time("from"),
        "to": body.time("to"),
        "counts": {name: counts.integer(name) for name in counts.all},
        "complete": body.boolean("complete"),
        "account": body.integer("account"),
    }


def _fixity_said(body: Fields) -> dict[str, Any]:
    counted = {name: body.integer(name) for name in ("files", "equal", "bytes", "wrong")}
    return {**counted, "bot": body.text_or_none("bot", _BOT)}


def _noted_said(body: Fields) -> dict[str, Any]:
    return {"object_sha256": body.sha256("object_sha256"), "bytes": body.integer("bytes")}


def _rebuilt_said(body: Fields) -> dict[str, Any]:
    return {name: body.integer(name) for name in ("size", "sessions", "files", "unnamed", "lost", "given_up")}


def _exported_said(body: Fields) -> dict[str, Any]:
    counted = {name: body.integer(name) for name in ("sessions", "files", "bytes")}
    return {**counted, "manifest_sha256": body.sha256("manifest_sha256")}


SAID: Mapping[str, Callable[[Fields], dict[str, Any]]] = {
    "key": _key_said,
    "account": _account_said,
    "fixity": _fixity_said,
    "noted": _noted_said,
    "exported": _exported_said,
    "rebuilt": _rebuilt_said,
}


# --- reading


def parse(line: bytes) -> Entry:
    """The entry that this line (without its newline) is, whoever wrote it. Raises ValueError for what is none of this version, or
    not in the one form that it has.
    """
    if len(line) > MAX_LINE:
        raise ValueError("the line is too long")
    try:
        document = json.loads(line.decode("ascii"))
    except RecursionError:
        raise ValueError("the line is nested too deep") from None
    given = Fields(document, "the entry")
    if canonical(document, ascii_only=True) != line:
        raise ValueError("the line is no canonical JSON")
    given.integer("v", VERSION, VERSION)
    event = given.word("event", EVENTS | RESERVED)
    uid = given.text("uid", _UID)
    actor = given.word("actor", ACTORS | {"unknown"})
    if (actor == "unknown") != (event == "unreadable") and event not in RESERVED:
        raise given.wrong("actor")
    entry = Entry(UUID(uid), moment_of(given.text("at")), event, actor)
    said = {name: value for name, value in document.items() if name not in _COMMON}
    if event in SESSION_EVENTS:
        return _session_entry(entry, given, said)
    if event == "unreadable":
        if said and said != {"event_given": given.word("event_given", EVENTS | RESERVED)}:
            raise ValueError("the entry has other fields than it should have")
    elif event in SAID and canonical(SAID[event](given)) != canonical(said):
        raise ValueError("the entry has other fields than it should have")
    return replace(entry, body=said)


def _session_entry(entry: Entry, given: Fields, said: Mapping[str, Any]) -> Entry:
    of_files = "files_count" if "files_count" in said else "files"
    named = "session_sha256" not in said
    recorded = named and entry.event in RECORD_EVENTS
    names = _NAMED if named else {"session_sha256"}
    given.exactly({*_COMMON, "state", of_files, *names, *(_RECORDED if recorded else ())})
    found = replace(
        entry,
        state=given.word("state", STATES),
        files=_pairs(given) if of_files == "files" else None,
        files_count=given.integer("files_count") if of_files == "files_count" else None,
    )
    if not named:
        return replace(found, session_sha256=given.sha256("session_sha256"))
    found = replace(found, bot=given.text("bot", _BOT), session=given.text("session", _SESSION), kind=given.word("kind", KINDS))
    if not recorded:
        return found
    key = given.text("record_key")
    try:
        check_key(key)
    except StoreError:
        raise given.wrong("record_key") from None
    if len(key.encode()) > MAX_KEY:
        raise given.wrong("record_key")
    return replace(found, record=given.sha256("record"), record_key=key, record_bytes=given.integer("record_bytes", 1, MAX_READ))


def _pairs(given: Fields) -> tuple[tuple[int, str], ...]:
    """Place and hash of each file of audio, in order, each pair once."""
    found = given.all.get("files")
    if not isinstance(found, list):
        raise given.wrong("files")
    pairs = []
    for each in found:
        if not isinstance(each, list) or len(each) != 2:
            raise given.wrong("files")
        pair = Fields({"place": each[0], "sha256": each[1]}, "files")
        pairs.append((pair.integer("place", 1, MAX_ORDINAL), pair.sha256("sha256")))
    if any(first >= second for first, second in itertools.pairwise(pairs)):
        raise given.wrong("files")
    return tuple(pairs)
