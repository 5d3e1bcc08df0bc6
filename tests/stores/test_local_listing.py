"""Listing a folder in which others do what they like."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from archiver.errors import StoreError, StoreUnavailable
from archiver.runtime.buffers import Buffers
from archiver.stores.local import listing as local_listing
from archiver.stores.local.listing import Listing
from archiver.stores.local.store import LocalStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    for key in ("a/1.wav", "a/2.wav", "b/c/3.wav", "d/4.wav"):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(b"data")
    return folder


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root, Buffers(2**26))


async def listed(store: LocalStore) -> dict[str, int | None]:
    return {each.key: each.bytes async for each in store.list()}


async def test_what_is_no_regular_file_is_listed_and_no_link_is_followed(store: LocalStore, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "theirs.wav").write_bytes(b"theirs")
    (root / "a/link to a file").symlink_to(outside / "theirs.wav")
    (root / "b/link to a folder").symlink_to(outside)
    (root / "b/link to nothing").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        (root / ".hidden").write_bytes(b"1")
        (root / "a/.x.part").write_bytes(b"12")
        (root / "empty folder").mkdir()
        (root / "lost+found").mkdir(0)
        assert await listed(store) == {
            ".hidden": 1,
            "a/.x.part": 2,
            "a/1.wav": 4,
            "a/2.wav": 4,
            "a/link to a file": None,
            "b/c/3.wav": 4,
            "b/link to a folder": None,
            "b/link to nothing": None,
            "d/4.wav": 4,
            "fifo": None,
            "socket": None,
        }


async def test_names_of_any_bytes_are_listed(store: LocalStore, root: Path) -> None:
    (root / os.fsdecode(b"a/\xff\xfe.wav")).write_bytes(b"1")
    (root / "a/new\nline\x1b[2J.wav").write_bytes(b"1")
    found = await listed(store)
    assert [os.fsencode(key) for key in found] == sorted(map(os.fsencode, found))
    assert {os.fsdecode(b"a/\xff\xfe.wav"), "a/new\nline\x1b[2J.wav"} < set(found)


def test_what_goes_while_it_is_listed_is_left_out(store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_listing, "BATCH", 1)
    listing = Listing(store.folders, "")
    assert [each.key for each in listing.batch()] == ["a/1.wav"]
    (root / "a/2.wav").unlink()
    (root / "b/c/3.wav").unlink()
    (root / "b/c").rmdir()
    (root / "b").rmdir()
    assert [each.key for each in listing.batch()] == ["d/4.wav"]
    assert listing.batch() == []


def test_a_folder_that_becomes_a_link_while_it_is_listed_leads_nowhere(
    store: LocalStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_listing, "BATCH", 1)
    (tmp_path / "outside/c").mkdir(parents=True)
    (tmp_path / "outside/c/theirs.wav").write_bytes(b"theirs")
    listing = Listing(store.folders, "")
    listing.batch()
    (root / "b").rename(tmp_path / "moved")
    (root / "b").symlink_to(tmp_path / "outside")
    listing.batch()
    assert [each.key for each in listing.batch()] == ["d/4.wav"]
    listing.close()


async def test_a_root_that_is_not_there_has_nothing_and_one_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    assert await listed(LocalStore(tmp_path / "none", Buffers(2**26))) == {}
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        await listed(LocalStore(tmp_path / "file", Buffers(2**26)))


async def test_a_folder_that_cannot_be_read_is_named(store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all: the system's answer is put in its place."""
    opened = os.open

    def refusing(path: str | bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"c":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StoreError, match=r"b/c/ cannot be listed: Permission denied"):
        await listed(store)


async def test_a_time_that_no_calendar_has_and_folders_without_end_are_told(store: LocalStore, root: Path, memory: Path) -> None:
    in_memory = memory / f"listing-{root.parent.name}"
    in_memory.mkdir()
    (in_memory / "a.wav").write_bytes(b"1")
    os.utime(in_memory / "a.wav", (2**40, 2**40))
    assert await listed(LocalStore(in_memory, Buffers(2**26))) == {"a.wav": 1}
    (root / "/".join(["d"] * 150)).mkdir(parents=True)
    with pytest.raises(StoreError, match="more than 100 folders deep") as refused:
        await listed(store)
    assert refused.value.hint
    with pytest.raises(StoreError, match="begins no key"):
        _ = [each async for each in store.list("\ud800")]
