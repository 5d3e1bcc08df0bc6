"""Which of the sessions that people give can be enqueued: their IDs, bots, kinds and times."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archiver.cli.session_files import LineError
from archiver.config import Settings
from archiver.errors import UsageError
from archiver.observe.redact import MAX_TEXT, redact, redact_value
from archiver.queue.sessions import NewSession
from archiver.session import MAX_METADATA, MAX_USER_ID, SESSION_ID_ALPHABET

KINDS = ("recording", "voicemail")
PRIORITIES = ("high", "normal", "low")

FIRST_YEAR = 2010
"""There was no platform before."""

MAX_AHEAD = timedelta(days=1)
"""A call may lie so far ahead of the database's clock: clocks differ, and a time without its zone, which is taken for UTC, is up
to 14 hours ahead. More is a slip.
"""

_EXAMPLE = "2026-03-31T08:00:00+02:00"
_NUMBER = re.compile(r"(\d{5}|\d{10}|\d{13}|\d{16}|\d{19})(?:[.,]\d+)?")
_UNITS = {10: ("seconds", 1), 13: ("milliseconds", 1e3), 16: ("microseconds", 1e6), 19: ("nanoseconds", 1e9)}
_YEAR_LAST = re.compile(r"\d{1,2}([./-])\d{1,2}\1(\d{4}|\d{2})(?!\d).*", re.DOTALL)


@dataclass(frozen=True)
class Default:
    """What holds for a session that doesn't say it itself. No bot: only a file's own column can say."""

    bot: str | None
    kind: str
    priority: str


class Judge:
    """Turns the columns of a record into a session. `now` is the database's time."""

    def __init__(self, settings: Settings, default: Default, now: datetime) -> None:
        self._bots = [bot.name for bot in settings.bots]
        self._default = default
        self._latest = now + MAX_AHEAD
        self._now = now

    def session(self, record: Mapping[str, str], *, exactly: bool = False) -> NewSession:
        """The session; `exactly`: white space around its ID is no slip of a file, but part of it. Raises LineError, and
        UsageError where no bot is said at all.
        """
        values = {key: value.strip() for key, value in record.items()}
        stripped = values.pop("session_id")
        session_id = record["session_id"] if exactly else stripped
        if not re.fullmatch(r"[A-Za-z0-9._:-]{1,200}", session_id):
            raise LineError(f"not a session ID ({SESSION_ID_ALPHABET})")
        bot = self._bot(values.pop("bot", ""), has_column="bot" in record)
        kind = values.pop("kind", "") or self._default.kind
        if kind not in KINDS:
            raise LineError(f'unknown kind "{redact(kind)[:100]}" (recording or voicemail)', "unknown kind")
        priority = values.pop("priority", "") or self._default.priority
        if priority not in PRIORITIES:
            raise LineError(f'unknown priority "{redact(priority)[:100]}" (high, normal or low)', "unknown priority")
        user_id = values.pop("user_id", "") or None
        if user_id is not None and (len(user_id) > MAX_USER_ID or not user_id.isprintable()):
            raise LineError(f"a user_id of more than {MAX_USER_ID} or of unprintable characters")
        started_at, ended_at = (self._instant(key, values.pop(key, "")) for key in ("started_at", "ended_at"))
        if started_at is not None and ended_at is not None and ended_at < started_at:
            raise LineError(
                f"ended_at {ended_at.isoformat()} lies before started_at {started_at.isoformat()}", "ended_at before started_at"
            )
        metadata = {key: value for key, value in values.items() if key and value}
        if (size := len(json.dumps(metadata, ensure_ascii=False).encode())) > MAX_METADATA:
            raise LineError(f"metadata (all other columns) of {size:,} bytes, at most {MAX_METADATA:,}", "metadata too large")
        if (longest := max(map(len, metadata.values()), default=0)) > MAX_TEXT:
            raise LineError(f"a column of {longest:,} characters, at most {MAX_TEXT:,}", "column too long")
        # The platform's own exports may hold signed URLs.
        return NewSession(bot, session_id, kind, priority, user_id, started_at, ended_at, redact_value(metadata))

    def _bot(self, given: str, *, has_column: bool) -> str:
        bot = given or self._default.bot
        if bot is None and has_column:
            raise LineError("no bot, and several are configured" if self._bots else "no bot")
        if bot is None:
            known = ", ".join(self._bots)
            raise UsageError(
                "which bot?",
                hint=f"name it with --bot: {known}" if known else "no bot is configured: name it with --bot, or configure it",
            )
        if self._bots and bot not in self._bots:
            raise LineError(f'unknown bot "{redact(bot)[:100]}"', "unknown bot")
        return bot

    def _instant(self, key: str, text: str) -> datetime | None:
        if not text:
            return None
        shown = f'{key} "{redact(text)[:100]}"'
        try:
            # Python takes some of these for a week or an hour without a colon.
            found = None if _NUMBER.fullmatch(text) else datetime.fromisoformat(text)
        except ValueError:
            found = None
        if found is None:
            raise LineError(
                f"{shown} is {_no_time(text)}; write it like {_EXAMPLE}", f"{key} {_no_time(text).partition(' (')[0]}"
            )
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        if found.year < FIRST_YEAR:
            raise LineError(f"{shown} lies before {FIRST_YEAR}, when there was no platform", f"{key} too early")
        if found.year > self._latest.year + 1 or found > self._latest:  # at the end of time another zone's instant cannot be told
            raise LineError(f"{shown} lies {_ahead(found, self._now)} ahead: no call has begun then", f"{key} ahead")
        return found


def _no_time(text: str) -> str:
    """What a text is that is no ISO 8601."""
    if number := _NUMBER.fullmatch(text):
        digits = number[1]
        if len(digits) == 5:
            return "not ISO 8601, but a spreadsheet's number of a day"
        unit, per_second = _UNITS[len(digits)]
        moment = datetime.fromtimestamp(int(digits) / per_second, UTC)
        return f"not ISO 8601, but a number of {unit} since 1970 ({moment.isoformat(timespec='seconds')})"
    if _YEAR_LAST.fullmatch(text):
        return "not ISO 8601: the year must come first, then month and day"
    return "not ISO 8601"


def _ahead(moment: datetime, now: datetime) -> str:
    if (years := moment.year - now.year) > 1:
        return f"{years:,} years"
    days = (moment - now).days
    return f"{days:,} days" if days > 1 else "1 day"
