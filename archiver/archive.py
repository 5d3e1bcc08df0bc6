"""One session's whole way: ask the platform -> fetch each recording into the store -> say how it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from archiver.config import BotSettings, RetrySettings
from archiver.errors import ApiDefect, ArchiverError, MediaUrlExpired, StoreError, StoreUnavailable, TransferError
from archiver.kore.client import Answer, Asked, KoreClient, RemoteFile
from archiver.kore.media import MediaClient
from archiver.naming import PathTemplate, clean_file_name
from archiver.outcome import Archived, Failed, NotReady, Outcome, Retry, Unavailable, classify, facts_of
from archiver.queue.quota import Quota
from archiver.session import Attempt, Session, StoredFile
from archiver.stores import Store
from archiver.transfer import Target, Transferred, transfer

_FileId = tuple[int, str]  # place and name in the platform's answer

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

    def target(self, session: Session, file_name: str) -> Target:
        """Where one file of a session goes. A rejected body is kept when nothing else will come."""
        key = self.path.render(
            bot=session.bot,
            date=session.archive_date,
            session_id=session.session_id,
            kind=session.kind,
            file_name=file_name,
        )
        folder = "/".join(("quarantine", *key.split("/")[:-1]))
        last = session.failures + 1 >= self.retry.max_attempts
        return Target(key, file_name, session.part_name, f"{folder}/{session.epoch}-", keep_rejected=last)


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
    source = _Source(attempt, bot, _urls(answer))
    problems: list[ArchiverError] = []
    for file, name in _missing(session, answer):
        fetch = partial(
            transfer,
            to=archive.target(session, name),
            media=bot.media,
            store=archive.store,
            guard=guard,
            on_bytes=archive.on_bytes,
        )
        try:
            done = await source.fetch(file, fetch)
        except StoreUnavailable:
            raise
        except (TransferError, StoreError) as error:
            # The other files of the session are not to blame, and may be gone tomorrow.
            problems.append(error)
            attempt.note("file_failed", ordinal=file.ordinal, file_name=name, **facts_of(error))
            continue
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
        attempt.stored.append(stored)
        attempt.note("stored", existed=done.saved.existed, **stored.as_row())
    if problems:
        # As long as one of them may still come, the session is not given up.
        raise min(problems, key=lambda error: isinstance(classify(error), Failed))
    return Archived()


async def _ask(attempt: Attempt, bot: BotAccess, *, drawn: bool) -> Answer:
    """Ask the platform, noting every exchange as evidence."""

    def note(asked: Asked) -> None:
        attempt.calls += 1
        attempt.note("asked", http_status=asked.http_status, status=asked.status, answer=asked.raw)

    session = attempt.session
    return await bot.client.recordings(
        session.session_id, user_id=session.user_id, draw=bot.quota.draw, on_answer=note, drawn=drawn
    )


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


class _Source:
    """The signed URLs of one answer. They expire within minutes: when one is refused, all are asked for afresh. Where a fresh one
    is refused too, asking on for the other files would only spend the budget.
    """

    def __init__(self, attempt: Attempt, bot: BotAccess, urls: dict[_FileId, str]) -> None:
        self._attempt = attempt
        self._bot = bot
        self._urls = urls
        self._fresh_refused = False

    async def fetch(self, file: RemoteFile, transfer_from: Callable[[str], Awaitable[Transferred]]) -> Transferred:
        """`transfer_from` the file's URL, or from a fresh one if that has expired."""
        which = (file.ordinal, file.name)
        try:
            return await transfer_from(self._urls[which])
        except MediaUrlExpired as expired:
            if self._fresh_refused:
                raise
            self._attempt.note("url_expired", ordinal=file.ordinal, http_status=expired.facts.get("http_status"))
        answer = await _ask(self._attempt, self._bot, drawn=False)
        fresh = _urls(answer)
        if which not in fresh:
            raise ApiDefect(
                f"a second answer no longer lists file {file.ordinal}", reason="api_answer_changed", answer=answer.raw
            )
        self._urls.update(fresh)
        try:
            return await transfer_from(self._urls[which])
        except MediaUrlExpired:
            self._fresh_refused = True
            raise


def _urls(answer: Answer) -> dict[_FileId, str]:
    return {(file.ordinal, file.name): file.url for file in answer.files}


def _evidence(answer: Answer) -> dict[str, object]:
    return {"http_status": answer.http_status, "answer": answer.raw}
