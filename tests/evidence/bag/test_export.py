"""What is handed out, what is not and why; and exports that are ended in the middle."""

from __future__ import annotations

import asyncio
import csv
import errno
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import ArchiverError, EvidenceError, NothingSealed, StoreUnavailable, UsageError, WrongStore
from archiver.evidence.bag import whole
from archiver.evidence.bag.choosing import NOT_ENDED, NOT_SEALED, UNKNOWN, Choice
from archiver.evidence.bag.single import prove, write_proof
from archiver.evidence.bag.whole import Export
from archiver.evidence.keys import SealingKey
from archiver.evidence.proving import read_sealed
from archiver.outcome import Failed
from archiver.queue.exports import Exports
from archiver.queue.search import Chosen
from archiver.queue.sessions import CallFacts
from archiver.runtime.buffers import Buffers
from tests.disks import disk, remount
from tests.evidence.audited import CALL
from tests.evidence.bag.bagging import (
    EVERYTHING,
    another_database,
    bag_holds,
    export,
    filled,
    payload,
    signature_holds,
    sums_hold,
    verified,
)
from tests.evidence.sealing import SealedArchive, sealed_archive
from tests.evidence.test_rebuild import rebuilt_of
from tests.odd_disks import Lacks, odd_disk
from tests.s3_servers import S3Server
from tests.stores.harnesses import s3_harness

pytestmark = pytest.mark.once


def account(bag: Path, name: str = "account.csv") -> dict[str, dict[str, str]]:
    """The rows of a table, by session."""
    with (bag / name).open(encoding="utf-8", newline="") as file:
        return {row["session"]: row for row in csv.DictReader(file)}


def listed(*ids: str) -> Choice:
    """Sessions by their IDs."""
    return Choice({"listed": True}, Chosen(), None, lambda: ids)


async def test_what_is_handed_out_is_recorded_and_told(archive: SealedArchive, tmp_path: Path) -> None:
    done = await export(archive, tmp_path / "bag")
    assert (done.sessions, done.files, done.left_out, done.unrecorded) == (3, 4, 0, None)
    manifest = (tmp_path / "bag/tagmanifest-sha256.txt").read_bytes()
    assert done.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    await archive.sealer.finish()
    entry = archive.lines()[-1]
    said = {"sessions": 3, "files": 4, "bytes": done.bytes, "manifest_sha256": done.manifest_sha256}
    assert {name: entry.get(name) for name in said} == said
    assert (entry["event"], entry["actor"]) == ("exported", "person")
    rows = await archive.fetch("SELECT actor, data FROM archive_history WHERE event = 'exported'")
    assert [(row["actor"], row["data"]) for row in rows] == [
        ("ana@desk", {"bag": "bag", "manifest_sha256": done.manifest_sha256})
    ] * 3
    rows = list(csv.DictReader((tmp_path / "bag/loadfile.csv").read_bytes().decode().splitlines()))
    for row in rows:
        content = (tmp_path / "bag" / row["path"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (str(len(content)), hashlib.sha256(content).hexdigest())
    assert [(row["session"], row["path"]) for row in rows] == [
        ("s-two", "data/0001/transcriptions.json"),
        ("s-two", "data/0001/1.wav"),
        ("s-two", "data/0001/2.flac"),
        ("s-one", "data/0002/1.wav"),
    ]
    assert (tmp_path / "bag/loadfile.csv").read_bytes().count(b"\r\n") == 5


async def test_what_is_left_out_is_named_and_the_bag_is_valid(archive: SealedArchive, tmp_path: Path) -> None:
    await archive.end("s-late", files={"a.wav": b"late"})
    await archive.add("s-waiting")
    (missing,) = archive.root.rglob("s-one/recording/a.wav")
    missing.unlink()
    bag = tmp_path / "bag"
    done = await export(archive, bag, listed("s-two", "s-none", "s-late", "s-one", "s-waiting", "s-nobody", "s-two"))
    assert (done.sessions, done.left_out) == (2, 4)
    assert {each["session_id"]: each["why"].partition(":")[0] for each in done.told} == {
        "s-one": "missing", "s-late": NOT_SEALED, "s-waiting": NOT_ENDED.partition(":")[0], "s-nobody": UNKNOWN,
    }  # fmt: skip
    rows = account(bag)
    assert {name for name, row in rows.items() if row["exported"] == "yes"} == {"s-two", "s-none"}
    assert rows["s-none"]["state"] == "unavailable"
    assert rows["s-one"]["exported"].startswith("no: missing: ")
    assert sorted(path.name for path in (bag / "data").iterdir()) == ["0001", "0003"]
    assert sums_hold(bag)
    assert bag_holds(bag)
    assert verified(bag).returncode == 0


@pytest.mark.parametrize("damage", [b"RIFF", b"RIFF" + bytes(range(255)) + b"\0", b"x" * 3_000_000])
async def test_a_recording_that_is_not_what_was_recorded_is_not_handed_out(
    archive: SealedArchive, tmp_path: Path, damage: bytes
) -> None:
    (path,) = archive.root.rglob("s-one/recording/a.wav")
    path.write_bytes(damage)
    done = await export(archive, tmp_path / "bag")
    assert (done.sessions, [each["why"].partition(":")[0] for each in done.told]) == (2, ["changed"])
    assert verified(tmp_path / "bag").returncode == 0


async def test_a_record_that_is_elsewhere_is_found_and_one_that_was_changed_is_not_handed_out(
    archive: SealedArchive, tmp_path: Path
) -> None:
    (path,) = archive.root.rglob("s-one/recording/session.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"s-one", b"s-two"))
    assert (await export(archive, tmp_path / "without")).left_out == 1
    aside = archive.root / f"evidence/record/{hashlib.sha256(content).hexdigest()}.json"
    aside.parent.mkdir()
    aside.write_bytes(content)
    assert (await export(archive, tmp_path / "with")).left_out == 0


async def test_an_entry_of_the_store_that_was_changed_ends_it(archive: SealedArchive, tmp_path: Path) -> None:
    (segment,) = (archive.root / "evidence/ledger").iterdir()
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"s-one", b"s-onx"))
    with pytest.raises(EvidenceError, match="do not have the root") as refused:
        await export(archive, tmp_path / "bag")
    assert "archiver audit" in refused.value.hint
    # What the database says of who is in an entry is not believed either.
    segment.write_bytes(content)
    await archive.fetch("UPDATE archive_ledger SET queue_id = CASE seq WHEN 1 THEN n.two WHEN 2 THEN n.one END FROM ("
                        "SELECT (SELECT queue_id FROM archive_ledger WHERE seq = 2) AS two, "
                        "(SELECT queue_id FROM archive_ledger WHERE seq = 1) AS one) n WHERE seq IN (1, 2)")  # fmt: skip
    done = await export(archive, tmp_path / "other")
    assert (done.sessions, done.left_out) == (1, 2)
    assert all("another session" in each["why"] for each in done.told)


async def test_without_a_ledger_nothing_is_handed_out(database_url: str, tmp_path: Path) -> None:
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.end("s-1", files={"a.wav": b"one"})
        with pytest.raises(NothingSealed):
            await export(archive, tmp_path / "bag")
        await archive.begin()
        with pytest.raises(NothingSealed, match="nothing is sealed yet"):
            await export(archive, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


async def test_hostile_names_and_cells(database_url: str, tmp_path: Path) -> None:
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        names = ("=cmd|'!A1.wav", "two\u202e.WaV", "%41.flac", "no-ending", "x.tar.gz", "y.ö")
        await archive.end("s-1", files={name: name.encode() for name in names})
        call = {"caller": "+49 30 1", "agent": [{"name": "=HYPERLINK(1)"}, {"name": "a\r\n@b"}]}
        await archive.queue.add_call_facts("bot", [CallFacts("s-1", "recording", CALL, CALL, "ben", call)])
        await archive.end("s-2", Failed("conflict"))
        await archive.sealer.finish()
        await archive.operators.accept(reason="=1+1\n\x1b[31m", actor="@ana", ids=["s-2"])
        await archive.sealer.finish()
        bag = tmp_path / "bag"
        assert (await export(archive, bag)).sessions == 2
    found = sorted(path.name for path in (bag / "data/0001").iterdir() if path.name[0].isdigit())
    assert found == ["1.wav", "2.wav", "3.flac", "4.bin", "5.gz", "6.bin"]
    assert (bag_holds(bag), verified(bag).returncode) == (True, 0)
    row = account(bag, "loadfile.csv")["s-1"]
    assert row["caller"] == "'+49 30 1"
    assert row["agent"].startswith("'=HYPERLINK")
    accepted = account(bag)["s-2"]
    assert accepted["accepted_by"] == "'@ana"
    assert accepted["accepted_because"].startswith("'=1+1")
    assert "\x1b" not in (bag / "account.csv").read_text()


async def test_a_folder_that_is_anything_else_is_refused(archive: SealedArchive, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is not empty"):
        await export(archive, other)
    with pytest.raises(UsageError, match="is no folder"):
        await export(archive, other / "notes.txt")
    await export(archive, tmp_path / "bag")
    with pytest.raises(UsageError, match="is a finished bag"):
        await export(archive, tmp_path / "bag")
    (other / ".export").mkdir()
    (other / ".export/plan.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ArchiverError, match="not a database"):
        await export(archive, other)
    assert (other / "notes.txt").read_bytes() == b"mine"
    (tmp_path / "odd/.export/plan.sqlite").mkdir(parents=True)
    with pytest.raises(ArchiverError, match="unable to open"):
        await export(archive, tmp_path / "odd")
    with pytest.raises(UsageError, match="no session is chosen"):
        await export(archive, tmp_path / "empty", Choice({}, Chosen(bots=("nobody",))))
    assert (await export(archive, tmp_path / "empty")).sessions == 3


async def test_a_full_disk_is_said_and_the_export_goes_on_once_there_is_room(archive: SealedArchive, tmp_path: Path) -> None:
    await archive.end("s-large", files={"a.wav": os.urandom(3_000_000)})
    await archive.sealer.finish()
    with disk(tmp_path / "disk", "2m"):
        bag = tmp_path / "disk/bag"
        with pytest.raises(ArchiverError, match="are needed") as refused:
            await export(archive, bag)
        assert "free disk space" in refused.value.hint
        shutil.rmtree(bag)
        # The size that the database knows may be wrong.
        await archive.fetch("ALTER TABLE archived_recordings DISABLE TRIGGER USER")
        await archive.fetch("UPDATE archived_recordings SET bytes = 1")
        with pytest.raises(ArchiverError, match="No space left") as full:
            await export(archive, bag)
        assert "same command" in full.value.hint
        assert not (bag / "bagit.txt").exists()
        remount(tmp_path / "disk", "ro,size=20m")
        with pytest.raises(ArchiverError, match=r"(?i)read.?only"):
            await export(archive, bag)
        remount(tmp_path / "disk", "rw")
        done = await export(archive, bag)
        assert (done.sessions, done.left_out) == (4, 0)
        assert done.taken_over > 0
        assert bag_holds(bag)


async def test_a_stick_without_hard_links_and_without_durable_folders_will_do(archive: SealedArchive, tmp_path: Path) -> None:
    with odd_disk(tmp_path / "stick", Lacks(links=errno.EPERM, folder_sync=errno.EINVAL)):
        await export(archive, tmp_path / "stick/bag")
        assert bag_holds(tmp_path / "stick/bag")


class Unreadable:
    """A store that lets nothing be read of recordings from some time on."""

    def __init__(self, store: Any, reads: int) -> None:
        self._store = store
        self._left = reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        if key.endswith(".wav"):
            self._left -= 1
            if self._left < 0:
                raise StoreUnavailable("the network is down")
        async for block in self._store.read(key):
            yield block


async def test_a_store_that_cannot_be_read_any_more_ends_it_and_it_goes_on_later(archive: SealedArchive, tmp_path: Path) -> None:
    for number in range(20):
        await archive.end(f"s-{number}", files={"a.wav": b"%d" % number})
    await archive.sealer.finish()
    bag = tmp_path / "bag"
    with pytest.raises(StoreUnavailable) as refused:
        await export(archive, bag, store=Unreadable(archive.store, 4))
    assert "same command" in refused.value.hint
    assert not (bag / "bagit.txt").exists()
    done = await export(archive, bag)
    assert (done.sessions, done.left_out, done.taken_over > 0) == (23, 0, True)
    assert verified(bag).returncode == 0


async def test_a_store_that_drops_out_leaves_nothing_out_of_a_bag(archive: SealedArchive, tmp_path: Path) -> None:
    """Of a disk that is not mounted any more all that is left to copy seems to be missing."""
    away = archive.root.with_name("unmounted")

    class DropsOut(Unreadable):
        async def read(self, key: str) -> AsyncGenerator[bytes, None]:
            async for block in super().read(key):
                yield block
            if key.endswith(".wav") and archive.root.exists():
                archive.root.rename(away)

    async def check() -> None:
        if not archive.root.exists():
            raise WrongStore("it is gone", hint="mount it")

    def exporting(store: Any) -> Export:
        return Export(archive.database, store, Buffers(64 * 2**20), "ana@desk", check=check)

    with pytest.raises(WrongStore) as refused:
        await exporting(DropsOut(archive.store, 9)).run(tmp_path / "bag", EVERYTHING)
    assert "same command" in refused.value.hint
    away.rename(archive.root)
    done = await exporting(archive.store).run(tmp_path / "bag", EVERYTHING)
    assert (done.sessions, done.left_out) == (3, 0)
    assert verified(tmp_path / "bag").returncode == 0


STEPS = ("fsync", "rename", "mkdir", "write")


def _killed_at(step: int, url: str, folder: Path, bag: Path) -> bool:
    """Export in a process that is killed as it is about to take this step; whether it came so far."""
    child = os.fork()
    if not child:
        try:
            taken = 0

            def counting(real: Any) -> Any:
                def call(*arguments: Any, **options: Any) -> Any:
                    nonlocal taken
                    taken += 1
                    if taken == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*arguments, **options)

                return call

            for name in STEPS:
                setattr(os, name, counting(getattr(os, name)))

            async def work() -> None:
                async with sealed_archive(url, folder) as archive:
                    await export(archive, bag)

            asyncio.run(work())
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


async def _killed_everywhere(archive: SealedArchive, url: str, folder: Path, steps: Any) -> None:
    await export(archive, folder / "whole")
    expected = payload(folder / "whole")
    for step in steps:
        bag = folder / f"bag{step}"
        if not await asyncio.to_thread(_killed_at, step, url, folder, bag):
            break
        finished = (bag / "bagit.txt").exists()
        if finished:
            with pytest.raises(UsageError, match="is a finished bag"):
                await export(archive, bag)
        else:
            await export(archive, bag)
        assert payload(bag) == expected
        assert not (bag / ".export").exists()
        assert bag_holds(bag)
        for name in ("manifest-sha256.txt", "account.csv", "loadfile.csv", "bag-info.txt"):
            assert (bag / name).read_bytes() == (folder / "whole" / name).read_bytes()
        shutil.rmtree(bag)
    else:
        return
    assert step > 30


async def test_killed_at_any_step_it_goes_on_to_the_same_bag(archive: SealedArchive, database_url: str, tmp_path: Path) -> None:
    await _killed_everywhere(archive, database_url, tmp_path, (3, 17, 31, 45, 52))


@pytest.mark.thorough
async def test_killed_at_every_step_it_goes_on_to_the_same_bag(archive: SealedArchive, database_url: str, tmp_path: Path) -> None:
    await _killed_everywhere(archive, database_url, tmp_path, range(1, 1000))


async def test_what_was_begun_goes_on_with_the_same_choice_alone(
    archive: SealedArchive, database_url: str, tmp_path: Path
) -> None:
    bag = tmp_path / "bag"
    assert await asyncio.to_thread(_killed_at, 40, database_url, tmp_path, bag)
    with pytest.raises(UsageError, match="another choice"):
        await export(archive, bag, listed("s-one"))
    # What is sealed since then is not part of it; what was copied is looked at again.
    await archive.end("s-more", files={"a.wav": b"more"})
    await archive.sealer.finish()
    copied = sorted((bag / "data").rglob("*.wav"))
    content = copied[0].read_bytes()
    copied[0].write_bytes(b"other")
    with pytest.raises(ArchiverError, match="is not what was exported"):
        await export(archive, bag)
    copied[0].write_bytes(content)
    done = await export(archive, bag)
    assert (done.sessions, done.sealed.checkpoint.size) == (3, 4)
    assert done.taken_over
    assert verified(bag).returncode == 0


async def test_what_was_copied_and_cannot_be_proven_any_more_is_not_left_in_the_bag(
    archive: SealedArchive, database_url: str, tmp_path: Path
) -> None:
    bag = tmp_path / "bag"
    assert await asyncio.to_thread(_killed_at, 50, database_url, tmp_path, bag)
    assert len(list((bag / "data").iterdir())) > 1
    for record in archive.root.rglob("s-*/recording/session.json"):
        record.unlink()
    done = await export(archive, bag)
    assert (done.sessions, done.left_out, done.manifest_sha256) == (0, 3, "")
    assert not [path for path in bag.rglob("*") if path.is_file()], "and so no bag was made"


async def test_a_folder_may_have_any_name(archive: SealedArchive, tmp_path: Path) -> None:
    bag = tmp_path / os.fsdecode(b"b\xff [\x1b] '\"")
    assert (await export(archive, bag)).unrecorded is None
    assert verified(bag).returncode == 0
    with pytest.raises(ArchiverError, match="too long"):
        await export(archive, tmp_path / ("x" * 300))


async def test_two_exports_never_work_in_one_folder(archive: SealedArchive, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    results = await asyncio.gather(export(archive, bag), export(archive, bag), return_exceptions=True)
    assert sorted(isinstance(each, UsageError) for each in results) == [False, True]
    assert bag_holds(bag)


async def test_an_export_that_comes_and_goes_while_another_begins_keeps_its_bag(
    archive: SealedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = tmp_path / "bag"

    async def slowly(*arguments: Any) -> Any:
        monkeypatch.setattr(whole, "read_sealed", read_sealed)
        await export(archive, bag, listed("s-one"))
        return await read_sealed(*arguments)

    monkeypatch.setattr(whole, "read_sealed", slowly)
    with pytest.raises(UsageError, match="another export"):
        await export(archive, bag, listed("s-two"))
    assert (bag_holds(bag), verified(bag).returncode) == (True, 0)
    assert not (bag / ".export").exists()


async def test_the_proof_of_one_session_verifies_alone(archive: SealedArchive, tmp_path: Path) -> None:
    (session,) = await Exports(archive.database).find_sessions(["s-one"])
    write_proof(tmp_path / "proof", *await prove(archive.database, archive.store, session))
    folder = tmp_path / "proof"
    names = ("data/0001/entry.json", "data/0001/entry.tlog-proof")
    assert verified(folder, "--without-files").returncode == 0
    assert verified(folder, "--without-files", *names).returncode == 0
    assert "1.wav is missing" in verified(folder, *names).stdout.decode()
    (recording,) = archive.root.rglob("s-one/recording/a.wav")
    shutil.copy(recording, folder / "data/0001/1.wav")
    assert verified(folder).returncode == 0
    assert "belongs to nothing" in verified(folder, "--without-files").stdout.decode()
    with pytest.raises(UsageError, match="is not empty"):
        write_proof(folder, *await prove(archive.database, archive.store, session))
    await archive.retry("s-one")
    (session,) = await Exports(archive.database).find_sessions(["s-one"])
    with pytest.raises(ArchiverError, match=NOT_ENDED):
        await prove(archive.database, archive.store, session)


async def test_after_a_change_of_keys_the_one_that_signed_is_handed_out(archive: SealedArchive, tmp_path: Path) -> None:
    old = (await export(archive, tmp_path / "before")).sealed
    new = SealingKey.make(tmp_path / "new.key", "new")
    await archive.sealer.rotate(new)
    between = (await export(archive, tmp_path / "between")).sealed
    assert (between.key, between.checkpoint.size > 4) == (old.key, True)
    archive.sealer = archive.another_sealer(key_file=tmp_path / "new.key")
    await archive.end("s-more")
    await archive.sealer.finish()
    after = (await export(archive, tmp_path / "after")).sealed
    assert after.key == new.public
    assert signature_holds(tmp_path / "after")
    assert signature_holds(tmp_path / "between")


@pytest.mark.once
async def test_a_bucket_hands_out_what_it_has_and_names_what_was_changed(
    database_url: str, tmp_path: Path, seaweedfs: S3Server
) -> None:
    async with (
        s3_harness(seaweedfs) as bucket,
        sealed_archive(database_url, tmp_path, bucket.store) as archive,
    ):
        await filled(archive)
        assert (await export(archive, tmp_path / "bag")).left_out == 0
        keys = {row["session_id"]: row["store_key"] for row in await archive.fetch("SELECT * FROM archived_recordings")}
        bucket.put(keys["s-one"], b"changed")
        done = await export(archive, tmp_path / "other")
    assert [each["why"].partition(":")[0] for each in done.told] == ["changed"]
    assert verified(tmp_path / "bag").returncode == verified(tmp_path / "other").returncode == 0


async def test_a_database_that_was_rebuilt_hands_out_the_same(
    archive: SealedArchive, postgres: str, template: str, tmp_path: Path
) -> None:
    await export(archive, tmp_path / "before")
    async with another_database(postgres, template) as url, sealed_archive(url, tmp_path) as rebuilt:
        await rebuilt_of(rebuilt)
        await rebuilt.sealer.finish()
        await rebuilt.fetch("DELETE FROM archive_ledger_tiles")
        done = await export(rebuilt, tmp_path / "after")
    assert (done.sessions, done.left_out) == (3, 0)
    assert verified(tmp_path / "after").returncode == 0
    before, after = payload(tmp_path / "before"), payload(tmp_path / "after")
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {name for name in before if name.endswith(".tlog-proof")}


def test_a_choice_is_known_by_what_it_chooses() -> None:
    prints = [choice.fingerprint() for choice in (EVERYTHING, listed("x"), listed("y"), listed("x", "y"), listed("xy"))]
    assert len(set(prints)) == 5
    assert listed("x").fingerprint() == prints[1]
