"""One session's whole way: ask the platform -> fetch each recording into the store -> say how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archiver.config import BotSettings, PathTemplate, RetrySettings
from archiver.errors import ApiDefect, ArchiverError, KeyConflict, MediaUnreachable, MediaUrlExpired, TransferError
from archiver.kore.client import Answer, Asked, KoreClient, RemoteFile
from archiver.kore.media import MediaClient
from archiver.kore.transient import retry_transient
from archiver.outcome import Archived, Failed, NotReady, Outcome, Retry, Unavailable, classify, facts_of
from archiver.queue.quota import Quota
from archiver.recording import clean_file_name
from archiver.session import Attempt, Session, StoredFile
from archiver.stores import Store
from archiver.transfer import Transferred, transfer

Urls = dict[tuple[int, str], str]
"""Signed URLs by place and name in the platform's answer."""

KINDS = frozenset({"recording"})
"""What can be asked for so far."""


@dataclass(frozen=True)
class BotAccess:
    """All that is needed to serve one bot."""

    settings: BotSettings
    client: KoreClient
    media: MediaClient
    quota: Quota


@dataclass(frozen=True)
class Archive:
    """Where recordings go and under which terms. `on_bytes` is told of every byte that arrives."""

    store: Store
    path: PathTemplate
    retry: RetrySettings
    on_bytes: Callable[[int], None] = lambda count: None

    def key(self, session: Session, file_name: str) -> str:
        """The store key of one file of a session."""
        return self.path.render(
            bot=session.bot,
            date=session.archive_date,
            session_id=session.session_id,
            kind=session.kind,
            file_name=file_name,
        )


async def archive_session(attempt: Attempt, bot: BotAccess, archive: Archive, guard: Callable[[], None]) -> Outcome:
    """Archive one claimed session. Notes every answer and every stored file in `attempt`, also when it raises.

    `guard` raises LeaseLost when the session may have been taken over. Everything else that is raised is for `classify`.
    """
    session = attempt.session
    if session.kind not in KINDS:
        return Failed("kind_not_supported", {"kind": session.kind, "supported": sorted(KINDS)})
    answer = await _ask(attempt, bot, drawn=True)
    match answer.status:
        case "success":
            pass
        case "call_in_progress" | "media_in_progress":
            return NotReady(answer.status)
        case "media_unavailable":
            return Unavailable(answer.status, _evidence(answer))
        case "failed":
            return Failed("platform_failed", _evidence(answer))
        case _:
            return Retry("api_status_unknown", _evidence(answer) | {"status": answer.status})
    urls = _urls(answer)
    problems: list[ArchiverError] = []
    for file, name in _missing(session, answer):
        try:
            attempt.stored.append(await _fetch(attempt, bot, archive, file, name, urls, guard))
        except (TransferError, KeyConflict) as error:
            # The other files of the session are not to blame, and may be gone tomorrow.
            problems.append(error)
            attempt.note("file_failed", ordinal=file.ordinal, file_name=name, **facts_of(error))
    if problems:
        # As long as one of them may still come, the session is not given up.
        raise min(problems, key=lambda error: isinstance(classify(error), Failed))
    return Archived()


def _missing(session: Session, answer: Answer) -> list[tuple[RemoteFile, str]]:
    """The files that no earlier attempt stored, with the names that they will have."""
    known = {(file.ordinal, file.source_name) for file in session.known}
    taken = [file.file_name for file in session.known]
    missing = []
    for file in answer.files:
        if (file.ordinal, file.name) not in known:
            taken.append(clean_file_name(file.name, taken))
            missing.append((file, taken[-1]))
    return missing


async def _ask(attempt: Attempt, bot: BotAccess, *, drawn: bool) -> Answer:
    """Ask the platform, noting every exchange as evidence."""

    def note(asked: Asked) -> None:
        attempt.calls += 1
        attempt.note("asked", http_status=asked.http_status, status=asked.status, answer=asked.raw)

    session = attempt.session
    return await bot.client.recordings(
        session.session_id, user_id=session.user_id, draw=bot.quota.draw, on_answer=note, drawn=drawn
    )


async def _fetch(
    attempt: Attempt,
    bot: BotAccess,
    archive: Archive,
    file: RemoteFile,
    name: str,
    urls: Urls,
    guard: Callable[[], None],
) -> StoredFile:
    """Fetch one file; when its URL is not accepted (it expires within minutes), ask for fresh ones, once. They go into `urls`,
    for the files that come after it.
    """
    try:
        done = await _transfer(attempt, bot, archive, urls[file.ordinal, file.name], name, guard)
    except MediaUrlExpired as expired:
        attempt.note("url_expired", file_name=name, http_status=expired.facts.get("http_status"))
        answer = await _ask(attempt, bot, drawn=False)
        fresh = _urls(answer)
        if (file.ordinal, file.name) not in fresh:
            raise ApiDefect(
                f"a second answer no longer lists file {file.ordinal}", reason="api_answer_changed", answer=answer.raw
            ) from None
        urls.update(fresh)
        done = await _transfer(attempt, bot, archive, urls[file.ordinal, file.name], name, guard)
    stored = StoredFile(
        ordinal=file.ordinal,
        source_name=file.name,
        file_name=name,
        store_key=done.saved.key,
        bytes=done.saved.bytes,
        sha256=done.saved.sha256,
        media_type=done.inspection.media_type,
        flags=done.inspection.flags,
    )
    attempt.note("stored", existed=done.saved.existed, **stored.as_row())
    return stored


async def _transfer(
    attempt: Attempt, bot: BotAccess, archive: Archive, url: str, name: str, guard: Callable[[], None]
) -> Transferred:
    session = attempt.session
    key = archive.key(session, name)
    folder, _, _ = key.rpartition("/")
    # A rejected body is kept when nothing else will come; a conflicting one always, since that ends the session.
    last = session.failures + 1 >= archive.retry.max_attempts
    quarantine = "/".join(filter(None, ("quarantine", folder, f"{session.epoch}-")))
    return await _transfer_patiently(
        bot.media,
        archive.store,
        url,
        key,
        name=name,
        part=session.part_name,
        quarantine=lambda received: f"{quarantine}{received}-{name}",
        keep_rejected=last,
        guard=guard,
        on_bytes=archive.on_bytes,
    )


_transfer_patiently = retry_transient(MediaUnreachable)(transfer)
"""A short break of the media host is waited out here: to come again through the queue would cost a call to the platform."""


def _urls(answer: Answer) -> Urls:
    return {(file.ordinal, file.name): file.url for file in answer.files}


def _evidence(answer: Answer) -> dict[str, object]:
    return {"http_status": answer.http_status, "answer": answer.raw}
