"""What sessions are archived with: the bot that serves them, and the archive that they go to."""

from __future__ import annotations

from dataclasses import dataclass, field

from archiver.archive.media import MediaClient
from archiver.archive.naming import MAX_NAME_BYTES, MIN_NAME_BYTES
from archiver.archive.transfer import Target
from archiver.config import BotSettings, RetrySettings, TransferSettings
from archiver.config.path_template import QUARANTINE, PathTemplate
from archiver.kore.client import KoreClient
from archiver.observe.transfers import Transfers
from archiver.queue.quota import Quota
from archiver.session import Session
from archiver.stores import Store

QUARANTINE_PREFIX = 32
"""Bytes that a name begins with in quarantine, at most: epoch, length, and a dash after each."""


@dataclass(frozen=True)
class BotAccess:
    """All that is needed to serve one bot. `quota`: for recordings, voicemail and call details; bots of an account share it."""

    settings: BotSettings
    client: KoreClient
    media: MediaClient
    quota: Quota
    sessions_quota: Quota


@dataclass(frozen=True)
class Archive:
    """Where recordings go and under which terms. `transfers` is told of all that arrives."""

    store: Store
    path: PathTemplate
    retry: RetrySettings
    terms: TransferSettings = field(default_factory=TransferSettings)
    transfers: Transfers = field(default_factory=Transfers)
    longest_name: int | None = None
    """Bytes of the longest name that the store takes; None: only whole keys have a limit."""

    def max_file_name(self, session: Session) -> int:
        """Bytes that the name of a file of this session may have: what lies beside it in the last part of the path takes some,
        and what a name begins with in quarantine.
        """
        if self.longest_name is None:
            return MAX_NAME_BYTES
        beside = len(self._key(session, "").rpartition("/")[2].encode())
        return max(MIN_NAME_BYTES, min(MAX_NAME_BYTES, self.longest_name - max(beside, QUARANTINE_PREFIX)))

    def _key(self, session: Session, file_name: str) -> str:
        return self.path.render(
            bot=session.bot,
            date=session.archive_date,
            session_id=session.session_id,
            kind=session.kind,
            file_name=file_name,
        )

    def target(self, session: Session, file_name: str, taken: int) -> Target:
        """Where one file of a session goes, whose others take so many bytes. A rejected body is kept when nothing else comes."""
        key = self._key(session, file_name)
        folder = "/".join((QUARANTINE, *key.split("/")[:-1]))
        last = session.failures + 1 >= self.retry.max_attempts
        left, longest = max(self.terms.max_session - taken, 0), self.terms.max_recording
        return Target(
            key,
            file_name,
            session.part_name,
            f"{folder}/{session.epoch}-",
            keep_rejected=last,
            limit=min(left, longest),
            limited_by="transfer.max_session" if left < longest else "transfer.max_recording",
        )
