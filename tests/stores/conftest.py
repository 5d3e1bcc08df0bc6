"""The stores that the conformance suite runs on, and what it needs to know of each."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from archiver.buffers import Buffers
from archiver.stores import Store
from archiver.stores.local import LocalStore

BUFFER = 64 * 1024 * 1024


class Bench(Protocol):
    """A store under test, with a view of it from outside."""

    store: Store

    def objects(self) -> set[str]:
        """Every object that lies in it, temporary ones included."""

    def put(self, key: str, data: bytes) -> None:
        """Lay an object there behind its back."""

    def get(self, key: str) -> bytes:
        """What lies there."""

    def remove(self, key: str) -> None:
        """Take it away."""


class LocalBench:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: Store = LocalStore(root, Buffers(BUFFER))

    def objects(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()}

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def remove(self, key: str) -> None:
        (self.root / key).unlink()


@pytest.fixture(params=["local"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Each store in turn, empty. A new store joins the suite here."""
    makers = {"local": lambda: LocalBench(tmp_path / "store")}
    return makers[request.param]()
