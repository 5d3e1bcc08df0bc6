"""Disks that lack what a store needs: it says so, keeps nothing that it cannot vouch for, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.runtime.buffers import Buffers
from archiver.stores.local.disk import BLOCK
from archiver.stores.local.store import LocalStore
from archiver.stores.local.upload import ALONE
from tests.disks import disk
from tests.odd_disks import Lacks, is_mounted, odd_disk

pytestmark = pytest.mark.once  # what a file system answers is the same under every Python

KEY = "s1/recording/a.wav"
PART = ".session-1.worker-2.epoch-3.part"
DATA = b"data"

NO_LINKS = "the file system offers no hard links"
NO_FOLDER_SYNC = "the file system cannot make folders durable"

OF_LINKS = [
    pytest.param(errno.ENOSYS, id="ENOSYS, as sshfs and s3fs"),
    pytest.param(errno.EPERM, id="EPERM, as exFAT and vfat"),
    pytest.param(errno.EOPNOTSUPP, id="EOPNOTSUPP, as CIFS"),
]


def store_in(root: Path) -> LocalStore:
    return LocalStore(root, Buffers(2**26))


async def keep(store: LocalStore, data: bytes = DATA, key: str = KEY, saved_as: str | None = None) -> None:
    async with store.upload(key, part=PART) as upload:
        for begin in range(0, len(data), BLOCK):
            await upload.write(data[begin : begin + BLOCK])
        await upload.save(saved_as)


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def refused(act: Callable[[], object]) -> str:
    """The errno that it is refused with, by name."""
    with pytest.raises(OSError) as caught:
        act()
    return errno.errorcode[caught.value.errno or 0]


def tells_of_links(error: StoreUnavailable) -> bool:
    return NO_LINKS in error.message and any(place in error.hint for place in ("ext4", "XFS", "object store"))


def tells_of_folders(error: StoreUnavailable) -> bool:
    return NO_FOLDER_SYNC in error.message and bool(error.hint)


async def test_a_disk_that_lacks_nothing_keeps_everything(tmp_path: Path) -> None:
    """What the others are refused is not for being on such a disk."""
    folder = tmp_path / "disk"
    large = os.urandom(ALONE + BLOCK)
    with odd_disk(folder):
        store = store_in(folder)
        await store.check()
        await asyncio.gather(*(keep(store, key=f"s{number}/a.wav") for number in range(5)), keep(store, large))
        await keep(store, large)
        with pytest.raises(KeyConflict):
            await keep(store, b"other")
        await keep(store, b"other", saved_as="quarantine/s1/a.wav")
        digest = hashlib.sha256()
        async for block in store.read(KEY):
            digest.update(block)
        assert digest.digest() == hashlib.sha256(large).digest()
        expected = sorted([KEY, "quarantine/s1/a.wav", *(f"s{number}/a.wav" for number in range(5))])
        assert files(folder) == expected
    assert files(folder) == expected


# --- hard links


@pytest.mark.parametrize("code", OF_LINKS)
async def test_a_disk_without_hard_links_is_told_of_and_keeps_nothing(tmp_path: Path, code: int) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder, Lacks(links=code)):
        store = store_in(folder)
        with pytest.raises(StoreUnavailable) as of_check:
            await store.check()
        assert files(folder) == []
        with pytest.raises(StoreUnavailable) as small:
            await keep(store)
        with pytest.raises(StoreUnavailable) as large:
            await keep(store, bytes(ALONE + BLOCK))
        with pytest.raises(StoreUnavailable) as aside:
            await keep(store, saved_as="quarantine/s1/a.wav")
        assert [tells_of_links(caught.value) for caught in (of_check, small, large, aside)] == [True] * 4
        assert str(folder) in of_check.value.message
    assert files(folder) == []


@pytest.mark.parametrize("code", OF_LINKS)
async def test_a_disk_without_hard_links_is_told_of_to_each_upload_of_a_batch(tmp_path: Path, code: int) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder, Lacks(links=code)):
        store = store_in(folder)
        ends = await asyncio.gather(*(keep(store, key=f"s{number}/a.wav") for number in range(5)), return_exceptions=True)
        assert [isinstance(end, StoreUnavailable) and tells_of_links(end) for end in ends] == [True] * 5
    assert files(folder) == []


@pytest.mark.parametrize("code", OF_LINKS)
async def test_what_has_a_key_is_not_overwritten_where_there_are_no_hard_links(tmp_path: Path, code: int) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder, Lacks(links=code)):
        (folder / KEY).parent.mkdir(parents=True)
        (folder / KEY).write_bytes(b"other")
        with pytest.raises(StoreError):
            await keep(store_in(folder))
    assert files(folder) == [KEY]
    assert (folder / KEY).read_bytes() == b"other"


async def test_an_older_kernel_hands_on_that_links_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of that answer a newer one makes EPERM, so that no disk here gives it."""

    def unknown(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "link", unknown)
    for act in (keep, LocalStore.check):
        with pytest.raises(StoreUnavailable) as caught:
            await act(store_in(tmp_path))
        assert tells_of_links(caught.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize("code", OF_LINKS)
async def test_a_quarantine_on_a_disk_without_hard_links_is_told_of(tmp_path: Path, code: int) -> None:
    store = store_in(tmp_path)
    with odd_disk(tmp_path / "quarantine", Lacks(links=code)):
        with pytest.raises(StoreUnavailable) as caught:
            await keep(store, saved_as="quarantine/s1/a.wav")
        assert tells_of_links(caught.value)
        await store.check()
    assert files(tmp_path) == []


async def test_a_quarantine_on_a_disk_without_nameless_files_is_told_of(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with odd_disk(tmp_path / "quarantine", Lacks(tmpfile=errno.EOPNOTSUPP)):
        with pytest.raises(StoreUnavailable) as caught:
            await keep(store, saved_as="quarantine/s1/a.wav")
        assert caught.value.facts["error"] == "EXDEV"
        assert "quarantine/" in caught.value.hint
    assert files(tmp_path) == []


# --- folders that cannot be made durable


async def test_a_disk_that_cannot_sync_folders_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder, Lacks(folder_sync=errno.EINVAL)):
        store = store_in(folder)
        with pytest.raises(StoreUnavailable) as caught:
            await store.check()
        assert tells_of_folders(caught.value)
        assert str(folder) in caught.value.message
        assert files(folder) == []
        # The second time its own file may be there, from the first, and is held against it: that is no fault of one key either.
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                await keep(store)
            assert tells_of_folders(caught.value)
    assert set(files(folder)) <= {KEY}
    assert [path.read_bytes() for path in folder.rglob("a.wav")] in ([], [DATA])


async def test_a_root_that_is_still_to_be_made_on_such_a_disk_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder, Lacks(folder_sync=errno.EINVAL)):
        for act in (keep, LocalStore.check):
            with pytest.raises(StoreUnavailable) as caught:
                await act(store_in(folder / "deep" / act.__name__))
            assert tells_of_folders(caught.value)
    assert files(folder) == []


async def test_a_disk_that_lacks_both_is_told_of_one(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder, Lacks(links=errno.EPERM, folder_sync=errno.EINVAL)):
        for act in (keep, LocalStore.check):
            with pytest.raises(StoreUnavailable) as caught:
                await act(store_in(folder))
            assert tells_of_links(caught.value) or tells_of_folders(caught.value)
    assert files(folder) == []


# --- names


@pytest.mark.parametrize("lies", [False, True], ids=["as it says", "and says otherwise"])
async def test_the_longest_name_is_what_the_disk_takes(tmp_path: Path, lies: bool) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder, Lacks(long_names=143, lies=lies)):
        store = store_in(folder)
        assert await store.longest_name() == 143
        assert list(folder.iterdir()) == []


async def test_the_longest_name_of_a_usual_disk_is_of_255_bytes(tmp_path: Path) -> None:
    with disk(tmp_path / "memory", "2m"), odd_disk(tmp_path / "disk"):
        for folder in (tmp_path / "memory", tmp_path / "disk"):
            assert await store_in(folder).longest_name() == 255
            assert list(folder.iterdir()) == []


@pytest.mark.parametrize("lies", [False, True], ids=["as it says", "and says otherwise"])
@pytest.mark.parametrize("letter", ["n", "ü"])
async def test_a_name_that_the_disk_does_not_take_is_the_fault_of_one_key(tmp_path: Path, letter: str, lies: bool) -> None:
    folder = tmp_path / "disk"
    short = letter * (139 // len(letter.encode()))
    longest = short + "n" * (139 - len(short.encode())) + ".wav"
    with odd_disk(folder, Lacks(long_names=143, lies=lies)):
        store = store_in(folder)
        for key in (f"s1/n{longest}", f"{longest}n/a.wav"):
            with pytest.raises(StoreError) as caught:
                await keep(store, key=key)
            assert not isinstance(caught.value, StoreUnavailable)
            assert caught.value.facts["error"] == "ENAMETOOLONG"
        await keep(store, key=f"{longest}/{longest}")
        await store.check()
    assert files(folder) == [f"{longest}/{longest}"]


# --- the disks themselves


def test_a_disk_lacks_what_it_is_told_to(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    lacks = Lacks(links=errno.EMLINK, folder_sync=errno.EINVAL, tmpfile=errno.EOPNOTSUPP, long_names=20, lies=True)
    with odd_disk(folder, lacks):
        (folder / "a").write_bytes(DATA)
        assert refused(lambda: os.link(folder / "a", folder / "b")) == "EMLINK"
        opened = os.open(folder, os.O_RDONLY)
        assert refused(lambda: os.fsync(opened)) == "EINVAL"
        os.close(opened)
        assert refused(lambda: os.open(folder, os.O_TMPFILE | os.O_WRONLY)) == errno.errorcode[errno.EOPNOTSUPP]
        for act in (
            lambda: (folder / ("n" * 21)).write_bytes(DATA),
            (folder / ("n" * 21)).mkdir,
            lambda: (folder / "a").rename(folder / ("n" * 21)),
        ):
            assert refused(act) == "ENAMETOOLONG"
        assert os.statvfs(folder).f_namemax == 255
        (folder / "a").rename(folder / ("n" * 20))
    assert files(folder) == ["n" * 20]


_KILLED = """
import sys
from pathlib import Path
from tests.odd_disks import odd_disk

with odd_disk(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


def test_a_disk_does_not_outlive_who_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with odd_disk(tmp_path / "other"):
        pass  # or else this test is skipped: none may be mounted here
    killed = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(folder)], cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert killed.stdout is not None
        server = os.pidfd_open(int(killed.stdout.readline()))
        assert is_mounted(folder)
    finally:
        killed.kill()
        killed.communicate(timeout=20)
    try:
        ended, _, _ = select.select([server], [], [], 20)
    finally:
        os.close(server)
    assert ended
    assert not is_mounted(folder)


def test_a_disk_whose_server_is_killed_leaves_no_mount(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with odd_disk(folder) as server:
        server.kill()
        server.wait(20)
        assert refused(folder.stat) == "ENOTCONN"
        assert is_mounted(folder)
    assert not is_mounted(folder)
    assert list(folder.iterdir()) == []


def test_a_test_that_fails_with_a_file_open_leaves_no_mount(tmp_path: Path) -> None:
    folder = tmp_path / "disk"

    def fail() -> None:
        with odd_disk(folder):
            raise ZeroDivisionError(os.open(folder / "a", os.O_CREAT | os.O_WRONLY))

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert not is_mounted(folder)
    with suppress(OSError):  # it is closed, and nobody is told
        os.close(caught.value.args[0])
    assert files(folder) == ["a"]
