"""Whether the store has the ledger that the database knows: said before a sealer refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from archiver.health.evidence_checks import check_ledger
from tests.evidence.sealing import SealedArchive, copied_database, sealed_archive
from tests.evidence.test_sealer import archive

__all__ = ["archive"]

pytestmark = pytest.mark.once


async def told(archive: SealedArchive) -> str:
    finding = await check_ledger(archive.ledger, archive.store)
    if finding is None:
        return ""
    assert (finding.check, finding.verdict, bool(finding.hint)) == ("evidence: store", "failure", True)
    return finding.message


async def test_the_store_has_what_the_database_knows_or_it_is_said(archive: SealedArchive) -> None:
    assert await told(archive) == ""
    await archive.sealer.finish()
    await archive.end("s-1", files={"a.wav": b"one"})
    assert await told(archive) == ""
    await archive.sealer.finish()
    assert await told(archive) == ""
    (archive.root / "evidence/claim/000000000002").write_bytes(b"of another database")
    assert "the database is an older one" in await told(archive)
    shutil.rmtree(archive.root / "evidence")
    assert "lacks evidence/checkpoint/000000000002" in await told(archive)


async def test_a_database_without_a_ledger_beside_a_store_with_one(database_url: str, tmp_path: Path) -> None:
    async with copied_database(database_url) as other_url:
        async with sealed_archive(database_url, tmp_path) as archive:
            await archive.sealer.finish()
        async with sealed_archive(other_url, tmp_path) as other:
            assert "this database has none" in await told(other)
