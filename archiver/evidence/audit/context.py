"""What all parts of an audit have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from archiver.config.path_template import PathTemplate
from archiver.evidence.audit.fetching import Reader
from archiver.evidence.audit.report import Findings, Report
from archiver.evidence.audit.scratch import Scratch
from archiver.evidence.checkpoints import SignedCheckpoint
from archiver.evidence.entries import Entry
from archiver.evidence.keys import PublicKey
from archiver.queue.audit import LedgerHead, Unpublished


@dataclass(frozen=True)
class Wanted:
    """What to audit, and by what to judge. `sample`: the part of the records that is read each day; `since`: a checkpoint that
    was kept elsewhere; `replica`: the store is a copy, which may be behind; `key`: the public half of the key that seals here;
    `asked`: the key of an object of which the report says whether nobody recorded it; `rebuild_from`: entries from there on are
    read to be put into a database, and not held against one.
    """

    path: PathTemplate
    patience: timedelta
    deep: bool = False
    sample: Fraction | None = None
    since: SignedCheckpoint | None = None
    replica: bool = False
    key: PublicKey | None = None
    trusted: frozenset[str] = frozenset()
    asked: str | None = None
    rebuild_from: int | None = None


@dataclass
class Audit:
    """One that is under way. `now`, `head`, `unpublished`: of the moment at which the database was read; `newest_head`: as it was
    when the list of the ledger's objects was complete. `told`: entries that were read, from the first on; `due`: entries whose
    records have to be in the store; `lost`: ranges of entries that could not be read, or are not to be believed;
    `rebuilt`: what entries say of databases that were rebuilt; `accounts`: the highest number of an account.
    """

    wanted: Wanted
    scratch: Scratch
    reader: Reader
    report: Report
    now: datetime
    head: LedgerHead | None = None
    newest_head: LedgerHead | None = None
    unpublished: Unpublished | None = None
    told: int = 0
    due: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    rebuilt: list[tuple[int, Entry]] = field(default_factory=list)
    accounts: int = 0
    on_progress: Callable[[str, int], None] = lambda what, count: None

    @property
    def findings(self) -> Findings:
        """What was found by now."""
        return self.report.findings

    @property
    def size(self) -> int:
        """Entries that the database had."""
        return self.head.size if self.head is not None else 0

    @property
    def published(self) -> int:
        """Of these, those of which it knew that the store has them."""
        return self.head.published if self.head is not None else 0

    def is_given_up(self, first: int, last: int) -> bool:
        """Whether these sizes are between what a database was rebuilt from and what was given up then."""
        return any(entry.body["size"] <= first and last <= entry.body["given_up"] for _, entry in self.rebuilt)

    def lose(self, first: int, last: int) -> None:
        """These entries cannot be believed."""
        if self.lost and self.lost[-1][1] + 1 >= first:
            first, last = self.lost[-1][0], max(last, self.lost.pop()[1])
        self.lost.append((first, last))
