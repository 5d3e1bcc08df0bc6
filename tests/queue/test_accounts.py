"""What accounts leave behind: which sessions somebody has to see to, what was accepted of them, and which days are complete."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from archiver.account.closing import find_earlier
from archiver.account.items import Item
from archiver.account.reconcile import Account
from archiver.outcome import Archived, Failed
from archiver.queue.accounts import AccountDay, Accounts, NewAccount, OpenCounts
from archiver.queue.search import Chosen, Search
from archiver.queue.sql import sql
from archiver.session import Attempt, State
from tests.queue.conftest import QueueHarness, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

MISSING = {"mismatch": "file_missing", "store_key": "k", "bytes": 44}
SIZE = {"mismatch": "file_size", "store_key": "k", "bytes": 44, "found": 3}
SHORT: dict[str, Any] = {"mismatch": "shorter_than_call", "call_seconds": 100.0, "recorded_seconds": [60.0, 10.0]}

BEGAN = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def accounts(harness: QueueHarness) -> Accounts:
    return Accounts(harness.database)


async def archived(harness: QueueHarness, session_id: str = "s-1") -> int:
    session = await harness.claim_one(session_id)
    await harness.settle(Attempt(session, [stored_file()], calls=1), Archived())
    return int((await harness.row(session_id))["id"])


async def assert_open(harness: QueueHarness, *expected: str) -> None:
    """However it is asked for."""
    accounts = Accounts(harness.database)
    listed = [each.session_id async for each in Search(harness.database).find(Chosen(acceptance="open"), limit=None)]
    assert sorted(listed) == sorted(expected)
    assert sorted(each.session_id for each in await accounts.list_open(["bot"], without=[], max_rows=9)) == sorted(expected)
    counts = await accounts.count_open(["bot"], without=[])
    assert counts.failed + counts.mismatched == len(expected)


async def test_what_is_found_wrong_anew_after_it_was_right_is_open(harness: QueueHarness, accounts: Accounts) -> None:
    queue_id = await archived(harness)
    await accounts.keep_findings({queue_id: [MISSING]}, [], actor="nightly")
    assert await harness.operators.accept(actor="me", reason="so be it") == ["s-1"]
    await assert_open(harness)
    await accounts.keep_findings({}, [queue_id], actor="nightly")  # the file is back
    await accounts.keep_findings({queue_id: [SIZE]}, [], actor="nightly")  # and now it is cut off: nobody accepted that
    await assert_open(harness, "s-1")


async def test_what_differs_is_not_what_was_accepted(harness: QueueHarness, accounts: Accounts) -> None:
    queue_id = await archived(harness)
    await accounts.keep_findings({queue_id: [SHORT]}, [], actor="nightly")
    await harness.operators.accept(actor="me", reason="so be it")
    await accounts.keep_findings({queue_id: [{**SHORT, "recorded_seconds": [10.0]}]}, [], actor="nightly")
    await assert_open(harness, "s-1")


async def test_accepting_one_mismatch_leaves_the_others_open_until_they_are_accepted_too(
    harness: QueueHarness, accounts: Accounts
) -> None:
    queue_id = await archived(harness)
    await accounts.keep_findings({queue_id: [MISSING, SHORT]}, [], actor="nightly")
    assert await harness.operators.accept(actor="me", reason="music on hold", errors=["shorter_than_call"]) == ["s-1"]
    await assert_open(harness, "s-1")
    assert await harness.operators.accept(actor="me", reason="lost", errors=["file_missing"]) == ["s-1"]
    await assert_open(harness)


async def test_what_a_retry_undid_is_not_accepted_by_accepting_something_else(harness: QueueHarness, accounts: Accounts) -> None:
    queue_id = await archived(harness)
    await accounts.keep_findings({queue_id: [MISSING, SHORT]}, [], actor="nightly")
    await harness.operators.accept(actor="me", reason="so be it")
    await harness.operators.retry(actor="me", states=[State.ARCHIVED])
    (again,) = await harness.claim(await harness.worker())
    await harness.settle(Attempt(again, calls=1, listed=1), Archived())
    await assert_open(harness, "s-1")
    await harness.operators.accept(actor="me", reason="music on hold", errors=["shorter_than_call"])
    await assert_open(harness, "s-1")


async def test_what_moved_since_it_was_chosen_is_not_accepted(harness: QueueHarness, accounts: Accounts) -> None:
    queue_id = await archived(harness)
    failed = await harness.claim_one("s-2")
    await harness.settle(Attempt(failed), Failed("conflict"))
    await accounts.keep_findings({queue_id: [SIZE]}, [], actor="nightly")
    row = await harness.row("s-2")
    chosen = [
        {"id": queue_id, "epoch": (await harness.row("s-1"))["epoch"], "fails": False, "findings": [SIZE]},
        {"id": row["id"], "epoch": row["epoch"] - 1, "fails": True, "findings": []},
    ]
    await accounts.keep_findings({queue_id: [MISSING]}, [], actor="nightly")
    assert await harness.database.rows(sql("operate/accept"), chosen=chosen, reason="x", actor="me") == []
    await assert_open(harness, "s-1", "s-2")


async def test_what_more_was_fetched_for_is_not_open(harness: QueueHarness, accounts: Accounts) -> None:
    """The platform may list that call no more, so that no account would say so."""
    queue_id = await archived(harness)
    await accounts.keep_findings({queue_id: [{"mismatch": "fewer_files", "listed": 2, "stored": 1}]}, [], actor="nightly")
    await harness.operators.retry(actor="me", states=[State.ARCHIVED])
    (again,) = await harness.claim(await harness.worker())
    await harness.settle(Attempt(again, [stored_file(2)], calls=1, listed=2), Archived())
    await assert_open(harness)


async def test_what_is_missing_stays_open_when_nothing_came_of_asking_again(harness: QueueHarness, accounts: Accounts) -> None:
    queue_id = await archived(harness)
    await accounts.keep_findings({queue_id: [MISSING]}, [], actor="nightly")
    await harness.operators.retry(actor="me", states=[State.ARCHIVED])
    (again,) = await harness.claim(await harness.worker())
    await harness.settle(Attempt(again, calls=1, listed=1), Archived())
    await assert_open(harness, "s-1")


async def test_low_priority_in_an_account_hides_no_earlier_failure(harness: QueueHarness) -> None:
    await harness.add("early", "named")
    await harness.add("low-1", priority="low")
    for session in await harness.claim(await harness.worker()):
        await harness.settle(Attempt(session, calls=1), Failed("conflict"))
    items = [Item("bot", name, "recording", "failed", "conflict", None) for name in ("low-1", "named")]
    account = Account()
    account.items.extend(items)
    earlier = await find_earlier(harness.database, account, ["bot"])
    assert [each.session_id for each in earlier.sessions] == ["early"]
    assert (earlier.failed, earlier.mismatched) == (1, 0)


async def test_what_a_producer_wrote_wrong_is_in_no_nights_report(harness: QueueHarness, accounts: Accounts) -> None:
    await harness.add("in valid")
    await harness.add("s-1", kind="fax")
    assert await accounts.count_open(["bot"], without=[]) == OpenCounts(0, 0)
    assert await accounts.list_open(["bot"], without=[], max_rows=9) == []


async def keep(accounts: Accounts, *, hours: int, failed: int) -> None:
    """An account of so many hours of that day."""
    end = BEGAN + timedelta(hours=hours)
    counts = {"calls": 1, "archived": 1 - failed, "failed": failed}
    day = AccountDay("bot", BEGAN.date(), "UTC", BEGAN, end, hours == 24, hours == 24 and not failed, failed, counts)
    await accounts.keep(NewAccount("reconcile", "0", BEGAN, end, not failed, counts, [], {}, [day]), actor="me")


@pytest.mark.parametrize(
    ("made", "complete"),
    [
        ([(24, 0)], True),
        ([(24, 1)], False),
        ([(12, 0)], False),
        ([(24, 0), (12, 0)], True),
        ([(24, 0), (12, 1)], False),
        ([(24, 0), (12, 1), (24, 0)], True),
        ([(24, 0), (24, 1)], False),
        ([(12, 1), (24, 0)], True),
    ],
)
async def test_the_latest_word_on_a_day_counts(accounts: Accounts, made: list[tuple[int, int]], complete: bool) -> None:
    for hours, failed in made:
        await keep(accounts, hours=hours, failed=failed)
    (known,) = await accounts.list_days(["bot"], date(2026, 3, 1), date(2026, 3, 3))
    assert (known.complete and not known.open_later) == complete
    assert await accounts.last_complete_days() == {"bot": BEGAN.date() if complete else None}
