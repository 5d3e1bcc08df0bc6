"""A configuration that is read again while a worker works."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from archiver.cli import reloading as reloading_module
from archiver.cli.processes import Processes
from archiver.cli.reloading import Reloading, Source
from archiver.cli.serving import composed_worker
from archiver.config import load
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.sessions import Queue
from archiver.worker.loop import Worker
from tests.conftest import settings_data
from tests.system.conftest import eventually
from tests.worker.conftest import Logged, WorkerHarness, as_toml, session_id

STALL = {"kind": "stall", "at": 1000}
SLOW = {"kind": "slow", "bytes_per_second": 5000}
OTHER_SECRET = "another-secret-of-the-platform-0123456789"


class Reloadable:
    """A worker that runs with a configuration file."""

    def __init__(self, harness: WorkerHarness, logged: Logged) -> None:
        self.logged = logged
        self.data: dict[str, Any] = settings_data(harness.simulator, harness.database_url, harness.root)
        self.path = harness.root.with_name("archiver.toml")
        self.worker: Worker
        self.reloading: Reloading
        self.run: asyncio.Task[Any]
        self._times = 0

    @property
    def bot(self) -> dict[str, Any]:
        """The first bot's keys."""
        bot: dict[str, Any] = self.data["bots"][0]
        return bot

    def write(self, *, aside: bool = False) -> None:
        """Into the file, or into another one that takes its place."""
        path = self.path.with_suffix(".new") if aside else self.path
        path.write_text(as_toml(self.data))
        path.replace(self.path)

    async def reload(self) -> dict[str, Any]:
        """Have it read, and wait for what comes of it."""
        self._times += 1
        self.reloading.request()
        async with asyncio.timeout(15):
            while len(ended := self.logged.named("config_reloaded", "config_reload_failed")) < self._times:
                await self.logged.more()
        return ended[self._times - 1]

    async def changed(self) -> dict[str, Any]:
        """The same, of what `data` says now."""
        self.write()
        return await self.reload()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(reloading_module, "STILL_SECONDS", 0.0)
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def begin(harness: WorkerHarness, logged: Logged, quick: None) -> Callable[..., Any]:
    @asynccontextmanager
    async def begun(change: Callable[[Reloadable], None] = lambda _: None) -> AsyncIterator[Reloadable]:
        made = Reloadable(harness, logged)
        change(made)
        made.write()
        settings = load(made.path, {})
        others = Processes(settings, 1)
        made.reloading = Reloading(Source(made.path, True, None), others)
        async with Database(settings.database.url.get_secret_value(), pool_size=8) as database:
            queue = Queue(database, settings.retry)
            async with composed_worker(settings, database, queue, Tally(), reloading=made.reloading) as made.worker:
                made.run = asyncio.create_task(made.worker.run())
                async with made.reloading.beside(made.worker):
                    await logged.until("worker_started")
                    yield made
                made.worker.hurry()
                await asyncio.wait([made.run])

    return begun


async def archived(harness: WorkerHarness, *ids: str) -> None:
    sql = "SELECT 1 FROM archive_sessions WHERE session_id = ANY($1) AND state = 'archived' HAVING count(*) = $2"
    await harness.eventually(sql, list(ids), len(ids))


async def test_more_sessions_at_once(begin: Any, harness: WorkerHarness) -> None:
    await harness.scripted(3, faults=[STALL])
    async with begin(lambda made: made.data["worker"].update(concurrency=1)) as made:
        await harness.downloading(1)
        made.data["worker"]["concurrency"] = 3
        assert (await made.changed())["changed"] == ["worker.concurrency"]
        await harness.downloading(3)
        assert (made.worker.running, made.worker.concurrency) == (3, 3)


async def test_fewer_than_run_end_nothing_that_runs(begin: Any, harness: WorkerHarness) -> None:
    ids = await harness.scripted(4, audio={"bytes": 4000}, faults=[SLOW])
    later = session_id(100)
    async with begin() as made:
        await harness.simulator.wait_for(lambda report: report["media"]["requests"] >= 4)
        made.data["worker"]["concurrency"] = 1
        await made.changed()
        assert made.worker.running == 4
        harness.simulator.script({"session_id": later})
        await harness.enqueue(later)
        await archived(harness, *ids, later)
        assert {row["failures"] for row in (await harness.sessions()).values()} == {0}
        assert not made.logged.named("transfer_yielded", "session_handed_back")
        (last,) = await harness.rows(
            "SELECT max(archived_at) FILTER (WHERE session_id <> $1) < max(archived_at) FILTER (WHERE session_id = $1) AS last "
            "FROM archived_recordings", later
        )  # fmt: skip
        assert last["last"]


async def test_a_bot_that_was_added_is_served(begin: Any, harness: WorkerHarness) -> None:
    harness.simulator.script({"session_id": "one"})
    async with begin() as made:
        await harness.enqueue("one", bot="other")
        await made.logged.until("unknown_bot_found")
        made.data["bots"].append({**made.bot, "name": "other"})
        assert (await made.changed())["changed"] == ["bots.other"]
        await archived(harness, "one")
        assert made.worker.bots == ["bot", "other"]
        assert await harness.rows("SELECT 1 FROM archive_bots WHERE name = 'other' AND configured")


async def test_what_a_removed_bot_has_in_hand_ends_in_order(begin: Any, harness: WorkerHarness) -> None:
    (running,) = await harness.scripted(1, audio={"bytes": 4000}, faults=[SLOW])
    later = session_id(100)
    harness.simulator.script({"session_id": later})
    async with begin(lambda made: made.data["bots"].append({**made.bot, "name": "other"})) as made:
        await harness.simulator.wait_for(lambda report: report["media"]["requests"] >= 1)
        access = made.worker._bots["bot"]
        del made.data["bots"][0]
        assert (await made.changed())["changed"] == ["bots.bot"]
        await harness.enqueue(later)
        harness.simulator.script({"session_id": "beside"})
        await harness.enqueue("beside", bot="other")
        await archived(harness, running, "beside")
        assert (await harness.sessions())[later]["state"] == "pending"
        assert access.client._exchange._http.closed, "nobody uses its connections any more"
        assert not made.worker._bots["other"].client._exchange._http.closed
        made.data["bots"].insert(0, {**made.data["bots"][0], "name": "bot"})
        await made.changed()
        await archived(harness, later)


async def test_a_renamed_bot_is_another_one(begin: Any, harness: WorkerHarness) -> None:
    for name in ("one", "two"):
        harness.simulator.script({"session_id": name})
    async with begin() as made:
        quota = made.worker._bots["bot"].quota
        made.bot["name"] = "renamed"
        assert (await made.changed())["changed"] == ["bots.bot", "bots.renamed"]
        await harness.enqueue("one", bot="bot")
        await harness.enqueue("two", bot="renamed")
        await archived(harness, "two")
        assert (await harness.sessions())["one"]["state"] == "pending"
        assert made.worker._bots["renamed"].quota is quota, "the platform counts on"


async def test_bots_that_change_their_names_with_each_other(begin: Any, harness: WorkerHarness) -> None:
    harness.simulator.add_bot("st-other", "cs-other", OTHER_SECRET)
    await harness.scripted(1, audio={"bytes": 4000}, faults=[SLOW])
    harness.simulator.script({"session_id": "two"})
    harness.simulator.script({"session_id": "three"})

    def two(made: Reloadable) -> None:
        made.data["bots"].append(
            {**made.bot, "name": "other", "bot_id": "st-other", "client_id": "cs-other", "client_secret": OTHER_SECRET}
        )

    async with begin(two) as made:
        await harness.simulator.wait_for(lambda report: report["media"]["requests"] >= 1)
        first, second = made.data["bots"]
        first["name"], second["name"] = "other", "bot"
        assert {key.split(".")[1] for key in (await made.changed())["changed"]} == {"bot", "other"}
        await harness.enqueue("two", bot="bot")
        await harness.enqueue("three", bot="other")
        await archived(harness, session_id(0), "two", "three")
        assert {row["failures"] for row in (await harness.sessions()).values()} == {0}


@pytest.mark.parametrize("in_file", [False, True])
async def test_other_credentials_release_a_hold(in_file: bool, begin: Any, harness: WorkerHarness) -> None:
    secret = harness.root.with_name("secret")
    secret.write_text(harness.simulator.client_secret)

    def from_file(made: Reloadable) -> None:
        if in_file:
            del made.bot["client_secret"]
            made.bot["client_secret_file"] = str(secret)

    harness.simulator.script({"session_id": "zero"})
    await harness.enqueue("zero")
    async with begin(from_file) as made:
        await archived(harness, "zero")
        # Tokens of the old secret are kept for ten minutes.
        harness.simulator.add_bot(harness.simulator.bot_id, harness.simulator.client_id, OTHER_SECRET)
        ids = await harness.scripted(5)
        await made.logged.until("bot_held")
        if in_file:
            secret.write_text(OTHER_SECRET)
            ended = await made.reload()
        else:
            made.bot["client_secret"] = OTHER_SECRET
            ended = await made.changed()
        assert ended["changed"] == [f"bots.bot{' (its secret)' if in_file else '.client_secret'}"]
        await made.logged.until("bot_released")
        await archived(harness, *ids)
        assert {row["failures"] for row in (await harness.sessions()).values()} == {0}
        assert OTHER_SECRET not in str(made.logged.entries)


async def test_limits_are_in_force_at_once(begin: Any, harness: WorkerHarness) -> None:
    async with begin() as made:
        access = made.worker._bots["bot"]
        made.bot["rate_limits"] = ["7/minute"]
        made.data["transfer"] = {"max_bandwidth": "1MiB", "max_recording": "1MiB"}
        changed = (await made.changed())["changed"]
        assert changed == ["transfer.max_bandwidth", "transfer.max_recording", "bots.bot.rate_limits"]
        now = made.worker._bots["bot"]
        assert now is not access
        assert now.quota is access.quota
        assert now.quota.limits[0] == 7
        assert now.media.bandwidth is not None
        assert now.media.bandwidth._rate == 2**20
        assert made.worker._attempts._archive.terms.max_recording == 2**20


async def test_what_stays_the_same_keeps_its_connections(begin: Any) -> None:
    async with begin() as made:
        access = made.worker._bots["bot"]
        made.data["log"] = {"level": "warning"}
        assert (await made.changed())["changed"] == ["log.level"]
        assert made.worker._bots["bot"] is access
        assert logging.getLogger().level == logging.WARNING
        assert (await made.reload())["changed"] == []


async def test_what_only_a_start_can_change_is_named_and_stays(begin: Any) -> None:
    async with begin() as made:
        made.data["worker"] |= {"lease_seconds": 7, "concurrency": 3}
        made.data["storage"]["url"] = "file:///elsewhere"
        made.data["transfer"] = {"max_buffer": "96MiB"}
        made.data["metrics"] = {"listen": "127.0.0.1:1"}
        assert (await made.changed())["changed"] == ["worker.concurrency"]
        (kept,) = made.logged.named("config_restart_needed")
        assert set(kept["keys"]) == {"storage.url", "worker.lease_seconds", "transfer.max_buffer", "metrics.listen"}
        assert made.worker._settings.worker.lease_seconds == 5
        assert made.worker.concurrency == 3


async def test_a_receivers_secret_that_only_a_start_reads_is_named(begin: Any) -> None:
    def with_receiver(made: Reloadable) -> None:
        made.path.with_name("whsec").write_text(f"whsec_{'A' * 32}")
        made.path.with_name("whsec").chmod(0o600)
        made.data["notify"] = {"url": "http://127.0.0.1:9/", "secret_file": "whsec", "events": ["night"]}

    async with begin(with_receiver) as made:
        await made.reload()
        assert not made.logged.named("config_restart_needed")
        made.path.with_name("whsec").write_text(f"whsec_{'B' * 32}")
        await made.reload()
        (kept,) = made.logged.named("config_restart_needed")
        assert kept["keys"] == ["notify (its secrets)"]


async def test_what_the_driver_has_read_at_the_start_is_no_mistake_later(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    async with begin() as made:
        assert (await made.reload())["event"] == "config_reloaded"


async def test_many_changes_leave_nothing_behind(begin: Any, harness: WorkerHarness) -> None:
    def open_now() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    async with begin() as made:
        await made.reload()
        await asyncio.sleep(0)
        before = open_now()
        for number in range(60):
            made.data["worker"]["concurrency"] = 1 + number % 7
            made.bot["client_secret"] = f"{OTHER_SECRET}-{number}"
            other = {**made.bot, "name": "other", "bot_id": "st-other"}
            made.data["bots"] = [made.bot] + [other] * (number % 2)
            await made.changed()
        access = made.worker._bots
        async with asyncio.timeout(15):
            while access._closing:
                await asyncio.wait(list(access._closing))
        assert not access._former
        assert set(access._closers) == {id(each) for each in access.values()}
        most = before[0] + 8, before[1] + 2  # the pool may grow, and nothing else; what was just begun takes a moment to end

        async def settled() -> bool:
            return all(now <= limit for now, limit in zip(open_now(), most, strict=True))

        await eventually(settled)


def _emptied(made: Reloadable) -> None:
    made.path.write_text("")


def _half_written(made: Reloadable) -> None:
    made.path.write_text(made.path.read_text()[:-40])


def _gone(made: Reloadable) -> None:
    made.path.unlink()


def _wrong(made: Reloadable) -> None:
    made.data["worker"]["concurrency"] = 0
    made.bot["rate_limits"] = ["9/minute"]
    made.write()


def _dangling(made: Reloadable) -> None:
    made.path.unlink()
    made.path.symlink_to("nowhere")


def _pipe(made: Reloadable) -> None:
    made.path.unlink()
    os.mkfifo(made.path)


def _secret_is_a_pipe(made: Reloadable) -> None:
    os.mkfifo(made.path.with_name("pipe"))
    del made.bot["client_secret"]
    made.bot["client_secret_file"] = str(made.path.with_name("pipe"))
    made.write()


def _secret_is_missing(made: Reloadable) -> None:
    made.data["bots"].append({**made.bot, "name": "other", "client_secret": "", "client_secret_file": "missing"})
    made.write()


def _no_key(made: Reloadable) -> None:
    made.path.with_name("key").write_text("no key")
    made.bot["algorithm"], made.bot["private_key_file"] = "RS256", "key"
    made.write()


def _two_in_one_key(made: Reloadable) -> None:
    made.data["bots"].append({**made.bot, "name": "other"})
    made.data["storage"]["path"] = "{bot}/{session_id}/{kind}/{file_name}"
    made.write()


MISTAKES = [_emptied, _half_written, _gone, _wrong, _dangling, _pipe, _secret_is_a_pipe, _secret_is_missing, _no_key]


@pytest.mark.parametrize("spoil", MISTAKES)
async def test_a_bad_configuration_leaves_the_old_one_wholly_in_force(
    spoil: Callable[[Reloadable], None], begin: Any, harness: WorkerHarness
) -> None:
    harness.simulator.script({"session_id": "one"})
    async with begin() as made:
        good = made.path.read_text()
        access = made.worker._bots["bot"]
        spoil(made)
        failed = await made.reload()
        assert failed["event"] == "config_reload_failed"
        assert failed["message"]
        assert failed["hint"]
        assert harness.simulator.client_secret not in str(failed)
        tally = made.worker.tally
        assert [tally.config_reload_successful] == [False]
        assert made.worker._bots["bot"] is access
        assert access.quota.limits[0] == 60000
        assert made.worker.concurrency == 8
        await harness.enqueue("one")
        await archived(harness, "one")
        before = tally.config_reloaded_at or 0
        made.path.unlink(missing_ok=True)
        made.path.write_text(good)
        assert (await made.reload())["event"] == "config_reloaded"
        assert [tally.config_reload_successful] == [True]
        assert (tally.config_reloaded_at or 0) > before > 0


async def test_bots_that_need_another_path_wait_for_a_start(begin: Any, harness: WorkerHarness) -> None:
    """With the path that a running worker keeps two files could meet in one key."""
    async with begin(lambda made: made.data["storage"].update(path="{session_id}/{kind}/{file_name}")) as made:
        _two_in_one_key(made)
        failed = await made.reload()
        assert failed["event"] == "config_reload_failed"
        assert "storage.path" in failed["message"]
        assert failed["hint"] == "restart the worker"
        assert made.worker.bots == ["bot"]


async def test_many_requests_at_once_are_few(begin: Any) -> None:
    async with begin() as made:
        for number in range(10):
            made.data["worker"]["concurrency"] = 20 + number
            made.write(aside=True)
            made.reloading.request()
            await asyncio.sleep(0)
        while not (told := made.logged.named("config_reloaded")) or made.worker.concurrency != 29:
            await made.logged.more()
        assert len(told) <= 10
        assert not made.logged.named("config_reload_failed")


async def test_a_worker_that_leaves_changes_nothing_any_more(begin: Any, harness: WorkerHarness) -> None:
    ids = await harness.scripted(1, audio={"bytes": 4000}, faults=[SLOW])
    async with begin() as made:
        await harness.simulator.wait_for(lambda report: report["media"]["requests"] >= 1)
        made.data["worker"]["concurrency"] = 3
        made.write()
        made.worker.stop()
        made.reloading.request()
        await made.logged.until("config_reload_skipped")
        await made.run
        assert made.worker.concurrency == 8
    await archived(harness, *ids)


async def test_a_lost_lease_and_another_configuration_at_once(begin: Any, harness: WorkerHarness) -> None:
    harness.simulator.script({"session_id": "one"})
    async with begin() as made:
        made.worker._registration.lease.give_up()
        made.data["bots"].append({**made.bot, "name": "other"})
        await made.changed()
        await harness.enqueue("one", bot="other")
        await made.logged.until("worker_started", times=2)
        await archived(harness, "one")


async def test_files_with_secrets_that_others_can_read_are_named_and_used(begin: Any) -> None:
    async with begin() as made:
        made.path.chmod(0o644)
        assert (await made.reload())["event"] == "config_reloaded"
        (exposed,) = made.logged.named("secret_file_exposed")
        assert str(made.path) in exposed["message"]
        assert exposed["hint"] == f"chmod 600 {made.path}"


async def test_where_there_was_no_file_none_is_found_later(begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with begin() as made:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "archiver.toml").write_text("[worker]\nconcurrency = 1\n[[bots]]\n")
        made.reloading._source = Source(None, False, None)
        failed = await made.reload()
        assert "no bot is configured" in failed["message"]


async def test_a_file_that_is_found_and_not_named_stays_ours(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("another account's file takes root")
    async with begin() as made:
        made.reloading._source = Source(made.path, False, None)
        assert (await made.reload())["event"] == "config_reloaded"
        made.path.parent.chmod(0o777)
        os.chown(made.path, 12345, 12345)
        assert "belongs to uid 12345" in (await made.reload())["message"]


async def test_a_session_that_was_refused_with_former_credentials_comes_again(begin: Any, harness: WorkerHarness) -> None:
    """It says nothing of the new ones, nor of the session: nobody is held, and no attempt is used up."""
    harness.simulator.script({"session_id": "one"})
    async with begin() as made:
        client = made.worker._bots["bot"].client
        asked, go = asyncio.Event(), asyncio.Event()
        answer = client.answer

        async def late(*args: Any, **options: Any) -> Any:
            asked.set()
            await go.wait()
            return await answer(*args, **options)

        client.answer = late
        await harness.enqueue("one")
        await asked.wait()
        harness.simulator.add_bot(harness.simulator.bot_id, harness.simulator.client_id, OTHER_SECRET)
        made.bot["client_secret"] = OTHER_SECRET
        await made.changed()
        go.set()
        await archived(harness, "one")
        (back,) = made.logged.named("session_handed_back")
        assert back["reason"] == "credentials_rejected"
        assert not made.logged.named("bot_held")
        assert (await harness.sessions())["one"]["failures"] == 0
        assert client._exchange._http.closed
