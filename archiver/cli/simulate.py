"""`archiver simulate`."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import click
from yarl import URL

from archiver.cli.compose import run_async
from archiver.cli.demo import wav_names
from archiver.config import is_loopback
from archiver.errors import UsageError

UNLIMITED = ["60000/minute"]
"""What the archiver is to keep to where the simulator has no limit: without any it would keep to the platform's."""


@click.command(short_help="Run a stand-in for the Kore platform on loopback.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65534),
    default=8770,
    show_default=True,
    help="Of the API; the media come from the next one. 0: any free ports.",
)
@click.option("--bot-id", default="st-simulated", show_default=True)
@click.option(
    "--account-id", default="a-simulated", show_default=True, help="Of the account that the call details are asked for."
)
@click.option("--client-id", default="cs-simulated", show_default=True)
@click.option("--client-secret", default="simulated-secret-of-no-worth-0123456789", show_default=True)
@click.option("--audio", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Serve the WAVs of this folder.")
@click.option("--sessions", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Sessions to know: a JSON list of scripts, as POST /_simulator/sessions takes it.")  # fmt: skip
@click.option(
    "--demo", type=click.IntRange(min=100), metavar="COUNT", help="Know so many sessions of the demo, and print their IDs."
)
@click.option("--history", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Calls to list: a JSON history, as POST /_simulator/history takes it.")  # fmt: skip
@click.option("--calls", type=click.IntRange(1, 100_000), metavar="COUNT",
              help="List so many calls of yesterday (UTC), made up, with callers, agents and recordings, and as many an hour of "
                   "today.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 3650), default=1, show_default=True,
              help="Spread --calls over so many days before today.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Of the demo's sessions, and of --calls.")
@click.option(
    "--rate-limit", "rate_limits", multiple=True, metavar="N/UNIT", help='Such as "60/minute"; may be repeated. Default: none.'
)
@click.option(
    "--account-rate-limit", "account_rate_limits", multiple=True, metavar="N/UNIT", help="The same of an account. Default: none."
)
def command(
    host: str,
    port: int,
    bot_id: str,
    account_id: str,
    client_id: str,
    client_secret: str,
    audio: Path | None,
    sessions: Path | None,
    demo: int | None,
    history: Path | None,
    calls: int | None,
    days: int,
    seed: int,
    rate_limits: tuple[str, ...],
    account_rate_limits: tuple[str, ...],
) -> None:
    """Run a stand-in for the Kore platform, until stopped: tokens, statuses, signed URLs, rate limits and faults, over HTTP.

    It knows the sessions of --sessions and --demo, and those that are POSTed to /_simulator/sessions; it lists the calls of
    --calls, --history, or of what is POSTed to /_simulator/history, and knows their recordings. More bots, of this account or
    another, are POSTed to /_simulator/bots. What is POSTed to /_simulator/settings changes how it answers, such as {"scopes":
    ["Bot Sessions"]}, {"source_retention_days": 90} or {"encrypted_listings": true}; an unknown key is answered with those that
    there are. GET /_simulator/report counts what it was asked. Its credentials are worth nothing.

    At its start it prints, to standard error, the [[bots]] block with which the archiver works from it, to be pasted into
    archiver.toml. For example, in a folder of its own:

    \b
      archiver simulate --calls 100
      archiver doctor
      archiver nightly
      archiver reconcile --from YESTERDAY --to TODAY

    \b
    A history of a hundred calls, made up; one of a call that was paused; and a list of sessions:
      {"made": {"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z", "calls": 100}}
      {"calls": [{"session_id": "s3", "started_at": "2026-03-01T09:00:00Z", "ended_at": "2026-03-01T09:01:00Z",
                  "recorded_seconds": 20, "recorded_as": "flac"}]}
      [{"session_id": "s1"}, {"session_id": "s2", "answers": [{"status": "media_unavailable"}]}]

    Exit codes: 129, 130, 143 stopped by a signal; 2 usage.
    """
    from pydantic import ValidationError

    from archiver.simulator.checked import describe
    from archiver.simulator.platform import Simulator, SimulatorSettings
    from archiver.simulator.recent import recent_calls

    if calls is not None and history is not None:
        raise UsageError("simulate: --calls and --history exclude each other", hint="a history may have `made` calls, too")
    audio_files = wav_names(audio)
    try:
        scripts = json.loads(sessions.read_text(encoding="utf-8")) if sessions else []
        simulator = Simulator(
            SimulatorSettings(
                host=host,
                api_port=port,
                media_port=port + 1 if port else 0,
                bot_id=bot_id,
                account_id=account_id,
                client_id=client_id,
                client_secret=client_secret,
                audio_dir=audio,
                rate_limits=rate_limits,
                account_rate_limits=account_rate_limits,
            )
        )
        simulator.script_all(scripts)
        if history is not None:
            simulator.set_history(json.loads(history.read_text(encoding="utf-8")))
        if calls is not None:
            simulator.set_history(recent_calls(calls, days=days, seed=seed))
    except (ValueError, OSError) as error:
        what = describe(error) if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f"simulate: {what}", hint="see --help, and the docstrings of archiver/simulator/script.py and calls.py"
        ) from None
    run_async(_serve(simulator, demo, seed, audio_files, lists=calls is not None or history is not None))


def bot_block(simulator: Any) -> str:
    """The `[[bots]]` of a running simulator, as it goes into archiver.toml. Where it has no limits, neither has the block."""
    settings = simulator.settings
    keys: dict[str, Any] = {
        "name": "simulated",
        "host": simulator.api_url,
        "bot_id": settings.bot_id,
        "client_id": settings.client_id,
        "client_secret": settings.client_secret,
        "account_id": settings.account_id,
        "rate_limits": list(settings.rate_limits),
        "account_rate_limits": list(settings.account_rate_limits),
        "media_hosts": [URL(simulator.media_url).host],
    }
    lines = (f"{key} = {json.dumps(value or UNLIMITED)}" for key, value in keys.items())
    return "\n".join(["[[bots]]", *lines])


async def _serve(simulator: Any, demo: int | None, seed: int, audio_files: list[str] | None, *, lists: bool) -> None:
    from archiver.simulator.scenario import demo_scenario

    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def stop(number: int) -> None:
        if not stopped.done():
            stopped.set_result(number)

    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop, each)
    try:
        async with simulator:
            click.echo(f"API   {simulator.api_url}", err=True)
            click.echo(f"media {simulator.media_url}", err=True)
            click.echo(f"\nfor archiver.toml:\n\n{bot_block(simulator)}\n", err=True)
            if not is_loopback(simulator.settings.host):
                click.echo("the archiver takes http:// from loopback hosts only: for others put TLS in front of it", err=True)
            if not lists:
                click.echo("it lists no calls: --calls 100 makes some up, --history FILE takes yours", err=True)
            if not lists and not demo:
                click.echo("--demo 100 gives it sessions, and prints the IDs to enqueue", err=True)
            if demo:
                for script in demo_scenario(demo, seed=seed, audio_files=audio_files):
                    simulator.script(script)
                    click.echo(script.session_id)
            click.echo("ready", err=True)
            number = await stopped
    except OSError as error:
        raise UsageError(f"simulate: {error.strerror}", hint="choose another --port; 0 takes any free one") from None
    raise click.exceptions.Exit(128 + number)
