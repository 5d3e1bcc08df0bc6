"""What an exception means: for the session, and for its bot, the budget and the store besides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from archiver.archive.context import BotAccess
from archiver.errors import (
    ApiDefect,
    BudgetSpent,
    CredentialsRejected,
    DatabaseError,
    KoreError,
    MediaHostRefused,
    MediaUnreachable,
    RateLimited,
    StoreUnavailable,
)
from archiver.observe.logs import logger
from archiver.observe.redact import redact
from archiver.outcome import MAX_WAIT, HandedBack, Outcome, Retry, classify, facts_of
from archiver.queue.sessions import PROBE_EVERY
from archiver.runtime.open_files import RAISE_FILES, files_allowed, files_exhausted
from archiver.session import Session
from archiver.worker.holds import Holds
from archiver.worker.probes import Probes
from archiver.worker.store_gate import StoreGate

log = logger(__name__)

FILES_PAUSE_SECONDS = 10.0
"""How long a session waits for which no file could be opened."""

ALONE_SECONDS = 60.0
"""How long a session waits, at least, that is refused alone, or while nobody could say whether its bot is, too."""


class Judge:
    """Turns what was raised in an attempt into its outcome. `longest_pause` is `retry.backoff_max`."""

    def __init__(
        self, bots: Mapping[str, BotAccess], holds: Holds, probes: Probes, gate: StoreGate, *, longest_pause: timedelta
    ) -> None:
        self._bots = bots
        self._holds = holds
        self._probes = probes
        self._gate = gate
        self._longest_pause = longest_pause

    async def judge(self, session: Session, error: Exception, bot: BotAccess) -> Outcome:
        """`bot` is what the attempt was made with. Never raises: where the database is away, what `classify` says stands."""
        outcome = classify(error)
        if isinstance(outcome, Retry | HandedBack) and files_exhausted(error):
            # Whoever is named by what failed, it is not to blame.
            log.error("open_files_exhausted", files=files_allowed(), error=redact(f"{type(error).__name__}: {error}"))
            detail = {"message": "this process had no more files to open", "files": files_allowed(), "hint": RAISE_FILES}
            return HandedBack("too_many_open_files", after=timedelta(seconds=FILES_PAUSE_SECONDS), detail=detail)
        return await self._judge(session, error, outcome, bot)

    async def _judge(self, session: Session, error: Exception, outcome: Outcome, bot: BotAccess) -> Outcome:
        try:
            match error:
                case BudgetSpent():
                    log.info("budget_spent")
                case RateLimited() if await self._limited_alone(session):
                    log.warning("session_rate_limited", hint="its bot is not rate limited: the session waits alone")
                    after = max(error.retry_after or timedelta(0), timedelta(seconds=ALONE_SECONDS))
                    return HandedBack(error.reason, after=min(after, MAX_WAIT), detail=facts_of(error))
                case RateLimited():
                    wait = await bot.quota.block(error.retry_after)
                    asked = {"retry_after_seconds": round(error.retry_after.total_seconds())} if error.retry_after else {}
                    log.warning("rate_limit_reached", wait_seconds=round(wait.total_seconds(), 1), **asked)
                case CredentialsRejected() | ApiDefect(reason="api_http_404"):
                    return await self._judge_refusal(session, error, outcome)
                case MediaHostRefused(public=True):
                    if await self._holds.count_host_refusal(session, error):
                        return HandedBack(error.reason, detail=facts_of(error))
                case StoreUnavailable():
                    # Not the session's doing, the first time: a full disk over a weekend must not use up the attempts of all.
                    # The second time it may be: a recording too large for what is free would come again for ever.
                    wait = self._gate.close(error)
                    # So it may be of a recheck, whose row does not say how the last attempt ended.
                    if session.put_back_for != "store_unavailable" and not session.recheck:
                        return HandedBack("store_unavailable", after=wait, detail=facts_of(error))
                case MediaUnreachable(reason="proxy_refused") if session.put_back_for != error.reason and not session.recheck:
                    # The list of the proxy is short, and whoever keeps it may need a while. For ever it must not go on: the
                    # host may be this session's alone.
                    return HandedBack(error.reason, after=self._longest_pause, detail=facts_of(error))
                case DatabaseError():
                    log.warning("database_unavailable", **facts_of(error))
                    return HandedBack("database_unavailable", after=timedelta(seconds=1), detail=facts_of(error))
                case _ if getattr(outcome, "reason", "") == "internal_error":
                    log.error("internal_error", exc_info=error)
                case _:
                    pass
        except DatabaseError as failure:
            log.warning("database_unavailable", **facts_of(failure))
        return outcome

    async def _limited_alone(self, session: Session) -> bool:
        """Whether the rate limit is this session's own: it has waited before, is refused again, and a harmless call is not. It
        must not stop all the others each time that it comes.
        """
        if session.put_back_for != RateLimited.reason and not session.recheck:
            return False
        return (await self._probes.access(session.bot, session.kind, session.claimed_tick)).let_in

    async def _judge_refusal(self, session: Session, error: KoreError, outcome: Outcome) -> Outcome:
        """A 401, 403 or 404. Whether the bot is refused or this session alone, a call shows that concerns no session."""
        verdict = await self._probes.access(session.bot, session.kind, session.claimed_tick)
        match verdict.error:
            case CredentialsRejected() as refusal:
                await self._holds.hold_for_credentials(session.bot, session.kind, refusal)
                # What isn't there may be the session all the same: the next one to try the bot is another.
                turn_over = session.probe and refusal.facts.get("http_status") == 404
                after = 2 * PROBE_EVERY if turn_over else timedelta(0)
                return HandedBack(refusal.reason, after=after, detail=facts_of(refusal))
            case RateLimited() as limit:
                if not isinstance(limit, BudgetSpent):
                    await self._bots[session.bot].quota.block(limit.retry_after)
                return classify(limit)
            case _ if not isinstance(error, CredentialsRejected):
                return outcome
            case None:
                log.warning("session_refused", http_status=error.facts.get("http_status"), harmless_call=verdict.said)
                return Retry("access_denied", _denied(error, f"let in: {verdict.said}"))
            case _:
                # Nobody knows. Not the session's doing, the first time; a platform that never answers the call would have it
                # come again for ever.
                detail = _denied(error, verdict.error.message)
                if session.put_back_for == "access_unclear" or session.recheck:
                    return Retry("access_unclear", detail)
                return HandedBack("access_unclear", after=timedelta(seconds=ALONE_SECONDS), detail=detail)


def _denied(error: KoreError, harmless_call: str) -> dict[str, Any]:
    """The facts of a session that was refused, alone as far as is known."""
    hint = "look at this session on the platform (of another app, deleted, restricted?), then `archiver retry ID`"
    message = f"the platform refuses this session (HTTP {error.facts.get('http_status')})"
    return {"message": message, **error.facts, "harmless_call": harmless_call, "hint": hint}
