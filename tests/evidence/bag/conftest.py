from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.evidence.bag.bagging import export, filled
from tests.evidence.sealing import SealedArchive, sealed_archive


@pytest.fixture(scope="session")
def handed_out(postgres: str, template: str, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bag for all tests of a process."""
    folder = tmp_path_factory.mktemp("handed-out")
    name = f"bagged_{worker_id}"

    async def make() -> None:
        connection = await asyncpg.connect(postgres)
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        await connection.close()
        async with sealed_archive(postgres.rpartition("/")[0] + f"/{name}", folder) as archive:
            await filled(archive)
            await export(archive, folder / "bag")

    asyncio.run(make())
    return folder / "bag"


@pytest.fixture
def bag(handed_out: Path, tmp_path: Path) -> Path:
    """A copy of it, to be edited."""
    return Path(shutil.copytree(handed_out, tmp_path / "bag"))


@pytest.fixture
async def archive(database_url: str, tmp_path: Path) -> AsyncIterator[SealedArchive]:
    """A sealed archive of this test's own."""
    async with sealed_archive(database_url, tmp_path) as made:
        await filled(made)
        yield made
