"""`archiver init`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import click

from archiver.config import FILE_NAME
from archiver.errors import KeyUnusable, UsageError
from archiver.evidence.keys import SealingKey


def example() -> str:
    """The text of config.example.toml: from the package when installed, from the checkout otherwise."""
    packaged = resources.files("archiver").joinpath("config.example.toml")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "config.example.toml").read_text(encoding="utf-8")


KEY_NAME = "evidence.key"
NO_KEY = '\nkey_file = ""\n'
"""Where the example has none, and what is written names one."""


@click.command(short_help="Write a configuration file to start from, and a key.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Write a configuration file to start from: --config FILE, else $ARCHIVER_CONFIG, else ./archiver.toml. And beside it
    evidence.key, which seals what the archive has; one that is there is kept. Never overwrites anything.

    Exit codes: 0 written; 2 there is a configuration already, or something cannot be written.
    """
    path: Path = ctx.obj["config"] or Path(os.environ.get("ARCHIVER_CONFIG") or FILE_NAME)
    try:
        # It will hold secrets: for its owner alone, from the first moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists already", hint="edit it, or name another file with --config") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="name another file with --config") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        try:
            made, key = _key(path.with_name(KEY_NAME))
        except KeyUnusable:
            path.unlink()  # so that the same command goes on once that is mended
            raise
        file.write(example().replace(NO_KEY, NO_KEY.replace('""', f'"{KEY_NAME}"')))
    click.echo(f"wrote {path}")
    did = "wrote" if made else "kept"
    click.echo(f"{did} {path.with_name(KEY_NAME)}, which seals what is archived: {key.public.fingerprint}")
    click.echo("keep a copy of that key where it is safe, and its fingerprint with somebody else: nothing can replace it")
    click.echo("next: fill in [[bots]], database.url and storage.url, then run `archiver migrate` and `archiver doctor`")


def _key(path: Path) -> tuple[bool, SealingKey]:
    """The key at `path`, and whether it was made just now. Raises KeyUnusable."""
    if os.path.lexists(path):
        return False, SealingKey.load(path)
    return True, SealingKey.make(path, f"archiver {datetime.now(UTC):%Y-%m-%d}")
