"""The Simulator: two servers, the API's and the media's, on two origins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web
from pydantic import ValidationError

from archiver.simulator.api import Api, Bot
from archiver.simulator.audio import load_folder
from archiver.simulator.calls import unix_ms
from archiver.simulator.checked import describe, parse
from archiver.simulator.history import Call, History, HistoryScript
from archiver.simulator.listings import Listings
from archiver.simulator.media import MediaOrigin
from archiver.simulator.script import EVERY_OTHER, SessionScript
from archiver.simulator.sessions import Session
from archiver.simulator.settings import ALTERABLE, AddedBot, SimulatorSettings
from archiver.simulator.urls import UrlSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from archiver.simulator.limits import SlidingWindows

__all__ = ["Simulator", "SimulatorSettings"]

SHUTDOWN_SECONDS = 1.0
MOST_MS = 2**60  # later than any datetime, in Unix milliseconds

STAND_INS = 10_000
"""So many sessions made from the script for every other one are remembered; then the oldest is forgotten, with its timeline."""


class Simulator:
    """A stand-in for the Kore platform. Both servers listen from when it is entered until it is left.

    Sessions are shared by all bots; credentials and used `jti` are each bot's own, and so is the rate limit of the sessions
    history. That of anything else is its account's. Leaving it drops every connection at once, however slow or hung its answer.

    `settings` is a copy, and can be altered while the simulator runs (see `ALTERABLE`).
    Raises ValueError for an `audio_dir` that cannot be read, or without a WAV.
    """

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self.settings = (settings or SimulatorSettings()).model_copy()
        self._folder = {} if self.settings.audio_dir is None else load_folder(self.settings.audio_dir)
        self._turns: dict[str, int] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._media = MediaOrigin(self.settings, UrlSigner(), self._changed)
        self._api = Api(self.settings, self._media.url, self._changed, self._stand_in)
        self._listings = Listings(self.settings, self._api, self._changed)
        self._every_other: tuple[SessionScript, float] | None = None
        self._stand_ins: dict[str, None] = {}  # in the order in which they were made
        self._stand_ins_made = 0
        self._api_url = ""
        self._exit = AsyncExitStack()
        self.add_bot(self.settings.bot_id, self.settings.client_id, self.settings.client_secret)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            # Cancellation: a request whose client is gone ends, hung or not.
            media = web.Server(self._media.handle, handler_cancellation=True, access_log=None)
            runner = web.ServerRunner(media, shutdown_timeout=SHUTDOWN_SECONDS)
            self._media.origin = await self._listen(stack, runner, self.settings.media_port)
            api = web.AppRunner(
                self._api.app(self, self._listings.routes()),
                handler_cancellation=True,
                access_log=None,
                shutdown_timeout=SHUTDOWN_SECONDS,
            )
            self._api_url = await self._listen(stack, api, self.settings.api_port)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    @property
    def api_url(self) -> str:
        """Such as "http://127.0.0.1:40001"; known once entered."""
        return self._api_url

    @property
    def media_url(self) -> str:
        """The second origin; known once entered."""
        return self._media.origin

    @property
    def bot_id(self) -> str:
        return self.settings.bot_id

    @property
    def client_id(self) -> str:
        return self.settings.client_id

    @property
    def client_secret(self) -> str:
        return self.settings.client_secret

    @property
    def reject_credentials(self) -> bool:
        """True: every API call of every bot is answered 401."""
        return self._api.reject_credentials

    @reject_credentials.setter
    def reject_credentials(self, reject: bool) -> None:
        self._api.reject_credentials = reject

    def add_bot(self, bot_id: str, client_id: str, client_secret: str, account_id: str | None = None) -> None:
        """Add a bot, or give an existing one other credentials; what counted against its rate limit still does.

        Without `account_id` it is one of the account of the settings.
        """
        account_id = account_id or self.settings.account_id
        if (bot := self._api.bots.get(bot_id)) is None:
            self._api.bots[bot_id] = Bot(bot_id, client_id, client_secret, account_id)
        else:
            bot.client_id, bot.client_secret, bot.account_id = client_id, client_secret, account_id

    def add_bots(self, data: Any) -> int:
        """`add_bot` for one JSON object with its arguments, or a list of them; how many. Raises ValueError, and then none was."""
        bots = [parse(AddedBot, each, "bot") for each in (data if isinstance(data, list) else [data])]
        for bot in bots:
            self.add_bot(bot.bot_id, bot.client_id, bot.client_secret, bot.account_id)
        return len(bots)

    def script(self, script: SessionScript | Mapping[str, Any]) -> None:
        """Add a session, or replace one: its timeline and faults begin anew, its report goes on. Its times count from now.

        Raises ValueError that names what is wrong with the script.
        """
        self.script_all([script])

    def script_all(self, data: Any) -> int:
        """`script` for one JSON script or a list of them; how many. Raises ValueError, and then none was added."""
        given = time.monotonic()
        scripts = data if isinstance(data, list) else [data]
        sessions = [self._prepare(script, given) for script in scripts]
        for session in sessions:
            if session.script.session_id == EVERY_OTHER:
                self._forget_stand_ins(keep=0)
                self._every_other = session.script, given
            else:
                self._install(session)
        return len(sessions)

    def set_history(self, data: HistoryScript | Mapping[str, Any]) -> dict[str, Any]:
        """Take another history in place of the one there is, or let what is failing in that one succeed (`recovered` alone).

        Its times and numbers of listings count from now. Returns how many `calls` it has, how many of them are `voice`
        calls, and whether it has `recovered`. Raises ValueError that names what is wrong, and then nothing was changed.
        """
        script = data if isinstance(data, HistoryScript) else HistoryScript.from_json(data)
        history = self._listings.history
        if script.calls is None and script.made is None:
            history.recovered = bool(script.recovered)
            changed = [each for each in self._stand_ins if (call := history.find(each)) and call.recording == "failing"]
        else:
            before, history = history, History(script)
            changed = [each for each in self._stand_ins if before.find(each) or history.find(each)]
            self._listings.history = history
        for session_id in changed:
            self._uninstall(session_id)
        return {"calls": len(history), "voice": history.voice, "recovered": history.recovered}

    def calls(self, begin: datetime | None = None, end: datetime | None = None) -> list[Call]:
        """The voice calls of the history that started from `begin` up to, and not at, `end`; oldest first.

        Voicemails are among them, and calls that the listings don't show yet.
        """
        first = -MOST_MS if begin is None else unix_ms(begin)
        last = MOST_MS if end is None else unix_ms(end) - 1
        return self._listings.history.voice_calls(first, last)

    def alter(self, data: Any) -> dict[str, Any]:
        """Change some of the alterable settings, or `reject_credentials`; returns all of them as they are then.

        Raises ValueError that names the wrong key, and then nothing was changed.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"settings are a JSON object, not {type(data).__name__}")  # noqa: TRY004
        if unknown := set(data) - ALTERABLE - {"reject_credentials"}:
            known = ", ".join(sorted(ALTERABLE | {"reject_credentials"}))
            raise ValueError(f"settings: {', '.join(sorted(map(str, unknown)))} cannot be changed; {known} can")
        reject = data.get("reject_credentials", self.reject_credentials)
        if not isinstance(reject, bool):
            raise ValueError(f"settings: reject_credentials: {reject!r} is not true or false")  # noqa: TRY004
        changes = {key: value for key, value in data.items() if key in ALTERABLE}
        try:
            checked = SimulatorSettings.model_validate(self.settings.model_dump() | changes)
        except ValidationError as error:
            raise ValueError(f"settings: {describe(error)}") from error
        for key in changes:
            setattr(self.settings, key, getattr(checked, key))
        self.reject_credentials = reject
        if "source_retention_days" in changes:
            self._forget_stand_ins(keep=0)
        now = self.settings.model_dump(mode="json", include=set(ALTERABLE))
        return now | {"reject_credentials": self.reject_credentials}

    def report(self) -> dict[str, Any]:
        """What has been asked and answered so far, JSON-safe; `tally.py` says what each number counts.

        `max_in_window` is the most calls let through in any sliding minute and hour: of an account, call details and all; in
        `listings`, of a bot's sessions history.
        """
        return {
            "api": self._api.tally.as_json(_most(self._api.accounts.values())),
            "media": self._media.tally.as_json(),
            "listings": self._listings.tally.as_json(_most(bot.windows for bot in self._api.bots.values())),
        }

    def sha256_of(self, session_id: str) -> list[str]:
        """The hashes (hexadecimal) of a session's recordings as they truly are, in the order of the answer.

        Raises KeyError for a session that was never scripted and is no call of the history. The first call for a large
        recording blocks a while.
        """
        if session_id not in self._api.sessions and self._listings.history.find(session_id) is not None:
            self._stand_in(session_id)
        return [recording.sha256() for recording in self._api.sessions[session_id].recordings]

    async def wait_for(self, predicate: Callable[[dict[str, Any]], bool], timeout: float = 10.0) -> dict[str, Any]:
        """Return the first report that `predicate` is true of; it looks again after each request. Else TimeoutError."""
        report = self.report()
        try:
            async with asyncio.timeout(timeout):
                while not predicate(report):
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
                    report = self.report()
        except TimeoutError:
            raise TimeoutError(f"not within {timeout} s; the last report: {report}") from None
        return report

    def _changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _prepare(self, script: SessionScript | Mapping[str, Any], given: float) -> Session:
        if not isinstance(script, SessionScript):
            script = SessionScript.from_json(script)
        turn = self._turns.setdefault(script.session_id, len(self._turns))
        return Session(script, turn=turn, given=given, bot_id=self.bot_id, folder=self._folder)

    def _stand_in(self, session_id: str) -> Session | None:
        """A session after its call in the history, else after the script for every other, in bounded memory."""
        days = self.settings.source_retention_days
        kept_from = None if days is None else unix_ms(datetime.now(UTC) - timedelta(days=days))
        own, given = self._listings.history.script_of(session_id, kept_from), time.monotonic()
        if own is None:
            if self._every_other is None:
                return None
            script, given = self._every_other
            own = script.model_copy(update={"session_id": session_id})
        session = Session(own, turn=self._stand_ins_made, given=given, bot_id=self.bot_id, folder=self._folder)
        self._stand_ins_made += 1
        self._forget_stand_ins(keep=STAND_INS - 1)
        self._install(session)
        self._stand_ins[session_id] = None
        return session

    def _forget_stand_ins(self, *, keep: int) -> None:
        while len(self._stand_ins) > keep:
            self._uninstall(next(iter(self._stand_ins)))

    def _uninstall(self, session_id: str) -> None:
        self._stand_ins.pop(session_id, None)
        session = self._api.sessions.pop(session_id, None)
        for recording in session.recordings if session is not None else ():
            for path in recording.paths:
                self._media.recordings.pop(path, None)

    def _install(self, session: Session) -> None:
        self._uninstall(session.script.session_id)
        self._api.sessions[session.script.session_id] = session
        for recording in session.recordings:
            self._media.recordings.update(dict.fromkeys(recording.paths, recording))

    async def _listen(self, stack: AsyncExitStack, runner: web.BaseRunner, port: int) -> str:
        """Start `runner` on `port`; its URL."""
        stack.push_async_callback(_drop, runner)
        await runner.setup()
        await web.TCPSite(runner, self.settings.host, port).start()
        host = self.settings.public_host or self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"


def _most(counters: Iterable[SlidingWindows]) -> dict[str, int]:
    """The most calls that any of the counters held in any minute and hour."""
    most = [counter.most for counter in counters]
    return {window: max((each[window] for each in most), default=0) for window in ("minute", "hour")}


async def _drop(runner: web.BaseRunner) -> None:
    # Listeners first, or a client could come back; then the connections, because aiohttp would wait for their answers.
    for site in list(runner.sites):
        await site.stop()
    if isinstance(server := runner.server, web.Server):
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()
    await runner.cleanup()
