"""Two releases of the archiver side by side: this checkout, and one after it, each as a wheel in an environment of its own."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from archiver import __version__
from archiver.postgres.migrations import PROGRAM

ROOT = Path(__file__).parents[2]

MARK = "from_a_later_release"
"""A name in all that the later release's migrations make, by which their statements are told from others."""

BUILT_FROM = ("archiver", "migrations", "pyproject.toml", "README.md", "LICENSE", "config.example.toml")
"""What a wheel is made of."""

COLUMNS = f"""\
-- phase: expand
-- min_program: {PROGRAM}
-- required_by: {PROGRAM.major}.{PROGRAM.minor + 2}
-- Two columns of busy tables, what a trigger puts into one of them, and a constraint that is looked into later.
LOCK TABLE archive_queue, archived_recordings IN ACCESS EXCLUSIVE MODE;
ALTER TABLE archive_queue ADD COLUMN {MARK} integer, ADD CONSTRAINT {MARK}_positive CHECK ({MARK} > 0) NOT VALID;
ALTER TABLE archived_recordings ADD COLUMN {MARK} text NOT NULL DEFAULT 'archived';
CREATE FUNCTION archive_{MARK}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.{MARK} := 1 + NEW.id % 100;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION archive_{MARK}() FROM PUBLIC;
CREATE TRIGGER archive_queue_{MARK} BEFORE INSERT ON archive_queue FOR EACH ROW EXECUTE FUNCTION archive_{MARK}();
"""

INDEX = f"""\
-- phase: expand
-- transaction: none
-- min_program: {PROGRAM}
-- required_by: {PROGRAM.major}.{PROGRAM.minor + 2}
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_{MARK} ON archive_queue ({MARK}, run_at) WHERE state = 'pending';
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_{MARK}_day ON archive_queue (archive_date, {MARK});
ALTER TABLE archive_queue VALIDATE CONSTRAINT {MARK}_positive;
"""


@dataclass(frozen=True)
class Installed:
    """A release in an environment of its own."""

    version: str
    python: Path

    @property
    def command(self) -> tuple[str, ...]:
        """What runs it, whatever the folder."""
        return str(self.python), "-P", "-m", "archiver"


async def two_releases(folder: Path) -> tuple[Installed, Installed]:
    """This checkout, and the next release after it, with two migrations more. Nothing is downloaded."""
    later_version = f"{PROGRAM.major}.{PROGRAM.minor + 1}.0"
    tree = await asyncio.to_thread(_later_tree, folder / "later-tree", later_version)
    this, later = await asyncio.gather(
        _installed(ROOT, folder / "this", __version__), _installed(tree, folder / "later", later_version)
    )
    return this, later


def _later_tree(tree: Path, version: str) -> Path:
    for name in BUILT_FROM:
        source, target = ROOT / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    file = tree / "archiver/__init__.py"
    file.write_text(file.read_text().replace(f'"{__version__}"', f'"{version}"'))
    file = tree / "pyproject.toml"
    file.write_text(file.read_text().replace(f'version = "{__version__}"', f'version = "{version}"', 1))
    last = max(int(path.name[:4]) for path in (tree / "migrations").glob("[0-9]*.sql"))
    (tree / f"migrations/{last + 1:04d}_later_columns.sql").write_text(COLUMNS)
    (tree / f"migrations/{last + 2:04d}_later_index.sql").write_text(INDEX)
    return tree


async def _installed(tree: Path, folder: Path, version: str) -> Installed:
    wheels, environment = folder / "wheels", folder / "venv"
    python = environment / "bin/python"
    await asyncio.gather(
        _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), cwd=tree),
        _run(sys.executable, "-m", "venv", "--without-pip", str(environment)),
    )
    [wheel] = wheels.iterdir()
    pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-cache-dir")
    await _run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", str(wheel))
    # What both depend on is this environment's. Its own .pth files, and so its archiver, are not read from there.
    [site] = environment.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    told = await _run(str(python), "-P", "-c", "import archiver; print(archiver.__version__, archiver.__file__)")
    assert re.fullmatch(rf"{re.escape(version)} {re.escape(str(site))}/archiver/__init__\.py\n", told), told
    return Installed(version, python)


async def _run(*command: str, cwd: Path | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors.decode()[-3000:]}")
    return output.decode()
