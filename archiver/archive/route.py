"""One session's whole way: ask the platform -> fetch each recording into the store -> say how it ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from archiver.archive.download import InlineBody
from archiver.archive.media import MediaClient
from archiver.archive.naming import FileNames, clean_file_name, name_by_place
from archiver.archive.transfer import Target, Transferred, store_document, transfer, transfer_inline
from archiver.config import BotSettings, RetrySettings, TransferSettings
from archiver.config.path_template import QUARANTINE, PathTemplate
from archiver.errors import (
    ApiDefect,
    ArchiverError,
    MediaUrlExpired,
    RecordingTooLarge,
    StoreError,
    StoreUnavailable,
    TransferError,
)
from archiver.kore.client import Answer, Asked, KoreClient, RemoteFile
from archiver.kore.inline import Inline, Keep
from archiver.observe.transfers import HostPace, Transfer, Transfers
from archiver.outcome import Archived, Failed, NotReady, Outcome, Retry, Unavailable, classify, facts_of
from archiver.queue.quota import Quota
from archiver.session import Attempt, Session, StoredFile
from archiver.stores import Store

_FileId = tuple[int, str]  # place and name in the platform's answer

KINDS = frozenset({"recording", "voicemail"})
"""What can be asked for so far."""

TRANSCRIPTIONS = (0, "transcriptions")
"""Place and name of what a voicemail's answer says beside its files."""


@dataclass(frozen=True)
class BotAccess:
    """All that is needed to serve one bot. `quota`: for recordings, voicemail and call details; bots of an account share it."""

    settings: BotSettings
    client: KoreClient
    media: MediaClient
    quota: Quota
    sessions_quota: Quota


@dataclass(frozen=True)
class Archive:
    """Where recordings go and under which terms. `transfers` is told of all that arrives."""

    store: Store
    path: PathTemplate
    retry: RetrySettings
    terms: TransferSettings = field(default_factory=TransferSettings)
    transfers: Transfers = field(default_factory=Transfers)

    def target(self, session: Session, file_name: str, taken: int) -> Target:
        """Where one file of a session goes, whose others take so many bytes. A rejected body is kept when nothing else comes."""
        key = self.path.render(
            bot=session.bot,
            date=session.archive_date,
            session_id=session.session_id,
            kind=session.kind,
            file_name=file_name,
        )
        folder = "/".join((QUARANTINE, *key.split("/")[:-1]))
        last = session.failures + 1 >= self.retry.max_attempts
        left, longest = max(self.terms.max_session - taken, 0), self.terms.max_recording
        return Target(
            key,
            file_name,
            session.part_name,
            f"{folder}/{session.epoch}-",
            keep_rejected=last,
            limit=min(left, longest),
            limited_by="transfer.max_session" if left < longest else "transfer.max_recording",
        )


async def archive_session(attempt: Attempt, bot: BotAccess, archive: Archive, guard: Callable[[], None]) -> Outcome:
    """Archive one claimed session. Notes every answer and every stored file in `attempt`, also when it raises.

    `guard` raises LeaseLost when the session may have been taken over. Everything else that is raised is for `classify`.
    """
    session = attempt.session
    if session.kind not in KINDS:
        return Failed("kind_not_supported", {"kind": session.kind, "supported": sorted(KINDS)})
    keeping = _Keeping(attempt, bot, archive, guard)
    answer = await _ask(attempt, bot, drawn=True, keep=keeping.inline)
    match answer.status:
        case "success":
            attempt.listed = answer.listed
        case "call_in_progress" | "media_in_progress":
            return NotReady(answer.status)
        case "media_unavailable":
            return _unavailable(session, bot.settings, answer)
        case "failed":
            return Failed("platform_failed", _evidence(answer))
        case _:
            return Retry("api_status_unknown", _evidence(answer) | {"status": answer.status})
    urls = _Urls(attempt, bot, answer)
    missing = _missing(session, answer)
    attempt.missing |= {(file.ordinal, file.name) for file, _ in missing}
    for file, name in missing:
        await keeping.file(_Source(urls, file), name)
    if answer.transcriptions is not None:
        await keeping.transcriptions(answer.transcriptions, [name for _, name in missing])
    keeping.raise_problem()
    return Archived()


async def _ask(attempt: Attempt, bot: BotAccess, *, drawn: bool, keep: Keep | None = None) -> Answer:
    """Ask the platform, noting every exchange as evidence."""

    def note(asked: Asked) -> None:
        attempt.calls += 1
        attempt.note("asked", http_status=asked.http_status, status=asked.status, answer=asked.raw)

    session = attempt.session
    return await bot.client.recordings(
        session.session_id,
        kind=session.kind,
        user_id=session.user_id,
        draw=bot.quota.draw,
        on_answer=note,
        drawn=drawn,
        keep=keep,
    )


class _Keeping:
    """Takes files into the store one after another. What is wrong with one does not keep the next from being tried."""

    def __init__(self, attempt: Attempt, bot: BotAccess, archive: Archive, guard: Callable[[], None]) -> None:
        self._attempt = attempt
        self._bot = bot
        self._archive = archive
        self._guard = guard
        self._problems: dict[int, ArchiverError] = {}
        self._hosts = HostPace(attempt.session.id)
        self._taken = sum(file.bytes for file in attempt.session.known)
        """Bytes that the session's files take so far, of earlier attempts and in quarantine too; and those that came of what was
        too large: no session may bring more than is kept of one.
        """

    async def file(self, source: _Source, name: str) -> None:
        """One that the answer has a URL of."""
        to = self._archive.target(self._attempt.session, name, self._taken)
        store, transfers = self._archive.store, self._archive.transfers

        async def fetch(progress: Transfer) -> Transferred:
            return await transfer(source, to, self._bot.media, store, self._guard, progress, transfers)

        await self._keep(source.file.ordinal, source.file.name, name, fetch)

    async def inline(self, recording: Inline) -> None:
        """One that lies in the answer. The platform gives it no name."""
        session = self._attempt.session
        known = {(file.ordinal, file.source_name) for file in session.known}
        known |= {(file.ordinal, file.source_name) for file in self._attempt.stored}
        if (recording.ordinal, "") in known:
            # Read past, and yet on its way: it may be as slow as any.
            with self._running(f"recording-{recording.ordinal}") as progress:
                async for _ in InlineBody(recording, self._bot.media.bandwidth, progress, self._archive.transfers).pieces():
                    pass
            return
        taken = [file.file_name for file in session.known]
        name = clean_file_name(name_by_place(recording.ordinal, recording.media_type), taken)
        to = self._archive.target(session, name, self._taken)
        store, transfers = self._archive.store, self._archive.transfers

        async def take(progress: Transfer) -> Transferred:
            return await transfer_inline(recording, to, self._bot.media.bandwidth, store, self._guard, progress, transfers)

        await self._keep(recording.ordinal, "", name, take)
        problem = self._problems.get(recording.ordinal)
        if isinstance(problem, RecordingTooLarge) and problem.reason == "session_too_large":
            raise problem  # nothing behind it could be kept: the answer need not be read on

    async def transcriptions(self, said: Any, taken: list[str]) -> None:
        """What the answer says beside its files."""
        session = self._attempt.session
        ordinal, source_name = TRANSCRIPTIONS
        if any((file.ordinal, file.source_name) == TRANSCRIPTIONS for file in session.known):
            return
        name = clean_file_name("transcriptions.json", [*(file.file_name for file in session.known), *taken])
        to = self._archive.target(session, name, self._taken)
        store, transfers = self._archive.store, self._archive.transfers

        async def write(progress: Transfer) -> Transferred:
            return await store_document(_canonical(said), "application/json", to, store, self._guard, progress, transfers)

        await self._keep(ordinal, source_name, name, write)

    def raise_problem(self) -> None:
        """Raise what came in the way of a file, if anything did. As long as one of them may still come, the session is not given
        up.
        """
        if self._problems:
            raise min(self._problems.values(), key=lambda error: isinstance(classify(error), Failed))

    def _running(self, name: str) -> AbstractContextManager[Transfer]:
        session = self._attempt.session
        return self._archive.transfers.running_one(session.bot, session.session_id, name, self._hosts)

    async def _keep(self, ordinal: int, source_name: str, name: str, save: Callable[[Transfer], Awaitable[Transferred]]) -> None:
        attempt = self._attempt
        attempt.missing.add((ordinal, source_name))
        self._problems.pop(ordinal, None)  # of an answer that broke off later on, and has come again
        try:
            with self._running(name) as progress:
                try:
                    done = await save(progress)
                except ArchiverError as error:
                    if "quarantined" in error.facts or isinstance(error, RecordingTooLarge):
                        self._taken += progress.received
                    raise
        except StoreUnavailable:
            raise
        except (TransferError, StoreError) as error:
            # The other files of the session are not to blame, and may be gone tomorrow.
            self._problems[ordinal] = error
            attempt.note("file_failed", ordinal=ordinal, file_name=name, **facts_of(error))
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
        )
        attempt.stored.append(stored)
        self._taken += stored.bytes
        attempt.missing.discard((ordinal, source_name))
        breaks = {"breaks": done.breaks} if done.breaks else {}
        attempt.note("stored", existed=done.saved.existed, **breaks, **stored.as_row())


def _canonical(said: Any) -> bytes:
    """The same bytes for the same content: keys sorted, no white space, UTF-8."""
    try:
        return json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a character, which JSON can only escape
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _missing(session: Session, answer: Answer) -> list[tuple[RemoteFile, str]]:
    """The files that no earlier attempt stored, with the names that they will have.

    A file is known by its place and name; of those left over on both sides, by its name alone: a list in another order, or with
    something new at its beginning, brings only what is new.
    """
    listed = {(file.ordinal, file.name) for file in answer.files}
    known = {(file.ordinal, file.source_name) for file in session.known}
    moved = Counter(name for place, name in known - listed if place > 0)  # no file of a list has place 0
    names = FileNames(file.file_name for file in session.known)
    missing = []
    for file in answer.files:
        if (file.ordinal, file.name) in known:
            continue
        if moved[file.name]:
            moved[file.name] -= 1
            continue
        missing.append((file, names.take(file.name)))
    return missing


class _Urls:
    """The signed URLs of one answer. They expire within minutes: when one is refused, all are asked for afresh. Where a fresh one
    is refused too, asking on for the other files would only spend the budget.
    """

    def __init__(self, attempt: Attempt, bot: BotAccess, answer: Answer) -> None:
        self._attempt = attempt
        self._bot = bot
        self.newest = _by_file(answer)
        self.refused_afresh = False

    async def renew(self, file: RemoteFile, refused: MediaUrlExpired) -> None:
        """Ask for all URLs again."""
        if self.refused_afresh:
            raise refused
        self._attempt.note("url_expired", ordinal=file.ordinal, http_status=refused.facts.get("http_status"))
        answer = await _ask(self._attempt, self._bot, drawn=False)
        fresh = _by_file(answer)
        if (file.ordinal, file.name) not in fresh:
            raise ApiDefect(
                f"a second answer no longer lists file {file.ordinal}", reason="api_answer_changed", answer=answer.raw
            )
        self.newest.update(fresh)


@dataclass(frozen=True)
class _Source:
    """One file's URL among them, as `Download` wants it."""

    urls: _Urls
    file: RemoteFile

    @property
    def url(self) -> str:
        return self.urls.newest[self.file.ordinal, self.file.name]

    async def renew(self, refused: MediaUrlExpired) -> None:
        await self.urls.renew(self.file, refused)

    def refused_afresh(self) -> None:
        self.urls.refused_afresh = True


def _by_file(answer: Answer) -> dict[_FileId, str]:
    return {(file.ordinal, file.name): file.url for file in answer.files}


def _unavailable(session: Session, bot: BotSettings, answer: Answer) -> Unavailable:
    """Why there is no recording, as far as it can be told: nobody was reached, or the platform has deleted it by now."""
    found = _evidence(answer)
    if session.unanswered is not None:
        message = f"nobody answered this dial of a campaign ({session.unanswered})"
        return Unavailable("not_answered", found | {"contact_status": session.unanswered, "message": message}, final=True)
    kept, began_at = bot.source_retention, session.began_at
    if kept is None or began_at is None or session.now() - began_at <= kept:
        return Unavailable(answer.status, found)
    found |= {"call_age_days": _days(session.now() - began_at), "source_retention_days": _days(kept)}
    if session.unavailable_since is not None and session.unavailable_since - began_at <= kept:
        # It had none while it still kept those of that age: that it has none now is no news.
        return Unavailable(answer.status, found, final=True)
    message = "the call is older than source_retention: the platform has probably deleted its recording"
    return Unavailable("probably_purged", found | {"message": message}, final=True)


def _days(length: timedelta) -> float:
    return round(length / timedelta(days=1), 1)


def _evidence(answer: Answer) -> dict[str, object]:
    return {"http_status": answer.http_status, "answer": answer.raw}
