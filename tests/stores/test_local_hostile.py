"""What others do who may write somewhere below the root of a folder's store: another account, a program that syncs it with
another. None of it may lead outside, stop a session for good, or hang.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.runtime.buffers import Buffers
from archiver.stores import ANY_FILE
from archiver.stores.local import upload as local_upload
from archiver.stores.local.disk import BLOCK, Part
from archiver.stores.local.store import LocalStore

KEY = "bot=b/date=2026-01-02/s1/recording/a.wav"
FOLDERS = ["bot=b", "bot=b/date=2026-01-02", "bot=b/date=2026-01-02/s1", "bot=b/date=2026-01-02/s1/recording"]
PART = ".session-1.worker-2.epoch-3.part"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder where nothing of ours may ever be."""
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.fixture
def open_root(root: Path) -> Path:
    """A root that is there already, for everybody to write to."""
    root.mkdir()
    root.chmod(0o777)
    return root


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root, Buffers(2**26))


async def keep(store: LocalStore, data: bytes = b"data", key: str = KEY) -> None:
    async with store.upload(key, part=PART) as upload:
        await upload.write(data)
        await upload.save()


async def content(store: LocalStore) -> bytes:
    return b"".join([block async for block in store.read(KEY)])


def below(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("folder", FOLDERS)
async def test_a_folder_that_is_a_link_is_not_followed(store: LocalStore, root: Path, outside: Path, folder: str) -> None:
    theirs = outside / KEY.removeprefix(f"{folder}/")
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_bytes(b"theirs")
    theirs.with_name(PART).write_bytes(b"theirs")
    (root / folder).parent.mkdir(parents=True)
    (root / folder).symlink_to(outside)

    for attempt in (keep(store), content(store), store.size(KEY), store.discard(KEY, part=PART, left_for=timedelta(0))):
        with pytest.raises(StoreError, match="is a symbolic link") as caught:
            await attempt
        # One link must not stop the whole store: that is what StoreUnavailable does.
        assert not isinstance(caught.value, StoreUnavailable)
        assert folder in caught.value.message
        assert "mount" in caught.value.hint

    assert names(theirs.parent) == [PART, "a.wav"]
    assert theirs.read_bytes() == b"theirs"


async def test_a_quarantine_that_is_a_link_is_not_followed(store: LocalStore, open_root: Path, outside: Path) -> None:
    (open_root / "quarantine").symlink_to(outside)
    async with store.upload(KEY, part=PART) as upload:
        await upload.write(b"refused")
        with pytest.raises(StoreError, match="quarantine is a symbolic link"):
            await upload.save("quarantine/s1/3-a.wav")
    assert names(outside) == []


async def test_the_root_itself_may_be_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    store = LocalStore(tmp_path / "link", Buffers(2**26))
    await keep(store)
    assert await content(store) == b"data"
    assert (outside / KEY).read_bytes() == b"data"


@pytest.mark.parametrize("length", [4, BLOCK], ids=["short", "long"])
async def test_a_folder_swapped_for_a_link_between_two_steps_leads_nowhere(
    store: LocalStore, root: Path, outside: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the folders were made and opened, before the temporary file is; and before the file gets its name."""
    session = root / FOLDERS[2]

    def swap() -> None:
        session.rename(root / "aside")
        session.symlink_to(outside)

    class Swapping(Part):
        def __init__(self, name: str, folder: int, mode: int = 0o640) -> None:
            swap()
            super().__init__(name, folder, mode)

    with monkeypatch.context() as swapped:
        swapped.setattr(local_upload, "Part", Swapping)
        with pytest.raises(StoreError, match="is a symbolic link"):
            await keep(store, bytes(length))
    assert below(outside) == []
    session.unlink()
    (root / "aside").rename(session)

    async with store.upload(KEY, part=PART) as upload:
        await upload.write(bytes(BLOCK))
        swap()
        with pytest.raises(StoreError, match="is a symbolic link"):
            await upload.save()
    assert below(outside) == []
    assert names(root / "aside/recording") == []


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("equal.wav"))


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


PLANTED: dict[str, Callable[[Path], None]] = {
    "a symbolic link": _link,
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a socket": _socket,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", PLANTED)
async def test_what_is_no_file_conflicts_with_one_and_cannot_be_read(store: LocalStore, root: Path, kind: str) -> None:
    await keep(store, key=KEY.replace("a.wav", "equal.wav"))
    target = root / KEY
    PLANTED[kind](target)
    before = target.lstat()

    async with store.upload(KEY, part=PART) as upload:
        await upload.write(b"data")
        with pytest.raises(KeyConflict, match=kind) as caught:
            await upload.save()
        await upload.save("quarantine/s1/3-a.wav")
    assert (caught.value.facts["stored_sha256"], caught.value.facts["stored_bytes"]) == (None, None)
    assert (root / "quarantine/s1/3-a.wav").read_bytes() == b"data"

    with pytest.raises(StoreError, match=f"is {kind}, not a regular file") as unread:
        await content(store)
    assert unread.value.facts == {"store_key": KEY, "not_a_regular_file": True}
    if kind == "a folder":
        assert await store.size(KEY) is None
    else:
        with pytest.raises(StoreError, match=f"is {kind}, not a regular file"):
            await store.size(KEY)
    assert target.lstat() == before


async def test_a_file_that_is_far_longer_than_ours_is_not_read_to_its_end(store: LocalStore, root: Path) -> None:
    """Without a block on the disk it can be of any length."""
    target = root / KEY
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(KeyConflict) as caught:
        await keep(store)
    assert (caught.value.facts["stored_sha256"], caught.value.facts["stored_bytes"]) == (None, 2**42)


@pytest.mark.parametrize("kind", ["a file", *PLANTED])
async def test_a_temporary_name_that_was_taken_ahead_stops_nobody(store: LocalStore, root: Path, kind: str) -> None:
    part = (root / KEY).with_name(PART)
    part.parent.mkdir(parents=True)
    PLANTED.get(kind, Path.touch)(part)
    await keep(store)
    assert await content(store) == b"data"
    assert names(part.parent) == [PART, "a.wav"]


async def test_temporary_names_cannot_be_foreseen(store: LocalStore, root: Path) -> None:
    found = []
    for _ in range(2):
        async with store.upload(KEY, part=PART) as upload:
            await upload.write(bytes(BLOCK))
            found += names((root / KEY).parent)
    assert len(set(found)) == 2
    for name in found:
        assert name.startswith(PART.removesuffix("part"))
        assert name.endswith(".part")
        assert len(name) >= len(PART) + 16


async def test_a_sweep_finds_what_a_claim_left_and_nothing_else(store: LocalStore, root: Path) -> None:
    folder = (root / KEY).parent
    folder.mkdir(parents=True)
    ours = [".session-1.worker-2.epoch-3.0123456789abcdef.part", PART]  # the latter: of a version that came without the addition
    others = [".session-1.worker-2.epoch-33.0123456789abcdef.part", ".session-1.worker-2.epoch-3.0123456789abcdef", "a.wav"]
    for name in (*ours, *others):
        (folder / name).touch()
    for number, plant in enumerate(PLANTED.values()):
        plant(folder / f".session-1.worker-2.epoch-3.{number}.part")
    planted = [f".session-1.worker-2.epoch-3.{number}.part" for number in range(len(PLANTED))]

    key = f"{FOLDERS[-1]}/{ANY_FILE}"
    assert await store.discard(key, part=PART, left_for=timedelta(0)) is True
    assert await store.discard(key, part=PART, left_for=timedelta(0)) is False
    assert names(folder) == sorted([*others, *planted])


async def test_folders_and_files_are_for_their_owner_and_group(store: LocalStore, root: Path) -> None:
    usual = os.umask(0)
    try:
        await keep(store)
        async with store.upload(KEY, part=PART) as upload:
            await upload.write(b"other")
            with pytest.raises(KeyConflict):
                await upload.save()
            await upload.save("quarantine/s1/3-a.wav")
    finally:
        os.umask(usual)
    modes = {path: mode_of(path) for path in (root, *below(root))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o750}
    assert {mode for path, mode in modes.items() if not path.is_dir()} == {0o640}


async def test_a_stricter_umask_stays_stricter_and_what_is_there_is_left_alone(store: LocalStore, open_root: Path) -> None:
    usual = os.umask(0o077)
    try:
        await keep(store)
    finally:
        os.umask(usual)
    assert [mode_of(open_root / path) for path in ("", "bot=b", KEY)] == [0o777, 0o700, 0o600]


@pytest.mark.parametrize(("umask", "folders"), [(0o002, 0o770), (0o007, 0o770), (0o022, 0o750), (0o027, 0o750), (0o077, 0o700)])
async def test_a_root_that_its_group_may_write_to_is_shared_by_its_workers_as_far_as_the_umask_lets_it(
    store: LocalStore, open_root: Path, umask: int, folders: int
) -> None:
    """Of several accounts: the second could put nothing into the folders of the first."""
    usual = os.umask(umask)
    try:
        await keep(store)
    finally:
        os.umask(usual)
    assert {mode_of(open_root / path) for path in FOLDERS} == {folders}
    assert mode_of(open_root / KEY) == 0o640 & ~umask


async def test_links_where_folders_should_be_are_pointed_out(store: LocalStore, root: Path, outside: Path) -> None:
    await keep(store)
    assert await store.advice() == []
    (root / "bot=c").symlink_to(outside)
    (root / "bot=b/date=2020-01-01").symlink_to(outside)
    (root / "latest").symlink_to("nowhere")
    first, second, third = sorted(await store.advice())
    for advice, path in ((first, f"{root}/bot=b/date=2020-01-01"), (second, f"{root}/bot=c")):
        assert advice.seen.startswith(f"{path} is a symbolic link, which is not followed: ")
        assert advice.hint.endswith(f"rm {path} && mkdir {path} && mount --bind {outside} {path}")
    assert third.seen == f"{root}/latest is a symbolic link, which is not followed"
    assert "mount" in third.hint
