"""What only a folder can get wrong: full disks, permissions, links, names."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.runtime.buffers import Buffers
from archiver.stores.local import upload as local_upload
from archiver.stores.local.disk import BLOCK, Part, copied, translated
from archiver.stores.local.store import LocalStore
from tests.disks import disk, remount

KEY = "s1/recording/a.wav"
PART = ".session-1.worker-2.epoch-3.part"


async def keep(store: LocalStore, data: bytes = b"data", key: str = KEY) -> None:
    async with store.upload(key, part=PART) as upload:
        await upload.write(data)
        await upload.save()


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.is_dir()]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    with disk(folder, "2m"):
        yield folder


async def test_a_disk_that_fills_up_in_the_middle_of_a_file_leaves_no_part(small_disk: Path) -> None:
    store = LocalStore(small_disk, Buffers(2**26))
    with pytest.raises(StoreUnavailable) as caught:
        await keep(store, bytes(4 * 1024 * 1024))
    assert caught.value.facts == {"store_key": KEY, "error": "ENOSPC"}
    assert "free disk space" in caught.value.hint
    assert files(small_disk) == []
    await keep(store)  # and there is room again


_UNDER_A_LIMIT = """
import asyncio, resource, signal, sys
from pathlib import Path
from archiver.runtime.buffers import Buffers
from archiver.errors import StoreError
from archiver.stores.local.store import LocalStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))

async def main():
    async with LocalStore(Path(sys.argv[1]), Buffers(2**26)).upload("s1/a.wav", part=".s1.part") as upload:
        for _ in range(4):
            await upload.write(bytes(1024 * 1024))
        await upload.save()

try:
    asyncio.run(main())
except StoreError as error:
    print(type(error).__name__, error.facts["error"], sep=",")
"""


def test_a_file_that_the_system_refuses_to_let_grow_leaves_no_part(tmp_path: Path) -> None:
    """A limit on the size of files breaks a write in its middle, as a full disk does, and for everybody."""
    ran = subprocess.run(
        [sys.executable, "-c", _UNDER_A_LIMIT, str(tmp_path / "store")], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "StoreError,EFBIG\n"
    assert files(tmp_path) == []


async def test_a_write_that_failed_makes_saving_impossible(tmp_path: Path) -> None:
    """Whoever goes on after a failed write must not get a file with a hole in it saved."""
    store = LocalStore(tmp_path, Buffers(2**26))
    async with store.upload(KEY, part=PART) as upload:
        await upload.write(b"first")
        descriptor = upload.create().fileno()
        saved = os.dup(descriptor)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, descriptor)
        with pytest.raises(StoreUnavailable, match="No space left"):
            await upload.write(bytes(1024 * 1024))
        os.dup2(saved, descriptor)
        os.close(saved)
        os.close(full)
        await upload.write(b"second")
        with pytest.raises(StoreUnavailable, match="wrote"):
            await upload.save()
    assert files(tmp_path) == []


async def test_a_file_in_place_of_the_root_is_an_unavailable_store(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.write_bytes(b"not a folder")
    store = LocalStore(root, Buffers(2**26))
    with pytest.raises(StoreUnavailable) as caught:
        await keep(store)
    assert caught.value.facts["store_key"] == KEY
    with pytest.raises(StoreUnavailable):
        await store.check()
    assert root.read_bytes() == b"not a folder"


async def test_the_free_space_of_a_root_that_is_missing_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await LocalStore(tmp_path / "missing", Buffers(2**26)).free()


async def test_a_file_in_place_of_a_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    """And of this one key: a store that somebody can stop with one file would serve nobody."""
    (tmp_path / "s1").write_bytes(b"in the way")
    with pytest.raises(StoreError) as caught:
        await keep(LocalStore(tmp_path, Buffers(2**26)))
    assert not isinstance(caught.value, StoreUnavailable)
    assert caught.value.facts["error"] == "ENOTDIR"


_AS_NOBODY = """
import asyncio, concurrent.futures.thread, os, sys  # all that is needed is loaded before others may not read it
from pathlib import Path
from archiver.runtime.buffers import Buffers
from archiver.errors import StoreUnavailable
from archiver.stores.local.store import LocalStore

os.chdir(sys.argv[1])
if os.geteuid() == 0:  # whom modes don't bind
    os.setgid(65534)
    os.setuid(65534)

async def main():
    async with LocalStore(Path("store"), Buffers(2**26)).upload("s1/a.wav", part=".s1.part") as upload:
        await upload.save()

try:
    asyncio.run(main())
except StoreUnavailable as error:
    print(error.facts["error"], error.hint, sep=",")
"""


def test_a_folder_without_permission_says_what_to_do(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir(mode=0o555)
    ran = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "EACCES,let the archiver's user read and write there\n"


async def test_a_read_only_file_system_says_so(small_disk: Path) -> None:
    store = LocalStore(small_disk, Buffers(2**26))
    await keep(store)
    remount(small_disk, "ro")
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await keep(store, key="s1/recording/b.wav")
        with pytest.raises(StoreUnavailable, match=f"{small_disk} cannot be written: Read-only file system"):
            await store.check()
    finally:
        remount(small_disk, "rw")
    assert caught.value.facts["error"] == "EROFS"
    assert "read-only" in caught.value.hint


async def test_a_quarantine_on_a_disk_of_its_own_takes_what_is_kept_there(tmp_path: Path) -> None:
    """A file cannot be linked from one file system to another: each one for quarantine/ stopped the whole store."""
    guarded: list[bool] = []
    store = LocalStore(tmp_path, Buffers(2**26))
    aside = "quarantine/s1/3-a.wav"
    with disk(tmp_path / "quarantine", "4m"):
        for data in (b"refused" * 300_000, b"refused" * 300_000, b"other"):
            async with store.upload(KEY, part=PART) as upload:
                await upload.write(data)
                if data == b"other":
                    with pytest.raises(KeyConflict):
                        await upload.save(aside)
                else:
                    saved = await upload.save(aside, guard=lambda: guarded.append((tmp_path / aside).exists()))
                    assert (saved.bytes, saved.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert guarded[:2] == [False, False]
        assert (tmp_path / aside).read_bytes() == b"refused" * 300_000
        assert files(tmp_path) == [tmp_path / aside]

        async with store.upload(KEY, part=PART) as upload:
            await upload.write(bytes(3_000_000))
            with pytest.raises(StoreUnavailable) as caught:
                await upload.save("quarantine/s1/4-a.wav")
        assert caught.value.facts["error"] == "ENOSPC"
        assert files(tmp_path) == [tmp_path / aside]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: nobody else may try to write in such a file system that is always there"
)
async def test_where_no_file_can_be_without_a_name_the_two_file_systems_are_told_of(tmp_path: Path) -> None:
    folder, elsewhere = (os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (tmp_path, "/proc"))
    part = Part(PART, folder)
    try:
        with pytest.raises(StoreUnavailable) as caught, translated(KEY):
            copied(part, elsewhere)
        assert caught.value.facts["error"] == "EXDEV"
        assert "quarantine/" in caught.value.hint
    finally:
        part.close()
        os.close(folder)
        os.close(elsewhere)


async def test_a_name_too_long_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        await keep(LocalStore(tmp_path, Buffers(2**26)), key=f"{'n' * 300}/a.wav")
    assert not isinstance(caught.value, StoreUnavailable)
    assert caught.value.facts["error"] == errno.errorcode[errno.ENAMETOOLONG]


async def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store", Buffers(2**26))
    await keep(store)
    (tmp_path / "store" / KEY).unlink()
    for folder in ("s1/recording", "s1"):
        (tmp_path / "store" / folder).rmdir()
    await keep(store, key="s1/recording/b.wav")
    assert (tmp_path / "store/s1/recording/b.wav").read_bytes() == b"data"


async def test_no_file_number_is_leaked(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, Buffers(2**26))
    gc.collect()  # what other tests left to be collected is not to be closed in the middle of this one
    before = open_files()
    for number in range(20):
        await keep(store, key=f"s{number}/a.wav")
        with pytest.raises(StoreError):
            await keep(store, b"other", key=f"s{number}/a.wav")
        task = asyncio.create_task(keep(store, key=f"t{number}/a.wav"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert open_files() == before


@pytest.mark.parametrize("in_its_place", ["nothing", "a file"])
async def test_a_root_that_is_moved_away_under_an_upload_keeps_no_part_and_gets_no_file(
    tmp_path: Path, in_its_place: str
) -> None:
    root, aside = tmp_path / "store", tmp_path / "aside"
    store = LocalStore(root, Buffers(2**26))
    async with store.upload(KEY, part=PART) as upload:
        await upload.write(bytes(BLOCK))
        root.rename(aside)
        if in_its_place == "a file":
            root.write_bytes(b"?")
        with pytest.raises(StoreUnavailable, match=r"storage\.url is (gone|no folder)"):
            await upload.save()
        with pytest.raises(StoreUnavailable):
            await store.check()
    assert files(aside) == []
    root.unlink(missing_ok=True)
    aside.rename(root)
    await store.check()
    assert files(root) == []


async def test_a_folder_that_is_moved_away_under_an_upload_is_made_again_for_it(tmp_path: Path) -> None:
    """What the ledger says to be under a key must not lie where an operator has moved its folder meanwhile."""
    store = LocalStore(tmp_path / "store", Buffers(2**26))
    async with store.upload(KEY, part=PART) as upload:
        await upload.write(bytes(BLOCK))
        (tmp_path / "store/s1").rename(tmp_path / "aside")
        await upload.save()
    assert files(tmp_path) == [tmp_path / "store" / KEY]


async def test_a_part_of_a_drive_that_comes_back_in_the_middle_of_a_check_is_tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store works, and so it may never be checked again."""
    store = LocalStore(tmp_path, Buffers(2**26))
    usual = LocalStore.upload

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def back(self: LocalStore, key: str, **options: Any) -> Any:
        away.undo()
        return usual(self, key, **options)

    async def drop_out() -> None:
        async with store.upload(KEY, part=PART) as upload:
            await upload.write(bytes(BLOCK))
            away.setattr(os, "unlink", refuse)

    with monkeypatch.context() as away:
        with pytest.raises(StoreUnavailable):
            await drop_out()
        assert len(files(tmp_path)) == 1
        away.setattr(LocalStore, "upload", back)
        await store.check()
    assert files(tmp_path) == []


async def test_a_folder_that_was_removed_for_good_does_not_make_the_store_look_unwell(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, Buffers(2**26))
    async with store.upload("deep/" + KEY, part=PART) as upload:
        await upload.write(bytes(BLOCK))
        shutil.rmtree(tmp_path / "deep")
    await store.check()


async def test_a_root_that_vanished_is_not_made_again(tmp_path: Path) -> None:
    """What would be written there would hide what lies on the drive that dropped out, and be hidden by it when it is back."""
    root = tmp_path / "deep" / "store"
    store = LocalStore(root, Buffers(2**26))
    await keep(store)
    root.rename(tmp_path / "aside")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"storage\.url is gone"):
            await keep(store)
    assert not root.exists()
    (tmp_path / "aside").rename(root)
    await keep(store)


async def test_a_thread_that_cannot_be_had_fails_one_save_and_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the limit of a container's processes."""
    store = LocalStore(tmp_path, Buffers(2**26))

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(store._threads.pool, "submit", refuse)
        with pytest.raises(StoreUnavailable, match="can't start new thread"):
            await keep(store)
    await asyncio.wait_for(asyncio.gather(*(keep(store, key=f"s{n}/a.wav") for n in range(5))), 10)


async def test_a_store_that_is_closed_while_saves_wait_tells_them_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a worker must go while its disk hangs: nobody may wait for a batch that will never be."""
    store = LocalStore(tmp_path, Buffers(2**26))
    slow, go_on = threading.Event(), threading.Event()
    usual = os.fsync

    def hanging(descriptor: int) -> None:
        slow.set()
        assert go_on.wait(10)
        usual(descriptor)

    monkeypatch.setattr(os, "fsync", hanging)
    first = asyncio.create_task(keep(store, key="s1/a.wav"))
    await asyncio.to_thread(slow.wait, 10)
    others = [asyncio.create_task(keep(store, key=f"s{n}/a.wav")) for n in (2, 3)]
    await asyncio.sleep(0)
    store.close()
    go_on.set()
    ends = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), 10)
    assert ends[0] is None
    assert [type(end) for end in ends[1:]] == [StoreUnavailable, StoreUnavailable]


async def test_what_could_not_be_begun_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block is lost with the file that could not be opened: what comes later must not pass for the whole."""
    store = LocalStore(tmp_path, Buffers(2**26))

    def refuse(*_: object, **__: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    async with store.upload(KEY, part=PART) as upload:
        with monkeypatch.context() as full:
            full.setattr(local_upload, "Part", refuse)
            with pytest.raises(StoreUnavailable):
                await upload.write(bytes(BLOCK))
        await upload.write(b"the rest")
        with pytest.raises(StoreError, match="over"):
            await upload.save()
    assert files(tmp_path) == []


async def test_a_folder_that_cannot_be_synced_is_the_fault_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path, Buffers(2**26))

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(local_upload, "sync_folder", refuse)
    with pytest.raises(StoreUnavailable):
        await keep(store)
