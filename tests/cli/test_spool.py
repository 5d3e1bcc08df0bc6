"""What is kept until the last line is judged comes back as it was, or is an error with a next step."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver.cli.spool import Spool
from archiver.errors import ArchiverError
from archiver.queue.sessions import NewSession

BATCHES = [
    [NewSession("bot", "s1", started_at=datetime(2026, 3, 31, tzinfo=UTC), metadata={"note": "a\nb"}), NewSession("bot", "s2")],
    [NewSession("bot", "s3", "voicemail", "high", "u-1")],
]


@pytest.mark.parametrize("in_memory", [1, 1 << 20])
def test_what_was_kept_comes_back_in_order(in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool(in_memory) as spool:
        for batch in BATCHES:
            spool.keep(batch)
        assert list(spool.batches()) == BATCHES
        assert list(tmp_path.iterdir()) == [], "it has no name"


def test_no_room_for_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with Spool(1) as spool, pytest.raises(ArchiverError, match="temporary file") as failed:
        spool.keep(BATCHES[0])
    assert "TMPDIR" in failed.value.hint
