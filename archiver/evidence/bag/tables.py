"""The lists of a bag, written as it goes: its manifest, the load file for review platforms, the account of what was chosen."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TextIO

from archiver.evidence.bag.session import Handed
from archiver.observe.cells import cell
from archiver.queue.call_facts import agents_of

MANIFEST, LOADFILE, ACCOUNT = "manifest-sha256.txt", "loadfile.csv", "account.csv"

LOADFILE_COLUMNS = (
    "session", "bot", "kind", "started_at", "ended_at", "seconds", "caller", "agent", "path", "bytes", "sha256", "ledger_index",
    "callee", "direction", "file_name", "media_type",
)  # fmt: skip
ACCOUNT_COLUMNS = (
    "session", "bot", "kind", "state", "reason", "started_at", "files", "ledger_index", "accepted_by", "accepted_because",
    "exported", "folder",
)  # fmt: skip


class Tables:
    """Three files in a folder of their own. `octets`: bytes of the bag's payload, which has `payload` files."""

    def __init__(self, folder: Path) -> None:
        self.octets = 0
        self.payload = 0
        self._manifest = _new(folder / MANIFEST)
        self._files = [self._manifest, _new(folder / LOADFILE), _new(folder / ACCOUNT)]
        self._loadfile, self._account = (csv.writer(file, quoting=csv.QUOTE_ALL) for file in self._files[1:])
        self._loadfile.writerow(LOADFILE_COLUMNS)
        self._account.writerow(ACCOUNT_COLUMNS)

    @classmethod
    def begun(cls, work: Path) -> Self:
        """New ones. Raises OSError."""
        folder = work / "tags"
        folder.mkdir(mode=0o750, exist_ok=True)
        return cls(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for file in self._files:
            with suppress(OSError):  # what matters was saved
                file.close()

    def save(self) -> None:
        """They are whole: make them durable. Raises OSError."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())

    def add(self, folder: str, handed: Handed) -> None:
        """A session that lies in this folder of the bag."""
        for name, sha256, size in handed.listed:
            self._manifest.write(f"{sha256}  {folder}/{name}\n")
            self.octets += size
            self.payload += 1
        record, index = handed.proven.record, handed.proven.proof.index
        call = record.call if isinstance(record.call, Mapping) else {}
        about = (record.session_id, record.bot, record.kind, record.started_at, record.ended_at)
        for name, file in handed.files:
            who = call.get("caller"), "; ".join(agents_of(call))
            where = f"{folder}/{name}", file.bytes, file.sha256, index
            more = call.get("callee"), call.get("direction"), file.file_name, file.media_type
            _write(self._loadfile, (*about, file.seconds, *who, *where, *more))
        accepted = record.accepted
        said = {
            "session": record.session_id,
            "bot": record.bot,
            "kind": record.kind,
            "state": record.state,
            "reason": record.reason,
            "started_at": record.started_at,
            "files": len(record.files),
            "accepted_by": accepted and accepted.by,
            "accept_reason": accepted and accepted.because,
        }
        self.account(said, index, "", folder)

    def account(self, said: Mapping[str, Any], index: int | None, why_not: str, folder: str = "") -> None:
        """A session that was chosen; empty `why_not`: it is in the bag, in this folder."""
        columns = ("session", "bot", "kind", "state", "reason", "started_at", "files")
        about = [said.get(column) for column in columns]
        exported = f"no: {why_not}" if why_not else "yes"
        _write(self._account, (*about, index, said.get("accepted_by"), said.get("accept_reason"), exported, folder))


def _new(path: Path) -> TextIO:
    """In place of what an export left that was ended."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w", encoding="utf-8", newline="")


def _write(writer: Any, values: Iterable[object]) -> None:
    writer.writerow(map(cell, values))
