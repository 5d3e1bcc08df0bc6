"""Each session: what the ledger says of it, held against its row; and what has to be in the store because of that."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.entries import BEYOND, TO_ADOPT
from archiver.evidence.audit.fold import ENDED, OPEN, Fold, Row, Step, compare
from archiver.evidence.audit.tables import OUTBOX_AT
from archiver.evidence.audit.told import changed_for_ever, session_of, unpacked


class _Noted(NamedTuple):
    """A row of `steps`."""

    name: bytes
    at: int
    event: str
    state: str
    files: bytes | None
    pairs: int
    queue_id: int | None
    flags: int
    digest: bytes | None
    fixed: bytes | None
    record: bytes | None
    record_key: bytes | None
    record_bytes: int | None

    @property
    def step(self) -> Step:
        """As it is folded."""
        what = f"entry {self.at}" if self.at < OUTBOX_AT else "what waits to be sealed"
        return Step(what, self.event, self.state, None if self.files is None else unpacked(self.files), self.pairs)


def _changed(before: _Noted | None, noted: _Noted) -> list[str]:
    """What a row of the outbox changes that the one before it says otherwise, and that never changes."""
    if before is None or before.fixed is None or noted.fixed is None:
        return []
    return [
        f"what waits to be sealed changes {name}" for name in changed_for_ever(json.loads(before.fixed), json.loads(noted.fixed))
    ]


class Sessions:
    """All of an audit, in the order of their names."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._scratch = audit.scratch
        self._findings = audit.findings

    def check(self) -> Iterator[None]:
        """Hold each against its row; yields after each."""
        self._some_untold = self._scratch.one("SELECT 1 FROM untold LIMIT 1") is not None
        steps = map(_Noted._make, self._scratch.rows("SELECT * FROM steps ORDER BY name, at"))
        for number, (name, of_session) in enumerate(itertools.groupby(steps, key=lambda step: step.name), 1):
            self._check(name, of_session)
            self._audit.on_progress("compared", number)
            yield

    def _check(self, name: bytes, steps: Iterator[_Noted]) -> None:
        fold, session = Fold(), session_of(name)
        row: _Noted | None = None
        record: _Noted | None = None
        last: _Noted | None = None
        wrong: list[str] = []
        before = prior = -1
        for noted in steps:
            if noted.event == "row":
                if row is not None:
                    self._findings.add("row_unrecorded", "the database has it twice", session=session)
                row = row or noted
                continue
            if noted.record is not None:
                if record is not None:
                    self._expect(record, prior=prior)
                record, prior = noted, before
            before = noted.at
            if noted.flags & BEYOND:
                continue
            found = [*fold.take(noted.step), *_changed(last, noted)]
            wrong, last = wrong or found[:1], noted
        told = self._audit.head is not None and not (row is not None and self._is_untold(row))
        differs = self._compare(fold, row, wrong, session) if told else False
        waiting = last if last is not None and last.at >= OUTBOX_AT else None
        ended = told and row is not None and row.state in ENDED
        if ended and waiting is not None and waiting.digest != row.digest and not differs:  # type: ignore[union-attr]
            self._findings.add("row_differs", "the database says something else than what waits to be sealed", session=session)
        is_open = told and row is not None and row.state in OPEN
        if is_open:
            self._check_open(fold, row, waiting, session)  # type: ignore[arg-type]
        elif ended and record is None and waiting is None and fold.state and row.pairs and not fold.count:  # type: ignore[union-attr]
            # No record has its transcriptions; without audio it cannot have any.
            message = f"the database has {row.pairs} files, and {fold.last} {fold.count}"  # type: ignore[union-attr]
            self._findings.add("row_unrecorded", message, session=session)
        if row is not None and (fold.damaged or (waiting is not None and self._audit.wanted.replica)):
            self._scratch.add("marks", row.queue_id, fold.damaged, waiting is not None)
        if record is not None:
            # The newest record says what the row says, if nothing else came of the session since.
            held = row if (ended or is_open) and waiting is None and not record.flags & BEYOND else None
            self._expect(record, prior=prior, suspect=differs, row=held, waiting=waiting)

    def _check_open(self, fold: Fold, row: _Noted, waiting: _Noted | None, session: tuple[str, str]) -> None:
        """One that was brought back keeps what it had; what came since is not recorded yet."""
        if waiting is not None and waiting.fixed is not None and row.fixed is not None:
            changed = changed_for_ever(json.loads(waiting.fixed), json.loads(row.fixed))
            for name in changed[:1]:
                message = f"the database lacks, or has another, {name} than what waits to be sealed"
                self._findings.add("row_differs", message, session=session)
        known = fold.count if fold.state is not None else 0
        files = len(unpacked(row.files or b"")) if fold.state is not None else row.pairs
        self._audit.report.pending_objects += max(files - known, 0)

    def _is_untold(self, row: _Noted) -> bool:
        return self._some_untold and self._scratch.look("SELECT 1 FROM untold WHERE queue_id = ?", row.queue_id) is not None

    def _compare(self, fold: Fold, row: _Noted | None, wrong: list[str], session: tuple[str, str]) -> bool:
        """Whether the row is not what the ledger says."""
        for message in wrong:
            self._findings.add("contradiction", message, session=session)
        if fold.state is None:
            if row is not None and row.state in ENDED:
                if row.flags & TO_ADOPT:
                    self._audit.report.to_adopt += 1
                else:
                    self._findings.add("row_unrecorded", f"{row.state}, and the ledger does not have it", session=session)
            return False
        if row is None:
            self._findings.add("row_missing", f"the database does not have it; {fold.last} says {fold.state}", session=session)
            return True
        found = list(compare(fold, Row(row.state, unpacked(row.files or b""))))
        for name, message in found:
            self._findings.add(name, message, session=session)
        return bool(found)

    def _expect(
        self, noted: _Noted, *, prior: int, suspect: bool = False, row: _Noted | None = None, waiting: _Noted | None = None
    ) -> None:
        values: tuple[Any, ...] = (noted.at, noted.name, noted.record_key, noted.record_bytes, noted.record)
        due = noted.at < self._audit.due
        # One that is open says less than its record: what never changes alone is held against that.
        held = (None, None) if row is None else (row.queue_id, row.digest if row.state in ENDED else None)
        fixed = waiting or (row if row is not None and row.state in OPEN else None)
        self._scratch.add("records", *values, due, suspect, *held, None if fixed is None else fixed.fixed, prior)
