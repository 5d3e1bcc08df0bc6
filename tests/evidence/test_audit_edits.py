"""Whatever is edited in a sealed archive, its audit names it; and of what was not edited it says nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from tests.evidence.audited import Copy

pytestmark = pytest.mark.once


@pytest.mark.parametrize("deep", [True, False])
async def test_an_archive_that_nobody_edited_is_clean(copy: Copy, deep: bool) -> None:
    report = await copy.audit(deep=deep)
    assert report.findings.documents() == []
    assert report.clean


def flip(path: Path, at: int = -2) -> None:
    """Another byte, of the same length."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def relined(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


FIRST = "evidence/ledger/000000000000-000000000003.jsonl"
MIDDLE = "evidence/ledger/000000000005-000000000007.jsonl"


def rolled_back(copy: Copy, *, claims: bool = True) -> None:
    """The store without the two newest batches."""
    for size, first, last in ((15, 13, 14), (16, 15, 15)):
        (copy.root / f"evidence/checkpoint/{size:012}").unlink()
        (copy.root / f"evidence/checkpoint/{size:012}.sig").unlink()
        (copy.root / f"evidence/ledger/{first:012}-{last:012}.jsonl").unlink()
        if claims:
            (copy.root / f"evidence/claim/{first:012}").unlink()


def plant(copy: Copy, key: str, content: bytes = b"planted") -> None:
    path = copy.root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


STORE_EDITS: dict[str, tuple[Callable[[Copy], object], set[str]]] = {
    "a byte of a recording": (lambda c: flip(c.path("bot=bot/*/s-two/*/a.wav")), {"changed"}),
    "a recording that is longer": (lambda c: c.path("bot=bot/*/s-two/*/a.wav").write_bytes(b"one more"), {"changed"}),
    "a recording that is empty": (lambda c: c.path("bot=bot/*/s-two/*/a.wav").write_bytes(b""), {"changed"}),
    "a byte of the transcriptions": (lambda c: flip(c.path("bot=bot/*/s-two/*/transcriptions.json")), {"changed"}),
    "a recording gone": (lambda c: c.path("bot=bot/*/s-one/*/a.wav").unlink(), {"recording_missing"}),
    "a recording of a session that is open gone": (
        lambda c: c.path("bot=bot/*/s-accepted/*/a.wav").unlink(),
        {"recording_missing"},
    ),
    "a byte of a record": (lambda c: flip(c.path("bot=bot/*/s-none/*/session.json"), 40), {"record_changed"}),
    "a byte of an earlier record": (lambda c: flip(c.path("bot=bot/*/s-again/*/session.json"), 40), {"record_changed"}),
    "a longer record": (lambda c: c.path("bot=bot/*/s-one/*/session.2.json").write_bytes(b"{}"), {"record_changed"}),
    "a record gone": (lambda c: c.path("bot=bot/*/s-cancelled/*/session.json").unlink(), {"record_missing"}),
    "a record of an adopted session gone": (lambda c: c.path("bot=bot/*/s-old/*/session.json").unlink(), {"record_missing"}),
    "records swapped": (
        lambda c: swap(c.path("bot=bot/*/s-none/*/session.json"), c.path("bot=bot/*/s-cancelled/*/session.json")),
        {"record_changed"},
    ),
    "an entry's byte": (lambda c: flip(c.root / MIDDLE, 30), {"root_mismatch"}),
    "a byte of the first entry": (lambda c: flip(c.root / FIRST, 300), {"root_mismatch"}),
    "an entry dropped": (lambda c: relined(c.root / MIDDLE, lambda lines: lines[1:]), {"root_mismatch"}),
    "an entry twice": (lambda c: relined(c.root / MIDDLE, lambda lines: [lines[0], *lines]), {"root_mismatch"}),
    "entries swapped": (lambda c: relined(c.root / MIDDLE, lambda lines: lines[::-1]), {"root_mismatch"}),
    "a segment that is longer": (lambda c: relined(c.root / MIDDLE, lambda lines: [*lines, b"\n"]), {"root_mismatch"}),
    "a segment without its last newline": (
        lambda c: relined(c.root / MIDDLE, lambda lines: [*lines[:-1], lines[-1][:-1]]),
        {"root_mismatch"},
    ),
    "a segment of returns": (
        lambda c: relined(c.root / MIDDLE, lambda lines: [line.replace(b"\n", b"\r\n") for line in lines]),
        {"root_mismatch"},
    ),
    "an empty segment": (lambda c: (c.root / MIDDLE).write_bytes(b""), {"root_mismatch"}),
    "a segment without lines": (lambda c: (c.root / MIDDLE).write_bytes(b"\0" * 200_000), {"root_mismatch"}),
    "a segment gone": (lambda c: (c.root / MIDDLE).unlink(), {"ledger_gap"}),
    "the first segment gone": (lambda c: (c.root / FIRST).unlink(), {"ledger_gap"}),
    "the newest segment gone": (lambda c: c.path("evidence/ledger/*15-*.jsonl").unlink(), {"rolled_back"}),
    "a checkpoint's byte": (lambda c: flip(c.root / "evidence/checkpoint/000000000008"), {"checkpoint_wrong"}),
    "a checkpoint's root": (lambda c: flip(c.root / "evidence/checkpoint/000000000008", 30), {"checkpoint_wrong"}),
    "the newest checkpoint's byte": (lambda c: flip(c.root / "evidence/checkpoint/000000000016"), {"checkpoint_wrong"}),
    "a checkpoint with more behind": (
        lambda c: appended(c.root / "evidence/checkpoint/000000000008", b"\n"),
        {"checkpoint_wrong"},
    ),
    "an empty checkpoint": (lambda c: (c.root / "evidence/checkpoint/000000000008").write_bytes(b""), {"checkpoint_wrong"}),
    "an earlier checkpoint in its place": (
        lambda c: swap(c.root / "evidence/checkpoint/000000000008", c.root / "evidence/checkpoint/000000000005"),
        {"checkpoint_wrong"},
    ),
    "a middle checkpoint gone": (lambda c: (c.root / "evidence/checkpoint/000000000008").unlink(), {"ledger_gap"}),
    "the newest checkpoint gone": (lambda c: (c.root / "evidence/checkpoint/000000000016").unlink(), {"rolled_back"}),
    "a signature's byte": (lambda c: flip(c.root / "evidence/checkpoint/000000000008.sig", 60), {"checkpoint_wrong"}),
    "a signature of other base64": (
        lambda c: appended(c.root / "evidence/checkpoint/000000000008.sig", b"\n"),
        {"checkpoint_wrong"},
    ),
    "a signature gone": (lambda c: (c.root / "evidence/checkpoint/000000000008.sig").unlink(), {"checkpoint_wrong"}),
    "a claim's byte": (lambda c: flip(c.root / "evidence/claim/000000000005"), {"checkpoint_wrong"}),
    "a claim gone": (lambda c: (c.root / "evidence/claim/000000000005").unlink(), {"ledger_gap"}),
    "another batch's claim": (
        lambda c: swap(c.root / "evidence/claim/000000000005", c.root / "evidence/claim/000000000008"),
        {"fork"},
    ),
    "the format": (lambda c: flip(c.root / "evidence/FORMAT.md"), {"evidence_changed"}),
    "the schema gone": (lambda c: (c.root / "evidence/session-v1.schema.json").unlink(), {"evidence_changed"}),
    "the signers": (lambda c: flip(c.root / "evidence/keys/0001.allowed_signers", 60), {"evidence_changed"}),
    "the newest batches gone": (rolled_back, {"rolled_back"}),
    "the newest batches gone, and not their claims": (lambda c: rolled_back(c, claims=False), {"rolled_back"}),
    "all evidence gone": (lambda c: shutil.rmtree(c.root / "evidence"), {"rolled_back"}),
    "all recordings gone": (lambda c: shutil.rmtree(c.root / "bot=bot"), {"recording_missing", "record_missing"}),
    "an object": (lambda c: plant(c, "bot=bot/date=2026-01-01/x/recording/a.wav"), {"unrecorded"}),
    "an object at the top": (lambda c: plant(c, "notes.txt"), {"unrecorded"}),
    "one more edition": (
        lambda c: plant(c, f"{c.path('bot=bot/*/s-none/*/session.json').parent.relative_to(c.root)}/session.2.json"),
        {"unrecorded"},
    ),
    "an object among the evidence": (lambda c: plant(c, "evidence/claim/12"), {"unrecorded"}),
    "a record among the evidence": (lambda c: plant(c, f"evidence/record/{'0' * 64}.json"), {"unrecorded"}),
    "a segment far behind": (lambda c: plant(c, "evidence/ledger/000000000900-000000000901.jsonl", b"{}\n{}\n"), {"unrecorded"}),
    "a segment within another": (lambda c: plant(c, "evidence/ledger/000000000006-000000000007.jsonl", b"{}\n"), {"unrecorded"}),
    "a checkpoint that nobody signed": (lambda c: plant(c, "evidence/checkpoint/000000000007"), {"unrecorded"}),
    "a claim that nobody signed": (lambda c: plant(c, "evidence/claim/000000000016"), {"unrecorded"}),
    "more signers": (lambda c: plant(c, "evidence/keys/0002.allowed_signers"), {"unrecorded"}),
    "a link for a recording": (lambda c: linked(c.path("bot=bot/*/s-one/*/a.wav")), {"changed", "unrecorded"}),
    "a folder for a record": (lambda c: foldered(c.path("bot=bot/*/s-none/*/session.json")), {"record_missing"}),
}


def appended(path: Path, more: bytes) -> None:
    path.write_bytes(path.read_bytes() + more)


def linked(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def foldered(path: Path) -> None:
    path.unlink()
    path.mkdir()


async def test_each_edit_of_the_store_is_named(copy: Copy) -> None:
    found = {}
    for name, (edit, _) in STORE_EDITS.items():
        edit(copy)
        found[name] = await copy.found()
        await copy.restore()
    assert found == {name: expected for name, (_, expected) in STORE_EDITS.items()}
    assert await copy.found() == set()


async def test_what_a_plain_audit_does_not_see(copy: Copy) -> None:
    """A byte of a recording, and one of a record that is neither new nor sampled."""
    flip(copy.path("bot=bot/*/s-two/*/a.wav"))
    flip(copy.path("bot=bot/*/s-none/*/session.json"), 40)
    assert await copy.found(deep=False) == set()
    assert await copy.found(deep=False, sample=Fraction(1)) == {"record_changed"}


Q = "UPDATE archive_queue SET {} WHERE session_id = '{}'"
OF = "FROM archive_queue q WHERE q.id = r.queue_id AND q.session_id = '{}' AND r.file_name = 'a.wav'"
R = "UPDATE archived_recordings r SET {} " + OF
ONE_MORE_FILE = f"""
    INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name, queue_id)
    SELECT bot, session_id, kind, 2, 'c.wav', 'c.wav', 5, '{"0" * 64}', 'c', id FROM archive_queue WHERE session_id = 's-one'
"""

ROW_EDITS: dict[str, tuple[str, set[str]]] = {
    "another state": (Q.format("state = 'failed', reason = 'x'", "s-one"), {"row_differs"}),
    "not found after all": (Q.format("state = 'archived', reason = NULL, recheck_at = NULL", "s-none"), {"row_differs"}),
    "open again": (Q.format("state = 'pending', finished_at = NULL, reason = NULL", "s-one"), {"row_differs"}),
    "ended": (Q.format("state = 'failed', worker_id = NULL, finished_at = now(), reason = 'x'", "s-back"), {"row_differs"}),
    "the state of one whose ID is not in the ledger": (Q.format("state = 'cancelled'", "+49 170 1234567"), {"row_differs"}),
    "another ID": (Q.format("session_id = 's-other'", "s-none"), {"row_missing", "row_unrecorded"}),
    "another ID of one whose ID is not in the ledger": (
        Q.format("session_id = '+49'", "+49 170 1234567"),
        {"row_missing", "row_unrecorded"},
    ),
    "another reason": (Q.format("reason = 'x'", "s-none"), {"row_differs"}),
    "other facts": (Q.format('detail = \'{"message": "x"}\'', "s-none"), {"row_differs"}),
    "another user": (Q.format("user_id = 'eve'", "s-two"), {"row_differs"}),
    "no user": (Q.format("user_id = NULL", "s-two"), {"row_differs"}),
    "another beginning": (Q.format("started_at = started_at + interval '1 day'", "s-one"), {"row_differs"}),
    "another end": (Q.format("ended_at = '2020-01-01'", "s-one"), {"row_differs"}),
    "another date": (Q.format("archive_date = '2020-01-01'", "s-one"), {"row_differs"}),
    "another time of entry": (Q.format("enqueued_at = '2020-01-01'", "s-one"), {"row_differs"}),
    "another time of ending": (Q.format("finished_at = '2020-01-01'", "s-one"), {"row_differs"}),
    "other metadata": (Q.format("metadata = '{\"a\": 2}'", "s-two"), {"row_differs"}),
    "other facts of the call": (Q.format('call = \'{"caller": "+49 30 2"}\'', "s-one"), {"row_differs"}),
    "another answer for it": (Q.format("accepted_by = 'eve'", "s-accepted"), {"row_differs"}),
    "nobody answers": (Q.format("accepted_by = NULL, accepted_at = NULL, accept_reason = NULL", "s-accepted"), {"row_differs"}),
    "another reason of one that waits to be sealed": (Q.format("reason = 'x'", "s-fresh"), {"row_differs"}),
    "another state of one that waits to be sealed": (Q.format("state = 'failed', reason = 'x'", "s-fresh"), {"row_differs"}),
    "another hash": (R.format(f"sha256 = '{'0' * 64}'", "s-one"), {"row_differs", "changed"}),
    "another length": (R.format("bytes = 7", "s-one"), {"row_differs", "changed"}),
    "another key": (R.format("store_key = 'x/a.wav'", "s-one"), {"row_differs", "recording_missing", "unrecorded"}),
    "another place": (R.format("ordinal = 7", "s-one"), {"row_differs"}),
    "another type": (R.format("media_type = 'x'", "s-one"), {"row_differs"}),
    "another name": (R.format("source_name = 'x'", "s-one"), {"row_differs"}),
    "other flags": (R.format("flags = '{}'", "s-one"), {"row_differs"}),
    "another duration": (R.format("seconds = 99", "s-one"), {"row_differs"}),
    "another time of storing": (R.format("archived_at = '2020-01-01'", "s-one"), {"row_differs"}),
    "a file's row gone": (
        "DELETE FROM archived_recordings r USING archive_queue q WHERE q.id = r.queue_id AND q.session_id = 's-one'",
        {"row_differs"},
    ),
    "the transcriptions' row gone": ("DELETE FROM archived_recordings WHERE ordinal = 0", {"row_differs", "unrecorded"}),
    "a row gone": ("DELETE FROM archive_queue WHERE session_id = 's-one'", {"row_missing", "row_unrecorded"}),
    "a row that nobody recorded": (
        "INSERT INTO archive_queue (bot, session_id, state, reason, finished_at) VALUES ('bot', 's-new', 'failed', 'x', now())",
        {"row_unrecorded"},
    ),
    "a file's row that nobody recorded": (
        ONE_MORE_FILE,
        {"row_unrecorded", "row_differs", "recording_missing"},
    ),
    "an outbox row gone": ("DELETE FROM archive_ledger_outbox", {"row_unrecorded"}),
    "the tree": ("UPDATE archive_ledger_head SET root = sha256('x')", {"fork"}),
    "a shorter tree": ("UPDATE archive_ledger_head SET size = 13, published = 13", {"fork", "rolled_back"}),
    "a longer tree": ("UPDATE archive_ledger_head SET size = 99, published = 99", {"rolled_back"}),
    "a longer tree that hides an edit": (
        """UPDATE archive_ledger_head SET size = 99; UPDATE archive_queue SET state = 'failed' WHERE session_id = 's-one';
           INSERT INTO archive_ledger (seq, queue_id) SELECT 98, id FROM archive_queue WHERE session_id = 's-one'""",
        {"rolled_back"},
    ),
    "a batch that nobody signed": (
        """INSERT INTO archive_ledger_batches (first, last, checkpoint, signature, lines, object_keys, objects)
           SELECT 16, 16, checkpoint, '', 'x\n', '{}', '{}' FROM archive_ledger_batches WHERE first = 15;
           UPDATE archive_ledger_head SET size = 17""",
        {"rolled_back", "root_mismatch"},
    ),
    "no ledger": ("DELETE FROM archive_ledger_head", {"rolled_back"}),
    "a salt": ("UPDATE archive_ledger SET salt = 'x' WHERE salt IS NOT NULL", {"row_missing", "row_unrecorded"}),
}


async def test_each_edit_of_the_database_is_named(copy: Copy) -> None:
    found = {}
    for name, (edit, _) in ROW_EDITS.items():
        await copy.sql(edit)
        found[name] = await copy.found()
        await copy.restore()
    assert found == {name: expected for name, (_, expected) in ROW_EDITS.items()}
    assert await copy.found() == set()
