"""`archiver roles`."""

from __future__ import annotations

import click

from archiver.errors import UsageError
from archiver.postgres.roles import script


@click.command(short_help="Print the SQL that makes roles with the least rights.")
@click.option("--print", "printed", is_flag=True, help="Print it; nothing is run, nothing is read.")
@click.option("--prefix", default="archiver", show_default=True, metavar="NAME",
              help="What the roles' names begin with: one for each archive on a server.")  # fmt: skip
@click.option("--keep-history", is_flag=True, help="Let workers remove old history, as database.keep_history asks.")
def command(printed: bool, prefix: str, keep_history: bool) -> None:
    """Print SQL that makes the roles NAME_worker, NAME_auditor, NAME_enqueuer, NAME_scaler and NAME_web, and gives each what
    its work needs, and nothing else. An administrator runs it after `archiver migrate`, as often as needed:

    \b
        archiver roles --print | psql -v ON_ERROR_STOP=1 postgresql://postgres@HOST/archiver

    Nobody logs in as one of these: make a login for each person and service, and grant it one. `migrate` gives them later what
    new tables need. docs/roles.md says which command works under which.

    Exit codes: 0 done; 2 usage.
    """
    if not printed:
        raise UsageError("nothing to do", hint="archiver roles --print prints the SQL; pipe it to psql as an administrator")
    click.echo(script(prefix, keep_history=keep_history), nl=False)
