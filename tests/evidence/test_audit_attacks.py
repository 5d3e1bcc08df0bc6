"""Whoever owns the database and the store, and has not the key, hides nothing: forged rows are sealed by the real sealer, and the
audit names what they were to hide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from archiver.outcome import Archived
from archiver.session import Attempt
from tests.evidence.audited import Copy
from tests.evidence.test_audit_edits import plant

pytestmark = pytest.mark.once


# --- what an attacker does


async def forge(copy: Copy, event: str, session_id: str, *, seal: bool = True) -> None:
    """An outbox row that says what the database says now; the real sealer seals it."""
    await copy.sql(
        "INSERT INTO archive_ledger_outbox (event, queue_id, body) "
        "SELECT $1, q.id, archive_ledger_body(q, archive_ledger_files(q.id), 'worker 7') "
        "FROM archive_queue q WHERE q.session_id = $2",
        event,
        session_id,
    )
    if seal:
        await copy.archive.sealer.finish()


async def reopen(copy: Copy, session_id: str) -> None:
    """As if it had been brought back, to wait for ever."""
    await copy.sql(
        "UPDATE archive_queue SET state = 'pending', finished_at = NULL, reason = NULL, run_at = '9000-01-01' "
        "WHERE session_id = $1",
        session_id,
    )
    await forge(copy, "reopened", session_id)


async def file_row(copy: Copy, session_id: str, key: str, content: bytes, ordinal: int = 1) -> None:
    """Plant an object, and a row that says it is a file of this session."""
    plant(copy, key, content)
    await copy.sql(
        """INSERT INTO archived_recordings
               (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name, queue_id)
           SELECT bot, session_id, kind, $2, 'x.wav', $3, $4, $5, 'x', id FROM archive_queue WHERE session_id = $1
           ORDER BY id DESC LIMIT 1""",
        session_id,
        ordinal,
        key,
        len(content),
        hashlib.sha256(content).hexdigest(),
    )


async def drop_transcriptions(copy: Copy) -> None:
    await copy.sql("DELETE FROM archived_recordings WHERE ordinal = 0")
    copy.path("bot=bot/*/s-two/*/transcriptions.json").unlink()


async def a_later_edition_without_the_transcriptions(copy: Copy) -> None:
    await drop_transcriptions(copy)
    await forge(copy, "described", "s-two")


async def that_waits_to_be_sealed(copy: Copy) -> None:
    await drop_transcriptions(copy)
    await forge(copy, "described", "s-two", seal=False)


async def open_without_transcriptions(copy: Copy) -> None:
    await reopen(copy, "s-two")
    await drop_transcriptions(copy)


async def open_with_other_transcriptions(copy: Copy) -> None:
    await reopen(copy, "s-two")
    copy.path("bot=bot/*/s-two/*/transcriptions.json").write_bytes(b"[]")
    await copy.sql("UPDATE archived_recordings SET sha256 = $1 WHERE ordinal = 0", hashlib.sha256(b"[]").hexdigest())


async def open_with_other_metadata(copy: Copy) -> None:
    await reopen(copy, "s-two")
    await copy.sql("UPDATE archive_queue SET metadata = '{\"a\": 2}' WHERE session_id = 's-two'")


async def moved_where_no_list_looks(copy: Copy) -> None:
    copy.path("bot=bot/*/s-one/*/a.wav").unlink()
    plant(copy, "lost+found/a.wav", b"Single")
    await copy.sql("UPDATE archived_recordings SET store_key = 'lost+found/a.wav' WHERE session_id = 's-one'")
    await forge(copy, "repaired", "s-one")


async def two_rows_of_one_session(copy: Copy) -> None:
    await copy.sql("ALTER TABLE archive_queue DROP CONSTRAINT archive_queue_session")
    columns = (
        "bot, session_id, kind, state, reason, detail, user_id, priority, started_at, ended_at, listed_at, enqueued_at, "
        "archive_date, finished_at, metadata, call"
    )
    other = columns.replace("user_id", "'eve'")
    await copy.sql(
        f"INSERT INTO archive_queue (id, {columns}) OVERRIDING SYSTEM VALUE "
        f"SELECT 999999, {other} FROM archive_queue WHERE session_id = 's-one'"
    )
    await file_row(copy, "s-one", "x/a.wav", b"planted")
    await copy.sql("UPDATE archived_recordings SET queue_id = 999999 WHERE store_key = 'x/a.wav'")


async def a_claim_behind_another(copy: Copy) -> None:
    claim = copy.root / "evidence/claim/000000000005"
    plant(copy, "evidence/claim/000000000005.2", claim.read_bytes())
    claim.write_bytes(b"x")


async def a_claim_gone_behind_another(copy: Copy) -> None:
    claim = copy.root / "evidence/claim/000000000005"
    claim.rename(claim.with_name("000000000005.2"))


async def numerals_of_other_alphabets(copy: Copy) -> None:
    plant(copy, "evidence/checkpoint/" + "000000000008".translate({48 + n: 0x660 + n for n in range(10)}) + ".sig")


async def an_object_of_a_session_that_waits(copy: Copy) -> None:
    await copy.sql("INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', 's-forged', '9000-01-01')")
    await file_row(copy, "s-forged", "x/a.wav", b"planted")


async def an_object_of_one_whose_id_is_not_in_the_ledger(copy: Copy) -> None:
    await file_row(copy, "+49 170 1234567", "x/a.wav", b"planted", ordinal=0)


async def adopted_for_ever(copy: Copy) -> None:
    await copy.sql("UPDATE archive_ledger_head SET adopt_before = 'infinity'")
    await copy.sql(
        "INSERT INTO archive_queue (bot, session_id, state, finished_at) "
        "VALUES ('bot', 's-forged', 'archived', now() - interval '1 hour')"
    )
    await file_row(copy, "s-forged", "x/a.wav", b"planted")


async def a_file_of_no_row(copy: Copy) -> None:
    await file_row(copy, "s-one", "x/a.wav", b"planted")
    (copy.root / "x/a.wav").unlink()
    await copy.sql("UPDATE archived_recordings SET queue_id = 999999 WHERE store_key = 'x/a.wav'")


async def waiting_for_ever(copy: Copy) -> None:
    await copy.sql("UPDATE archive_queue SET reason = 'x' WHERE session_id = 's-none'")
    await forge(copy, "described", "s-none", seal=False)
    await copy.sql("UPDATE archive_ledger_outbox SET at = '9000-01-01'")


async def another_reason_in_what_only_describes(copy: Copy) -> None:
    await copy.sql("UPDATE archive_queue SET reason = 'x' WHERE session_id = 's-none'")
    await forge(copy, "described", "s-none")


async def a_recording_in_what_only_describes(copy: Copy) -> None:
    await file_row(copy, "s-one", "x/a.wav", b"planted", ordinal=2)
    await forge(copy, "described", "s-one")


ATTACKS: list[tuple[Callable[[Copy], Awaitable[None]], set[str]]] = [
    (a_later_edition_without_the_transcriptions, {"contradiction"}),
    (that_waits_to_be_sealed, {"contradiction"}),
    (open_without_transcriptions, {"row_differs"}),
    (open_with_other_transcriptions, {"row_differs"}),
    (open_with_other_metadata, {"row_differs"}),
    (moved_where_no_list_looks, {"changed"}),
    (two_rows_of_one_session, {"row_unrecorded"}),
    (a_claim_behind_another, {"checkpoint_wrong"}),
    (a_claim_gone_behind_another, {"ledger_gap"}),
    (numerals_of_other_alphabets, {"unrecorded"}),
    (an_object_of_one_whose_id_is_not_in_the_ledger, {"row_unrecorded"}),
    (a_file_of_no_row, {"row_unrecorded"}),
    (waiting_for_ever, {"unsealed"}),
    (another_reason_in_what_only_describes, {"contradiction"}),
    (a_recording_in_what_only_describes, {"contradiction"}),
]


async def test_an_adoption_that_begins_again_is_counted(copy: Copy) -> None:
    """Any row may say that it ended long ago: the database alone knows what is still to be adopted. docs/evidence.md says so."""
    assert (await copy.audit()).to_adopt == 0
    await adopted_for_ever(copy)
    assert (await copy.audit()).to_adopt == 1


async def test_objects_of_a_session_that_waits_are_counted(copy: Copy) -> None:
    """A row that waits for ever may name any object: so many are not recorded."""
    before = (await copy.audit()).pending_objects
    await an_object_of_a_session_that_waits(copy)
    report = await copy.audit()
    assert (report.clean, report.pending_objects) == (True, before + 1)


async def test_what_is_known_already_hides_nothing_else(copy: Copy) -> None:
    """Of each kind the first are named."""
    for _ in range(30):
        await copy.sql("INSERT INTO archive_ledger_outbox (event, queue_id, body) VALUES ('settled', 1, '{}')")
    await forge(copy, "damaged", "s-one")
    copy.path("bot=bot/*/s-one/*/a.wav").unlink()
    report = await copy.audit()
    assert "damaged" in {known.name for known in report.findings.known}


@pytest.mark.parametrize(("attack", "expected"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
async def test_each_attack_is_named(copy: Copy, attack: Callable[[Copy], Awaitable[None]], expected: set[str]) -> None:
    await attack(copy)
    report = await copy.audit()
    assert set(report.findings.counts) == expected, report.findings.documents()


async def test_a_database_that_looks_shorter_to_the_audit_alone(copy: Copy) -> None:
    """What was sealed after the database was read is held against nothing: so nothing old passes for that."""
    await copy.sql("UPDATE archive_ledger_outbox SET at = '2020-01-01'")
    await copy.archive.sealer.finish()
    await copy.sql(
        """DELETE FROM archived_recordings WHERE session_id = 's-fresh';
           UPDATE archive_queue SET state = 'pending', finished_at = NULL WHERE session_id = 's-fresh';
           ALTER TABLE archive_ledger_head RENAME TO real_head;
           CREATE VIEW archive_ledger_head AS
           SELECT r.one, r.origin, r.public_key, r.signers, r.frontier, r.published_at, r.begun_at, r.adopt_before, r.adopt_id,
                  least(r.published, s.size) AS published, s.size, s.root
           FROM real_head r, LATERAL (
               SELECT size, root FROM saved.archive_ledger_head WHERE current_setting('transaction_isolation') = 'repeatable read'
               UNION ALL SELECT r.size, r.root LIMIT 1) s"""
    )
    copy.path("bot=bot/*/s-fresh/*/a.wav").unlink()
    try:
        assert await copy.found(patience=timedelta(days=9999)) == {"rolled_back"}
    finally:
        await copy.sql("DROP VIEW archive_ledger_head; ALTER TABLE real_head RENAME TO archive_ledger_head")


async def test_a_recording_of_many_that_was_replaced(copy: Copy) -> None:
    """The entries of a session with so many files have their number alone."""
    archive = copy.archive
    attempt = Attempt(await archive.claimed("s-many"), calls=1)
    for number in range(1, 901):
        attempt.stored.append(await archive.put(attempt.session, number, f"{number}.wav", b"%d" % number))
    await archive.settle(attempt, Archived())
    await archive.sealer.finish()
    assert await copy.found() == set()
    copy.path("bot=bot/*/s-many/*/500.wav").rename(copy.path("bot=bot/*/s-many/*/499.wav").with_name("500b.wav"))
    copy.path("bot=bot/*/s-many/*/500b.wav").write_bytes(b"XXX")
    await copy.sql(
        """UPDATE archived_recordings SET store_key = replace(store_key, '500.wav', '500b.wav'), sha256 = $1
           WHERE session_id = 's-many' AND ordinal = 500""",
        hashlib.sha256(b"XXX").hexdigest(),
    )
    await forge(copy, "repaired", "s-many")
    assert await copy.found() == {"contradiction"}
