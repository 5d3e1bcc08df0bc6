"""Copies out of the store are what was recorded, or are not there; whoever writes rows or links chooses no place for them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from archiver.archive.copies import Copy, copies, folder_for, is_within
from archiver.errors import ArchiverError, UsageError
from archiver.queue.reports import SessionFile, SessionFiles
from archiver.runtime.buffers import Buffers
from tests.stores.harnesses import BUFFER, LocalHarness, MemoryHarness, StoreHarness

BODY = b"\x01" * 3_000_000


def recorded(store: StoreHarness, *names: str, kind: str = "recording", body: bytes = BODY) -> SessionFiles:
    """A session with files of these names, which the store has under keys of its own."""
    files = []
    for ordinal, name in enumerate(names, 1):
        store.put(f"{kind}/{ordinal}", body)
        files.append(SessionFile(ordinal, name, name, f"{kind}/{ordinal}", len(body), hashlib.sha256(body).hexdigest()))
    return SessionFiles(1, "bot", "s1", kind, "archived", None, files)


async def copied(store: StoreHarness, folder: Path, *sessions: SessionFiles, root: Path | None = None) -> list[Copy]:
    return [copy async for copy in copies(store.store, sessions, folder, Buffers(BUFFER), store_root=root)]


def there(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreHarness:
    return LocalHarness(tmp_path / "store") if request.param == "folder" else MemoryHarness()


async def test_every_file_is_copied_and_again_counts_as_there(store: StoreHarness, tmp_path: Path) -> None:
    folder = tmp_path / "made/out"
    session = recorded(store, "a.wav", "b.wav")
    assert [(one.outcome, one.path) for one in await copied(store, folder, session)] == [
        ("copied", str(folder / "a.wav")),
        ("copied", str(folder / "b.wav")),
    ]
    assert there(folder) == {"a.wav": BODY, "b.wav": BODY}
    for number in (1, 2):
        store.remove(f"recording/{number}")
    assert {one.outcome for one in await copied(store, folder, session)} == {"existed"}


async def test_what_is_not_as_recorded_is_named_and_the_rest_is_copied(store: StoreHarness, tmp_path: Path) -> None:
    session = recorded(store, "gone.wav", "altered.wav", "longer.wav", "shorter.wav", "well.wav")
    store.remove("recording/1")
    bodies = {2: b"\x02" + BODY[1:], 3: BODY + b"\x01", 4: BODY[:-1]}
    for number, body in bodies.items():
        store.remove(f"recording/{number}")
        store.put(f"recording/{number}", body)
    found = await copied(store, tmp_path / "out", session)
    assert [one.outcome for one in found] == ["missing", "changed", "changed", "changed", "copied"]
    assert found[1].sha256_found == hashlib.sha256(bodies[2]).hexdigest()
    assert there(tmp_path / "out") == {"well.wav": BODY}, "and no temporary file"


async def test_nothing_that_is_there_is_overwritten(store: StoreHarness, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "folder.wav").mkdir(parents=True)
    (folder / "mine.wav").write_bytes(b"mine")
    (tmp_path / "elsewhere.wav").write_bytes(b"elsewhere")
    (folder / "link.wav").symlink_to(tmp_path / "elsewhere.wav")
    os.mkfifo(folder / "fifo.wav")
    found = await copied(store, folder, recorded(store, "mine.wav", "link.wav", "fifo.wav", "folder.wav", "well.wav"))
    assert [one.outcome for one in found] == ["taken", "taken", "taken", "taken", "copied"]
    assert found[0].sha256_found == hashlib.sha256(b"mine").hexdigest()
    assert (folder / "mine.wav").read_bytes() == b"mine"
    assert (tmp_path / "elsewhere.wav").read_bytes() == b"elsewhere"


async def test_no_name_in_a_row_leads_out_of_the_folder(store: StoreHarness, tmp_path: Path) -> None:
    outside = tmp_path / "outside.wav"
    names = [
        "../outside.wav",
        str(outside),
        "..",
        "",
        ".hidden",
        "a/../../outside.wav",
        "c:\\x.wav",
        "a\n\x1b[31m.wav",
        "x.wav",
        "x.wav",
    ]
    found = await copied(store, tmp_path / "out", recorded(store, *names))
    assert {one.outcome for one in found} == {"copied"}
    assert len({one.path for one in found}) == len(names)
    made = there(tmp_path / "out")
    assert len(made) == len(names)
    assert all("/" not in name and name.isprintable() and not name.startswith(".") for name in made)
    assert not outside.exists()


async def test_kinds_get_a_folder_each_which_may_be_no_link(store: StoreHarness, tmp_path: Path) -> None:
    both = [recorded(store, "a.wav", kind=kind) for kind in ("recording", "voicemail")]
    await copied(store, tmp_path / "out", *both)
    assert set(there(tmp_path / "out")) == {"recording/a.wav", "voicemail/a.wav"}
    (tmp_path / "other").mkdir()
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap/voicemail").symlink_to(tmp_path / "other")
    assert [one.outcome for one in await copied(store, tmp_path / "trap", *both)] == ["copied", "taken"]
    assert there(tmp_path / "other") == {}


async def test_the_archives_own_store_is_no_place_for_copies(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = LocalHarness(root)
    session = recorded(store, "a.wav")
    (tmp_path / "link").symlink_to(root / "recording")
    before = there(root)
    for place in (root, root / "new/deep", tmp_path / "link", tmp_path / "link/new", tmp_path / "x/../store"):
        with pytest.raises(UsageError, match="own store"):
            await copied(store, place, session, root=root)
    with pytest.raises(UsageError, match="own store"):
        await copied(store, tmp_path, session, recorded(store, "a.wav", kind="store"), root=root)
    assert there(root).keys() - {"store/1"} == before.keys()
    assert not is_within(tmp_path / "store2", root)
    assert is_within(tmp_path / "absent/below", tmp_path / "absent")


async def test_a_folder_that_cannot_be_written_is_said_to_be_it(store: StoreHarness, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for place in ("file", "nowhere", "file/below"):
        with pytest.raises(ArchiverError, match=place) as raised:
            await copied(store, tmp_path / place, recorded(store, "a.wav"))
        assert "--output" in raised.value.hint


@pytest.mark.parametrize("session_id", ["..", ".", ".hidden", "a:b", "CON"])
def test_the_folder_of_a_session_is_one_of_this_folder(session_id: str) -> None:
    folder = folder_for(session_id)
    assert len(folder.parts) == 1
    assert folder.name == str(folder)
    assert not str(folder).startswith(".")


async def test_what_is_longer_than_was_recorded_is_not_read_to_its_end(store: StoreHarness, tmp_path: Path) -> None:
    """A hole of eight tebibytes costs nothing to put there."""
    folder = tmp_path / "out"
    folder.mkdir()
    with (folder / "a.wav").open("wb") as planted:
        planted.truncate(1 << 43)
    (one,) = await copied(store, folder, recorded(store, "a.wav"))
    assert (one.outcome, one.sha256_found) == ("taken", None)


async def test_what_a_killed_get_left_is_removed_by_the_next(store: StoreHarness, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    old, young, other = (folder / name for name in (f".get.{'0' * 16}.part", f".get.{'1' * 16}.part", ".get.mine.part"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    link = folder / f".get.{'2' * 16}.part"
    link.symlink_to(old)
    for path in (old, other, link):
        os.utime(path, (0, 0), follow_symlinks=False)
    assert [one.outcome for one in await copied(store, folder, recorded(store, "a.wav"))] == ["copied"]
    assert {path.name for path in folder.iterdir()} == {"a.wav", young.name, other.name, link.name}
