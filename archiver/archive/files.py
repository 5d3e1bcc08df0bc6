"""The files of one session, taken into the store one after another. What is wrong with one does not keep the next from being
tried.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from archiver.archive.context import Archive
from archiver.archive.download import Body, Document, Download, InlineBody, Source
from archiver.archive.media import MediaClient
from archiver.archive.naming import FileNames, clean_file_name, name_by_place
from archiver.archive.transfer import transfer
from archiver.errors import ArchiverError, RecordingTooLarge, StoreError, StoreUnavailable, TransferError
from archiver.kore.answers import Answer, RemoteFile
from archiver.kore.inline import Inline
from archiver.observe.transfers import HostPace, Transfer
from archiver.outcome import Failed, classify, facts_of
from archiver.session import Attempt, Session, StoredFile

TRANSCRIPTIONS = (0, "transcriptions")
"""Place and name of what a voicemail's answer says beside its files."""


class Files:
    """Notes every stored file in the attempt, also when it raises. `guard` raises LeaseLost when the session may have been taken
    over.
    """

    def __init__(self, attempt: Attempt, media: MediaClient, archive: Archive, guard: Callable[[], None]) -> None:
        self._attempt = attempt
        self._media = media
        self._archive = archive
        self._guard = guard
        self._problems: dict[int, ArchiverError] = {}
        self._max_name = archive.max_file_name(attempt.session)
        self._hosts = HostPace(attempt.session.id)
        self._taken = sum(file.bytes for file in attempt.session.known)
        """Bytes that the session's files take so far, of earlier attempts and in quarantine too; and those that came of what was
        too large: no session may bring more than is kept of one.
        """

    def missing(self, answer: Answer) -> list[tuple[RemoteFile, str]]:
        """The files of an answer that no earlier attempt stored, with the names that they will have. They are noted as missing
        until they are stored.
        """
        missing = _missing(self._attempt.session, answer, self._max_name)
        self._attempt.missing |= {(file.ordinal, file.name) for file, _ in missing}
        return missing

    async def take(self, ordinal: int, source_name: str, source: Source, name: str) -> None:
        """One that the answer has a URL of."""
        transfers = self._archive.transfers
        await self._store(ordinal, source_name, name, lambda progress: Download(self._media, source, progress, transfers))

    async def take_inline(self, recording: Inline) -> None:
        """One that lies in the answer. The platform gives it no name."""
        session, transfers = self._attempt.session, self._archive.transfers
        stored = {(file.ordinal, file.source_name) for file in session.known}
        stored |= {(file.ordinal, file.source_name) for file in self._attempt.stored}
        if (recording.ordinal, "") in stored:
            # Read past, and yet on its way: it may be as slow as any.
            with self._running(f"recording-{recording.ordinal}") as progress:
                async for _ in InlineBody(recording, self._media.bandwidth, progress, transfers).pieces():
                    pass
            return
        given = name_by_place(recording.ordinal, recording.media_type)
        name = clean_file_name(given, [file.file_name for file in session.known], self._max_name)
        await self._store(
            recording.ordinal, "", name, lambda progress: InlineBody(recording, self._media.bandwidth, progress, transfers)
        )
        problem = self._problems.get(recording.ordinal)
        if isinstance(problem, RecordingTooLarge) and problem.reason == "session_too_large":
            raise problem  # nothing behind it could be kept: the answer need not be read on

    async def take_transcriptions(self, transcriptions: Any, names: list[str]) -> None:
        """What the answer says beside its files, which have these `names`."""
        session, transfers = self._attempt.session, self._archive.transfers
        ordinal, source_name = TRANSCRIPTIONS
        if any((file.ordinal, file.source_name) == TRANSCRIPTIONS for file in session.known):
            return
        name = clean_file_name("transcriptions.json", [*(file.file_name for file in session.known), *names], self._max_name)
        await self._store(
            ordinal,
            source_name,
            name,
            lambda progress: Document(canonical(transcriptions), "application/json", progress, transfers),
        )

    def raise_problem(self) -> None:
        """Raise what came in the way of a file, if anything did. As long as one of them may still come, the session is not given
        up.
        """
        if self._problems:
            raise min(self._problems.values(), key=lambda error: isinstance(classify(error), Failed))

    def _running(self, name: str) -> AbstractContextManager[Transfer]:
        session = self._attempt.session
        return self._archive.transfers.track(session.bot, session.session_id, name, self._hosts)

    async def _store(self, ordinal: int, source_name: str, name: str, open_body: Callable[[Transfer], Body]) -> None:
        attempt = self._attempt
        attempt.missing.add((ordinal, source_name))
        target = self._archive.target(attempt.session, name, self._taken)
        self._problems.pop(ordinal, None)  # of an answer that broke off later on, and has come again
        try:
            with self._running(name) as progress:
                try:
                    done = await transfer(lambda: open_body(progress), target, self._archive.store, self._guard)
                except ArchiverError as error:
                    if "quarantined" in error.facts or isinstance(error, RecordingTooLarge):
                        self._taken += progress.received
                    raise
        except StoreUnavailable:
            raise
        except (TransferError, StoreError) as error:
            # The other files of the session are not to blame, and may be gone tomorrow.
            self._problems[ordinal] = error
            names = {"source_name": source_name, "file_name": name}
            attempt.note("file_failed", ordinal=ordinal, **names, **facts_of(error))
            return
        stored = StoredFile(
            ordinal=ordinal,
            source_name=source_name,
            file_name=name,
            store_key=done.saved.key,
            bytes=done.saved.bytes,
            sha256=done.saved.sha256,
            media_type=done.inspection.media_type,
            flags=done.inspection.flags,
            seconds=done.inspection.seconds,
            sample_rate=done.inspection.sample_rate,
            channels=done.inspection.channels,
        )
        attempt.stored.append(stored)
        self._taken += stored.bytes
        attempt.missing.discard((ordinal, source_name))
        breaks = {"breaks": done.breaks} if done.breaks else {}
        attempt.note("stored", existed=done.saved.existed, **breaks, **stored.as_row())


def canonical(said: Any) -> bytes:
    """What an answer says beside its files. The same bytes for the same content: keys sorted, no white space, UTF-8."""
    try:
        return json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a character, which JSON can only escape
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _missing(session: Session, answer: Answer, max_name: int) -> list[tuple[RemoteFile, str]]:
    """The files that no earlier attempt stored, with the names that they will have.

    A file is known by its place and name; of those left over on both sides, by its name alone: a list in another order, or with
    something new at its beginning, brings only what is new.
    """
    listed = {(file.ordinal, file.name) for file in answer.files}
    known = {(file.ordinal, file.source_name) for file in session.known}
    moved = Counter(name for place, name in known - listed if place > 0)  # no file of a list has place 0
    names = FileNames((file.file_name for file in session.known), max_name)
    missing = []
    for file in answer.files:
        if (file.ordinal, file.name) in known:
            continue
        if moved[file.name]:
            moved[file.name] -= 1
            continue
        missing.append((file, names.take(file.name)))
    return missing
