"""One session's whole way: ask the platform -> take each file into the store -> say how it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from archiver.archive.context import Archive, BotAccess
from archiver.archive.files import Files
from archiver.archive.signed_urls import SignedUrls
from archiver.config import BotSettings
from archiver.kore.answers import Answer
from archiver.kore.exchange import Asked, Pay, first_paid
from archiver.kore.inline import Inline
from archiver.outcome import Archived, Failed, NotReady, Outcome, Retry, Unavailable
from archiver.session import Attempt, Session

KINDS = frozenset({"recording", "voicemail"})
"""What can be asked for so far."""


async def archive_session(attempt: Attempt, bot: BotAccess, archive: Archive, guard: Callable[[], None]) -> Outcome:
    """Archive one claimed session. Notes every answer and every stored file in `attempt`, also when it raises.

    `guard` raises LeaseLost when the session may have been taken over. Everything else that is raised is for `classify`.
    """
    session = attempt.session
    if session.kind not in KINDS:
        return Failed("kind_not_supported", {"kind": session.kind, "supported": sorted(KINDS)})
    files = Files(attempt, bot.media, archive, guard)
    # The first call of an attempt was drawn from the budget with the claim.
    answer = await ask(attempt, bot, draw=first_paid(bot.quota.draw), take_inline=files.take_inline)
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
    urls = SignedUrls(attempt, answer, lambda: ask(attempt, bot, draw=bot.quota.draw))
    missing = files.missing(answer)
    for file, name in missing:
        await files.take(file.ordinal, file.name, urls.of(file), name)
    if answer.transcriptions is not None:
        await files.take_transcriptions(answer.transcriptions, [name for _, name in missing])
    files.raise_problem()
    return Archived()


async def ask(
    attempt: Attempt, bot: BotAccess, *, draw: Pay, take_inline: Callable[[Inline], Awaitable[None]] | None = None
) -> Answer:
    """Ask the platform, noting every exchange as evidence. Recordings that lie in the answer go to `take_inline`, and come again
    from the first one on when the connection breaks and the platform is asked once more. `draw` pays for each call.
    """
    session = attempt.session

    def note(asked: Asked) -> None:
        attempt.calls += 1
        attempt.note("asked", http_status=asked.http_status, status=asked.status, answer=asked.raw)

    async def once() -> Answer:
        if not bot.client.answers_inline(session.kind):
            return await bot.client.answer(
                session.session_id, kind=session.kind, user_id=session.user_id, draw=draw, on_answer=note
            )
        async with bot.client.ask(
            session.session_id, kind=session.kind, user_id=session.user_id, draw=draw, on_answer=note
        ) as asking:
            if take_inline is not None:
                async for recording in asking.inline():
                    await take_inline(recording)
            return await asking.answer()

    return await bot.client.retrying(once)


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
