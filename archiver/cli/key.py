"""`archiver key`."""

from __future__ import annotations

from pathlib import Path

import click

from archiver.cli.compose import opened_database, run_async, settings_of
from archiver.cli.recognising import claim_checked_store
from archiver.cli.seal import NO_KEY
from archiver.cli.sealing import evidence_store, sealer_of
from archiver.config import Settings
from archiver.errors import ConfigError
from archiver.evidence.keys import SealingKey
from archiver.queue.ledger import Ledger


@click.group(short_help="Change the key that seals: `key rotate`.")
def command() -> None:
    """Change the key that seals the ledger.

    Exit codes: 0 done; 1 it could not be sealed; 2 configuration.
    """


@command.command(short_help="Let another key sign all that follows.")
@click.option("--new", "file", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
              help="The new key, as `ssh-keygen -t ed25519` makes one.")  # fmt: skip
@click.option("--lost", is_flag=True, help="The old key is lost: nothing will vouch for the new one.")
@click.pass_context
def rotate(ctx: click.Context, file: Path, lost: bool) -> None:
    """Let another key sign all that follows: the one of evidence.key_file seals an entry that says so. After that
    evidence.key_file has to name the new one, for every worker that seals; until then these say so in their logs, and archiving
    goes on.

    With --lost the new key seals that entry itself. What was sealed before stays proven; for the new key only its fingerprint
    speaks, in evidence.trusted and with whoever keeps it. A key that somebody else has, too, is not lost: rotate it while you
    have it.

    Exit codes: 0 changed; 1 it could not be sealed; 2 configuration, such as a file that is no key.
    """
    settings = settings_of(ctx)
    old, new = run_async(_rotate(settings, file, lost=lost))
    click.echo(f"{new} signs from now on; {'nothing vouches for it' if lost else f'{old} has sealed that'}")
    click.echo(f"next: set evidence.key_file to {file}, for every worker, and tell whoever keeps the fingerprint the new one")
    if lost:
        click.echo(f"and add {new} to evidence.trusted: else an audit is key_unproven")
        return
    click.echo("until that has signed something, an audit with it alone is key_unproven: `archiver seal` after the next session")


async def _rotate(settings: Settings, file: Path, *, lost: bool) -> tuple[str, str]:
    new, old = SealingKey.load(file, "--new"), ""
    if not lost:
        if settings.evidence.key_file is None:
            raise ConfigError("evidence.key_file is empty: no key can seal the change", hint=NO_KEY)
        old = SealingKey.load(settings.evidence.key_file).public.fingerprint
    async with opened_database(settings) as database, evidence_store(settings) as store:
        await claim_checked_store(settings, database, store)
        if lost and await Ledger(database).head() is None:
            raise ConfigError("no ledger was begun: there is no key to replace", hint="name the new one in evidence.key_file")
        await sealer_of(settings, database, store).rotate(new, lost=lost)
    return old, new.public.fingerprint
