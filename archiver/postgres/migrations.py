"""The migrations of this installation: plain SQL files in `migrations/`, each with what it says of itself.

From 0007 on each begins with a header; phase, transaction and min_program are kept with it in `archive_migrations`:

    -- phase: expand            (or contract: it takes away what an older program needs)
    -- transaction: none        (only where needed, such as for CREATE INDEX CONCURRENTLY; see `Header`)
    -- min_program: 0.2         (the oldest program that works with the tables as they are after it)
    -- required_by: 0.3         (the first program that does not do without it; left out: every program that knows it)
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Self

from archiver import __version__
from archiver.errors import DatabaseError


@dataclass(frozen=True, order=True)
class Release:
    """X.Y of a version, compared by number: 0.10 comes after 0.9."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Of an X.Y, exactly so; None for anything else."""
        match = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", text)
        return cls(int(match[1]), int(match[2])) if match else None

    @classmethod
    def of_version(cls, version: str) -> Self:
        """Of X.Y.Z, and of what may follow it."""
        major, minor = version.split(".")[:2]
        return cls(int(major), int(minor))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROGRAM = Release.of_version(__version__)
"""What this program is."""

WITHOUT_HEADER = 6
"""The migrations up to this one were applied before there were headers: their bytes stay as they are."""

HEADER = (
    "-- phase: expand|contract, -- transaction: none (where needed), -- min_program: X.Y, -- required_by: X.Y (where programs "
    "do without it), in its first lines"
)


@dataclass(frozen=True)
class Header:
    """What a migration says of itself. One without a transaction is run a statement at a time, each ending its last line with
    `;`, and again from its first one after it was broken off: every statement has to bear that. `required_by` is the first
    program that does not work without it; None: none that knows it does.
    """

    phase: str
    transactional: bool
    min_program: Release
    required_by: Release | None = None


@dataclass(frozen=True)
class Migration:
    """One file `NNNN_name.sql`."""

    version: int
    name: str
    sql: str
    header: Header | None = None

    @property
    def file_name(self) -> str:
        """Without its ending."""
        return f"{self.version:04d}_{self.name}"

    @property
    def in_transaction(self) -> bool:
        """All of it or nothing is applied."""
        return self.header is None or self.header.transactional

    def needed_by(self, program: Release) -> bool:
        """Whether this program, which knows it, does not work without it."""
        return self.header is None or self.header.required_by is None or self.header.required_by <= program

    @property
    def sha256(self) -> str:
        """So that an applied migration that was edited afterwards is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(folder: Traversable | None = None) -> list[Migration]:
    """All migrations of this version, in order: from the package when installed, from the checkout otherwise. Raises
    DatabaseError for one whose header is not valid.
    """
    return list(_own()) if folder is None else _read(folder)


@cache
def _own() -> list[Migration]:
    """Read once: a package may be replaced under a worker that runs, which is still of the release that it began as."""
    folder: Traversable = resources.files("archiver").joinpath("migrations")
    return _read(folder if folder.is_dir() else Path(__file__).parents[2] / "migrations")


def _read(folder: Traversable) -> list[Migration]:
    found = []
    for entry in folder.iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if match:
            version, sql = int(match[1]), entry.read_text(encoding="utf-8")
            header = _header(entry.name, sql) if version > WITHOUT_HEADER else None
            found.append(Migration(version, match[2], sql, header))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise DatabaseError("the migrations of this installation are incomplete", hint="reinstall kore-archiver")
    return found


def _header(name: str, sql: str) -> Header:
    fields: dict[str, str] = {}
    for line in sql.splitlines():
        match = re.fullmatch(r"-- (phase|transaction|min_program|required_by): (\S+)", line)
        if match is None:
            break
        fields.setdefault(match[1], match[2])
    phase, transaction = (fields.get(key, "") for key in ("phase", "transaction"))
    min_program, required_by = (Release.parse(fields.get(key, "")) for key in ("min_program", "required_by"))
    if (
        phase not in ("expand", "contract")
        or transaction not in ("", "none")
        or min_program is None
        or ("required_by" in fields and required_by is None)
    ):
        raise DatabaseError(f"the migration {name} has no valid header", hint=f"it begins with {HEADER}")
    if transaction and re.search(r"\$\w*\$", sql):
        raise DatabaseError(
            f"the migration {name} has a function's body, but no transaction", hint="put the function into a migration of its own"
        )
    return Header(phase, not transaction, min_program, required_by)
