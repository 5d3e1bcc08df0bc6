"""What follows an outcome once it is written: it is counted and logged, and a probe that passed ends its hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from archiver.archive.context import BotAccess
from archiver.errors import DatabaseError
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.outcome import HandedBack, NotReady, Outcome, Retry
from archiver.session import Attempt, Session, State
from archiver.worker.holds import Holds

log = logger(__name__)


class Accounting:
    """Counts into the tally. `wake` is called after each written outcome, once this turn of the loop is over."""

    def __init__(self, bots: Mapping[str, BotAccess], holds: Holds, tally: Tally, wake: Callable[[], None]) -> None:
        self._bots = bots
        self._holds = holds
        self._tally = tally
        self._wake = wake

    async def record(self, attempt: Attempt, outcome: Outcome, state: State | None) -> None:
        """The outcome is in the database, and the session in this state now; None: the session was lost to others."""
        try:
            if state is None:
                self.count_lost(attempt.session)
            else:
                await self._record(attempt, outcome, state)
        finally:
            # The last of its batch is still counted as unwritten: looked at once this turn of the loop is over.
            asyncio.get_running_loop().call_soon(self._wake)

    def count_lost(self, session: Session) -> None:
        """Its lease ran out, or somebody cancelled it: what came of this attempt is not ours to write."""
        self._tally.lost += 1
        log.warning("session_lease_lost", session=session.session_id, bot=session.bot, epoch=session.epoch, lost=self._tally.lost)

    async def _record(self, attempt: Attempt, outcome: Outcome, state: State) -> None:
        session, tally = attempt.session, self._tally
        bot = self._bots.get(session.bot)  # none, if it was removed meanwhile
        if bot is not None and attempt.calls and not isinstance(outcome, HandedBack | Retry):
            with suppress(DatabaseError):  # the next answer says it again
                await bot.quota.answered()
        rechecked = session.recheck and state is State.UNAVAILABLE
        name = "rechecked" if rechecked else outcome.name if state is State.PENDING else state.value
        facts = {"files": len(attempt.stored), "bytes": sum(file.bytes for file in attempt.stored), "calls": attempt.calls}
        given_up = state is State.FAILED and isinstance(outcome, NotReady)
        reason = "not_ready" if given_up else getattr(outcome, "reason", None)
        tally.ended[name] = tally.ended.get(name, 0) + 1
        tally.attempts[session.bot, state.value, str(reason or getattr(outcome, "status", ""))] += 1
        tally.stored[session.bot] += facts["files"]
        tally.stored_bytes[session.bot] += facts["bytes"]
        if session.probe:
            await self._holds.release_after(attempt, outcome)
        write = log.warning if state is State.FAILED else log.info
        write(f"session_{name}", **session.naming(), **facts, **({"reason": reason} if reason else {}))
