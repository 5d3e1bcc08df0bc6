"""`archiver init`."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import click

from archiver.config import FILE_NAME
from archiver.errors import UsageError


def example() -> str:
    """The text of config.example.toml: from the package when installed, from the checkout otherwise."""
    packaged = resources.files("archiver").joinpath("config.example.toml")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "config.example.toml").read_text(encoding="utf-8")


@click.command(short_help="Write a configuration file to start from.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Write a configuration file to start from: --config FILE, else $ARCHIVER_CONFIG, else ./archiver.toml. Never overwrites one.

    Exit codes: 0 written; 2 there is one already, or it cannot be written.
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
        file.write(example())
    click.echo(f"wrote {path}")
    click.echo("next: fill in [[bots]], database.url and storage.url, then run `archiver migrate` and `archiver doctor`")
