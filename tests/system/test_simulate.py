"""What `simulate` gives to whoever tries the archiver out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.system.conftest import Program, toml


async def test_what_simulate_prints_is_a_configuration_that_works(blank: Program, database_url: str) -> None:
    limits = ("--rate-limit", "6000/minute", "--account-rate-limit", "60000/hour")
    running = await blank.start("simulate", "--port", "0", "--calls", "100", *limits, "--client-secret", 'a "quoted" one ' * 3)
    await running.printed("ready")
    block = "\n".join(running.log)
    block = block[block.index("[[bots]]") : block.index("\n\n", block.index("[[bots]]"))]
    assert 'rate_limits = ["6000/minute"]\naccount_rate_limits = ["60000/hour"]' in block
    store = (blank.folder / "store").as_uri()
    (blank.folder / "archiver.toml").write_text(
        f"{block}\n{toml({'database': {'url': database_url}, 'storage': {'url': store}})}"
    )
    (blank.folder / "archiver.toml").chmod(0o600)

    doctor = await blank("doctor", "--json")

    assert doctor.code == 0, doctor
    found = {finding["check"]: finding for finding in doctor.document["findings"]}
    assert {check for check, finding in found.items() if finding["verdict"] != "ok"} == {"evidence"}, found  # it has no key
    assert found["bot simulated: listing of calls"]["message"] == "interaction_details answered"
    assert "first 1,024 bytes" in found["bot simulated: media"]["message"]
    today = datetime.now(UTC)
    discovered = await blank("discover", "--from", f"{today - timedelta(days=1):%Y-%m-%d}", "--to", f"{today:%Y-%m-%d}", "--json")
    assert (discovered.code, discovered.document["new"]) == (0, 100), discovered


async def test_simulate_says_how_it_gets_calls(blank: Program) -> None:
    running = await blank.start("simulate", "--port", "0")
    await running.printed("ready")
    told = "\n".join(running.log)
    assert 'rate_limits = ["60000/minute"]' in told, "it has no limits, and the archiver would keep to the platform's"
    assert "--calls 100" in told
    assert "--history FILE" in told
    assert "--demo 100" in told
