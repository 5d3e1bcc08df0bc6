"""What the tests of one session's way have, too; and copies of a small sealed archive, to be edited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.archive.conftest import harness
from tests.evidence.audited import Copy, Original, copied, make_original

__all__ = ["harness"]


@pytest.fixture(scope="session")
def original(postgres: str, template: str, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Original:
    """One for all of them."""
    return make_original(postgres, template, worker_id, tmp_path_factory.mktemp("sealed"))


@pytest.fixture
async def copy(original: Original, tmp_path: Path) -> AsyncIterator[Copy]:
    """A copy of it, this test's own."""
    async with copied(original, tmp_path) as made:
        yield made
