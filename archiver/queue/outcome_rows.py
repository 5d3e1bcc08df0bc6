"""How the outcomes of attempts are written: the parameters of the statement settle/outcomes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, assert_never

from archiver.config import RetrySettings
from archiver.outcome import Archived, Failed, HandedBack, NotReady, Outcome, Retry, Unavailable
from archiver.postgres.json_codec import to_json
from archiver.session import Attempt, Session

MAX_ASKS = 10_000
"""So often a recheck that is answered "in progress" is put off at most, however short the delays."""

TOLD_OF_SHA256 = 12
"""Characters of a stored file's hash by which its line in the history finds its row, beside its ordinal."""

ASKED = {"http_status", "status", "answer"}
"""What is noted of every call."""

_MICROSECOND = timedelta(microseconds=1)


class OutcomeRows:
    """Applies the configured retries to outcomes."""

    def __init__(self, retry: RetrySettings) -> None:
        self._retry = retry
        self._max_recheck_asks = _asks_in_progress(retry)

    def parameters(self, ended: Sequence[tuple[Attempt, Outcome]]) -> dict[str, Any]:
        """One entry an attempt in each array. `ended` is not empty."""
        names, reasons, details, delays = zip(*(self._terms(attempt.session, outcome) for attempt, outcome in ended), strict=True)
        return {
            "ids": [attempt.session.id for attempt, _ in ended],
            "epochs": [attempt.session.epoch for attempt, _ in ended],
            "outcomes": names,
            "reasons": reasons,
            "details": details,
            "delays": delays,
            "calls": [attempt.calls for attempt, _ in ended],
            "stores": [bool(attempt.stored) for attempt, _ in ended],
            "listed": [attempt.listed for attempt, _ in ended],
            "keeps": [_nothing_new(attempt, outcome) for attempt, outcome in ended],
            "final": [isinstance(outcome, Unavailable) and outcome.final for _, outcome in ended],
            "files": [{"n": n, **file.as_row()} for n, (attempt, _) in enumerate(ended, 1) for file in attempt.stored],
            "lines": [to_json(lines) if (lines := _lines(attempt)) else None for attempt, _ in ended],
            "max_attempts": self._retry.max_attempts,
            "not_ready_give_up": self._retry.not_ready_give_up,
            "max_recheck_asks": self._max_recheck_asks,
            "recheck_unavailable": self._retry.recheck_unavailable,
        }

    def _terms(self, session: Session, outcome: Outcome) -> tuple[str, str | None, dict[str, Any], timedelta]:
        """Name, reason, detail, and after how long the session is due again."""
        none = timedelta(0)
        match outcome:
            case Archived():
                return outcome.name, None, {}, none
            case NotReady(status):
                delays = self._retry.not_ready_delays
                return outcome.name, status, {}, delays[min(session.checks, len(delays) - 1)]
            case Unavailable(reason, detail) | Failed(reason, detail):
                return outcome.name, reason, detail, none
            case Retry(reason, detail):
                seconds = self._retry.backoff_base.total_seconds() * 2.0 ** min(session.failures, 100)
                ceiling = min(seconds, self._retry.backoff_max.total_seconds())
                return outcome.name, reason, detail, timedelta(seconds=ceiling * random.random())  # noqa: S311  # jitter, no secret
            case HandedBack(reason, after, detail):
                return outcome.name, reason, detail, after
            case _:
                assert_never(outcome)


def _lines(attempt: Attempt) -> list[list[Any]]:
    """What was noted, as `archive_events.lines` has it. What a stored file's row will say is left to that, where it cannot be
    confused with another's.
    """
    began = attempt.session.claimed_at
    ordinals = [file.ordinal for file in attempt.stored]
    files = {} if attempt.session.known else {file.ordinal: file for file in attempt.stored if ordinals.count(file.ordinal) == 1}
    lines: list[list[Any]] = []
    for event in attempt.events:
        line = [event["event"], (datetime.fromisoformat(event["at"]) - began) // _MICROSECOND, event["data"]]
        file = files.get(event["data"].get("ordinal")) if event["event"] == "stored" else None
        if file is not None and (row := file.as_row()).items() <= event["data"].items():
            rest = {key: value for key, value in event["data"].items() if key not in row}
            line[2:] = [rest, file.ordinal, file.sha256[:TOLD_OF_SHA256]]
        elif event["event"] == "asked" and event["data"].keys() == ASKED:
            line[2:] = [event["data"]["http_status"], event["data"]["status"], event["data"]["answer"]]
        lines.append(line)
    return lines


def _asks_in_progress(retry: RetrySettings) -> int:
    """How many asks that are answered "in progress" fill the time after which that is given up."""
    asks, waited = 1, timedelta(0)
    while waited < retry.not_ready_give_up and asks < MAX_ASKS:
        waited += retry.not_ready_delays[min(asks, len(retry.not_ready_delays)) - 1]
        asks += 1
    return asks


def _nothing_new(attempt: Attempt, outcome: Outcome) -> bool:
    """No file is known of that isn't stored: a session that was archived before may be archived again."""
    return not attempt.missing and not (isinstance(outcome, Failed) and outcome.reason == "too_many_files")
