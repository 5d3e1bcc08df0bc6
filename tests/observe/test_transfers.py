"""What is known of recordings on their way: their pace, how long they have been at it, and what of it is written down."""

from __future__ import annotations

from contextlib import suppress

import pytest

from archiver.observe.transfers import BUCKETS, Durations, HostPace, Transfer, Transfers
from archiver.worker.progress import LISTED, progress_of


def test_a_rate_is_that_of_the_last_seconds_not_since_the_start() -> None:
    transfer = Transfer("bot", "s", "a.wav", began=100.0)
    assert transfer.rate(100.0) == 0
    for second in range(1, 11):
        transfer.received += 1000
        transfer.read(100.0 + second)
    assert transfer.rate(110.0) == pytest.approx(1000)
    for second in range(11, 16):
        transfer.received += 50
        transfer.read(100.0 + second)
    assert transfer.rate(115.0) == pytest.approx(50)


def test_what_stalls_has_a_rate_of_nothing_within_seconds() -> None:
    transfer = Transfer("bot", "s", "a.wav", received=10**9, began=100.0)
    for second in range(1, 7):
        transfer.read(100.0 + second)
    assert transfer.rate(106.0) == 0


def test_a_body_that_begins_anew_has_no_negative_rate() -> None:
    transfer = Transfer("bot", "s", "a.wav", began=100.0)
    transfer.received = 5000
    transfer.read(101.0)
    transfer.received = 0
    transfer.read(102.0)
    assert transfer.rate(102.0) == 0


def test_a_transfer_is_listed_while_it_runs_and_counted_once_it_ended_well() -> None:
    transfers = Transfers()
    with transfers.track("bot", "s", "a.wav") as first, transfers.track("other", "t", "b.wav") as second:
        transfers.count(first, 3)
        transfers.count(second, 4)
        assert transfers.lasting(0, second.began) == [first, second], "the longest first"
        assert transfers.lasting(1, first.began + 0.5) == []
    with suppress(RuntimeError), transfers.track("bot", "s", "a.wav") as failed:
        transfers.count(failed, 5)
        raise RuntimeError
    assert not transfers.running
    assert (transfers.bytes, transfers.received) == (12, {"bot": 8, "other": 4})
    assert {bot: sum(durations.counts) for bot, durations in transfers.durations.items()} == {"bot": 1, "other": 1}


@pytest.mark.parametrize("seconds", [0.0, *BUCKETS, 1e6])
def test_how_long_it_took_is_counted_up_to_the_bound(seconds: float) -> None:
    durations = Durations()
    durations.add(seconds)
    place = durations.counts.index(1)
    assert place == len(BUCKETS) or seconds <= BUCKETS[place]
    assert place == 0 or seconds > BUCKETS[place - 1]
    assert durations.seconds == seconds


def test_what_is_written_down_is_bounded_and_counts_the_rest() -> None:
    large = [Transfer("bot", f"s{number}", "a.wav", total=100, received=10, began=float(number)) for number in range(LISTED + 50)]
    progress = progress_of(large, 12345, now=1000.0)
    assert [one["session_id"] for one in progress["transfers"]] == [f"s{number}" for number in range(LISTED)]
    assert (progress["running"], progress["bytes"], progress["total"]) == (LISTED + 50, 10 * len(large), 100 * len(large))
    large[-1].total = None
    assert progress_of(large, 0, now=1000.0)["total"] is None, "what one will bring is not known"


def test_a_hosts_pace_is_that_over_the_time_that_it_was_waited_for() -> None:
    """Our own disk, memory and bandwidth may take what they take."""
    transfers = Transfers()
    transfers.window = 10.0
    with transfers.track("bot", "s", "a.wav") as slow, transfers.track("bot", "t", "b.wav") as fast:
        for second in range(12):
            transfers.count(slow, 100)
            transfers.count(fast, 100)
            slow.wait(1.0)
            fast.wait(0.001)
            transfers.read(slow.began + second)
        assert slow.hosts.rate == pytest.approx(100)
        assert fast.hosts.rate is None
        assert transfers.slowest(8192) is slow
        assert transfers.slowest(50) is None
        slow.total = slow.received
        assert transfers.slowest(8192) is None, "it is at its end"
        slow.total = None
        transfers.restart_windows()
        assert transfers.slowest(8192) is None


def test_many_small_files_of_a_session_drip_as_one_long_one_does() -> None:
    transfers, hosts = Transfers(), HostPace(7)
    transfers.window = 10.0
    for second in range(12):
        with transfers.track("bot", "s", f"{second}.wav", hosts) as small:
            small.wait(1.0)
            transfers.count(small, 100)
            transfers.read(small.began)
            found = transfers.slowest(8192)
            assert (found is small) == (second >= 9)
    assert hosts.rate == pytest.approx(100)
