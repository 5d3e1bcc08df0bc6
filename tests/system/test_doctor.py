from __future__ import annotations

import re
import shutil
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from tests.system.conftest import ROOT, Program


async def findings(archiver: Program, code: int, **environment: str) -> dict[str, dict[str, str]]:
    """What doctor found, by check; what is not well has a hint."""
    result = await archiver("doctor", "--json", environment=environment)
    assert result.code == code, result
    found = {finding["check"]: finding for finding in result.document["findings"]}
    assert len(found) == len(result.document["findings"])
    assert all(finding["hint"] for finding in found.values() if finding["verdict"] != "ok")
    assert all(finding["mend"] == finding["hint"] for finding in found.values())  # its former name
    return found


async def test_a_good_installation_has_one_line_a_check(archiver: Program, simulator: Simulator, data: dict[str, Any]) -> None:
    SealingKey.make(archiver.folder / "evidence.key", "test")
    archiver.configure(data | {"evidence": {"key_file": "evidence.key"}})
    ended = datetime.now(UTC) - timedelta(hours=1)
    times = {"started_at": (ended - timedelta(minutes=1)).isoformat(), "ended_at": ended.isoformat()}
    simulator.set_history({"calls": [{"session_id": "s-1", **times}]})

    result = await archiver("doctor")

    assert (result.code, result.stderr) == (0, "")
    checks = [line.split()[0] + " " + line[8:].split(":")[0] for line in result.stdout.splitlines()]
    first = ["ok configuration", "ok database", "ok store", "ok store", "ok evidence"]
    assert checks[:10] == [*first, *["ok bot bot"] * 5]
    recordings, history = "recordings, voicemail, call details", "sessions history (getSessions)"
    assert "ok      bot bot: media: 127.0.0.1 sent the first 1,024 bytes of a recording (audio/wav)" in result.stdout
    assert result.stdout.splitlines()[10:] == [
        f"budget  {recordings} of bot bot: 60000/minute (rate_limits of bot bot), one budget with {history}",
        f"budget  {history} of bot bot: 60000/minute (rate_limits of bot bot), one budget with {recordings}",
    ]
    assert "loopback, no TLS" in result.stdout
    assert not (archiver.folder / "store").exists(), "the account of the workers makes it"
    assert simulator.report()["api"]["calls"] == 2


async def test_each_failing_check_has_a_hint(archiver: Program, data: dict[str, Any], simulator: Simulator) -> None:
    simulator.settings.clock_skew = 3600
    (archiver.folder / "file").write_text("")

    found = await findings(
        archiver,
        3,
        ARCHIVER_BOTS__0__CLIENT_SECRET="not-the-secret-of-this-app-0123456789",
        ARCHIVER_STORAGE__URL=(archiver.folder / "file/store").as_uri(),
    )

    verdicts = {check: finding["verdict"] for check, finding in found.items()}
    assert verdicts == {"configuration": "ok", "database": "ok", "store": "failure", "evidence": "warning",
                        "bot bot: token": "ok", "bot bot: client_secret": "failure", "bot bot: clock": "failure"}  # fmt: skip
    assert "bots.bot.client_secret" in found["bot bot: client_secret"]["hint"]
    assert re.fullmatch(r"this clock is (3599|360\d) s behind the platform's", found["bot bot: clock"]["message"])
    assert "NTP" in found["bot bot: clock"]["hint"]
    assert "storage.url" in found["store"]["hint"]
    told = await archiver("doctor")
    assert told.code == 3
    assert re.search(r"^failure bot bot: clock: .*\n +next: set this machine's clock", told.stdout, re.MULTILINE)


async def test_a_wrong_clock_or_scope_keeps_nothing_else_from_being_tried(archiver: Program, simulator: Simulator) -> None:
    simulator.settings.clock_skew = 3600
    found = await findings(archiver, 3)
    assert [check for check, finding in found.items() if finding["verdict"] == "failure"] == ["bot bot: clock"]
    assert {"bot bot: listing of calls", "bot bot: media"} <= found.keys()
    simulator.alter({"clock_skew": 0, "scopes": ["Bot Sessions"]})
    found = await findings(archiver, 3)
    assert [check for check, finding in found.items() if finding["verdict"] == "failure"] == ["bot bot: scope"]
    assert found["bot bot: listing of calls"]["verdict"] == "ok"
    assert "bot bot: media" not in found


async def test_each_budget_is_told_with_where_it_comes_from(blank: Program, data: dict[str, Any], simulator: Simulator) -> None:
    [bot] = data["bots"]
    del bot["rate_limits"]
    bot["account_id"] = account = simulator.settings.account_id
    data["bots"].append(bot | {"name": "other"})
    blank.configure(data)
    shared = f"recordings, voicemail, call details of account {account}: "
    told = await blank("doctor")
    assert f"budget  {shared}60/minute (default), shared by bots bot, other\n" in told.stdout
    data["bots"][1]["account_rate_limits"] = ["600/minute"]
    blank.configure(data)
    [of_account, of_bot] = (await blank("doctor", "--json")).document["budgets"]
    assert (of_account["limits"], of_account["from"]) == (["600/minute"], "account_rate_limits of bot other")
    assert (of_bot["limits"], of_bot["bots"]) == (["60/minute", "1800/hour"], ["bot", "other"]), "one bot of two names"
    data["bots"][0]["account_rate_limits"] = ["60/minute"]
    blank.configure(data)
    (await blank("doctor")).refused(2, '"bot" and "other"', account, "account_rate_limits", "60/minute", "600/minute")


async def test_a_small_difference_of_the_clocks_is_a_warning(archiver: Program, simulator: Simulator) -> None:
    simulator.settings.clock_skew = -60
    found = await findings(archiver, 0)
    assert found["bot bot: clock"]["verdict"] == "warning"
    assert "ahead of" in found["bot bot: clock"]["message"]


async def test_a_listing_that_is_refused_names_the_scopes(archiver: Program, data: dict[str, Any], simulator: Simulator) -> None:
    data["bots"][0]["account_id"] = simulator.settings.account_id
    archiver.configure(data)
    assert (await findings(archiver, 0))["bot bot: listing of calls"]["message"] == "interaction_details answered"
    simulator.alter({"scopes": ["SmartAssist Recordings"]})
    found = (await findings(archiver, 0))["bot bot: listing of calls"]
    assert found["verdict"] == "warning"
    assert "SmartAssist Analytics" in found["hint"]
    assert "Bot Sessions" in found["hint"]


async def test_an_app_that_enforces_jwe_is_told_as_such(archiver: Program, simulator: Simulator) -> None:
    simulator.settings.enforce_jwe = True
    found = await findings(archiver, 3)
    assert "JWE" in found["bot bot: API"]["hint"]
    assert "not supported yet" in found["bot bot: API"]["hint"]


async def test_an_unmigrated_database_and_an_unreachable_api_are_told_together(
    archiver: Program, empty_database_url: str
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        found = await findings(
            archiver,
            3,
            ARCHIVER_DATABASE__URL=empty_database_url,
            ARCHIVER_BOTS__0__HOST=f"http://127.0.0.1:{nobody.getsockname()[1]}",
        )
    assert (found["database"]["verdict"], "archiver migrate" in found["database"]["hint"]) == ("failure", True)
    assert (found["bot bot: API"]["verdict"], found["store"]["verdict"]) == ("failure", "ok")
    assert "bots.host" in found["bot bot: API"]["hint"]


async def test_without_a_database_the_rest_is_checked_all_the_same(archiver: Program) -> None:
    found = await findings(archiver, 3, ARCHIVER_DATABASE__URL="postgresql://u:hunter2hunter2@127.0.0.1:1/x")
    assert {check: finding["verdict"] for check, finding in found.items()} == {
        "configuration": "ok", "database": "failure", "store": "ok", "bot bot: token": "ok", "bot bot: API": "ok",
        "bot bot: clock": "ok", "bot bot: listing of calls": "ok",
        "bot bot: media": "warning"}  # fmt: skip
    assert "hunter2" not in str(found)


async def test_the_examples_placeholders_are_told(blank: Program, simulator: Simulator, database_url: str) -> None:
    shutil.copy(ROOT / "config.example.toml", blank.folder / "archiver.toml")
    found = await findings(
        blank,
        3,
        ARCHIVER_BOTS__0__HOST=simulator.api_url,
        ARCHIVER_STORAGE__URL=(blank.folder / "store").as_uri(),
        ARCHIVER_DATABASE__URL=database_url,
    )
    assert "the example's bot_id, client_id, client_secret" in found["configuration"]["message"]


async def test_no_configuration_and_an_unreadable_one_are_told(blank: Program) -> None:
    (blank.folder / "archiver.toml").write_text("[worker]\nconcurrency = 0\n")
    (await blank("doctor")).refused(2, "worker.concurrency = 0")


@pytest.mark.parametrize(
    "answer",
    [
        {"http_status": 200, "body": "<html>please log in</html>", "content_type": "text/html"},
        {"http_status": 302, "body": ""},
        {"raw": "hi"},
    ],
)
async def test_a_host_that_is_not_the_platform_is_no_success(
    archiver: Program, data: dict[str, Any], simulator: Simulator, answer: dict[str, Any]
) -> None:
    archiver.configure(data)
    simulator.script({"session_id": "archiver-doctor-0", "answers": [answer]})
    result = await archiver("doctor")
    assert result.code == 3
    assert "check bots.host" in result.stdout
