"""The documents are held against the code: a reader must be able to believe them."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest
import yaml
from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from archiver.account.reconcile import COUNTS
from archiver.cli.app import COMMANDS, cli
from archiver.config import CALL_FACTS
from archiver.observe.metrics import Now, metrics
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.session import State
from tests.audio_files import CASES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DISCOVERY = (ROOT / "docs" / "discovery.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
UPGRADING = (ROOT / "UPGRADING.md").read_text()
SOURCES = ("auto", "sessions", "call_details", "interaction_details")
TABLES = (ROOT / "docs" / "tables.md").read_text()

REASON = re.compile(
    r"""reason\s*=\s*f?"([a-z_{}.]+)"|(?:Failed|Retry|HandedBack)\("([a-z_]+)"|_rejected\("[^"]*",\s*"([a-z_]+)"|"(recording_bad_wav)\""""
)
SQL_REASON = re.compile(r"(?:THEN|ELSE) '(not_ready|partial|worker_lost|crashed_workers)'|reason := '([a-z_]+)'")


def _reasons() -> Iterator[str]:
    for path in [*(ROOT / "archiver").rglob("*.py"), *(ROOT / "archiver").rglob("*.sql"), *(ROOT / "migrations").glob("*.sql")]:
        if "simulator" in path.parts or "cli" in path.parts:
            continue
        for match in (REASON if path.suffix == ".py" else SQL_REASON).finditer(path.read_text()):
            reason = next(group for group in match.groups() if group)
            yield re.sub(r"\{.*\}", "...", reason)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_every_command(command: str) -> None:
    assert f"`{command}`" in README


def test_every_reason_in_the_code_is_explained() -> None:
    reasons = set(_reasons()) - {"api_error", "transfer_failed", "recording_rejected"}  # of base classes
    assert len(reasons) > 30, "the patterns above no longer find the reasons"
    assert not {reason for reason in reasons if f"`{reason}`" not in OPERATIONS}


@pytest.mark.parametrize("state", State)
def test_every_state_is_explained(state: State) -> None:
    assert f"| `{state.value}` |" in OPERATIONS


def test_what_an_upgrade_tells_people_to_run_exists() -> None:
    """A line to write that is refused costs whoever follows it the night."""
    told = set(re.findall(r"--error (\w+)", UPGRADING))
    assert told
    patterns = [re.compile(re.escape(reason).replace(r"\.\.\.", r"\w+")) for reason in _reasons()]
    assert not {each for each in told if not any(reason.fullmatch(each) for reason in patterns)}
    for name, options in re.findall(r"`archiver ([a-z]+)((?: [^`]*)?)`", UPGRADING):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known, f"{name}{options}"


@pytest.mark.parametrize("document", [README, UPGRADING, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document):
        assert (ROOT / target).exists() or (ROOT / "docs" / target).exists(), target


def test_the_policy_for_a_bucket_is_one_and_lets_no_recording_be_deleted() -> None:
    text = (ROOT / "docs" / "object-storage.md").read_text()
    policy = json.loads(text.partition("```json\n")[2].partition("```")[0])
    deletable = [
        resource
        for statement in policy["Statement"]
        if "s3:DeleteObject" in statement["Action"]
        for resource in statement["Resource"]
    ]
    assert deletable
    assert all(resource.endswith(("/.check-*", "/.*.part")) for resource in deletable)


def test_every_metric_is_explained() -> None:
    served = generate_latest(_Served()).decode()
    names = re.findall(r"^# TYPE (\w+) ", served, re.MULTILINE)
    assert len(names) > 10
    assert not {name for name in names if f"`{name}`" not in OPERATIONS}


class _Served(Collector):
    def collect(self) -> Iterable[Metric]:
        return metrics(["bot"], Tally(), Now(1, 1, 1.0))


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_lock_files_carry_hashes_and_no_addresses() -> None:
    for lock in (ROOT / "locks").glob("*.txt"):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "--index" not in text
        assert "--find-links" not in text


def test_tracked_files_name_no_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name]
    assert names
    for name in names:
        path = ROOT / name
        if path.is_file() and path.suffix not in {".wav"} and path != Path(__file__):
            assert not re.search(r"/(?:root|home/\w+|work)/", path.read_text(errors="replace")), name


async def test_the_documented_columns_exist(database: Database) -> None:
    async with database.connection() as connection:
        for table in ("archive_queue", "archive_sessions", "archived_recordings"):
            columns = {
                row["column_name"]
                for row in await connection.fetch(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = $1", table
                )
            }
            section = TABLES.partition(f"## `{table}`")[2].partition("\n## ")[0]
            documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
            for listing in re.findall(r"one row a \w+[^`]*(?:`SELECT`[^`]*)?`([a-z_,\s0-9]+)`", section):
                documented |= {name.strip() for name in listing.split(",")}
            assert documented, table
            assert documented <= columns, documented - columns


def test_every_flag_of_a_recording_is_explained() -> None:
    section = TABLES.partition("## `archived_recordings`")[2].partition("\n## ")[0]
    assert {flag for case in CASES for flag in case.flags} == set(re.findall(r"^- `(\w+)`: ", section, re.MULTILINE))


@pytest.mark.parametrize("name", [*COUNTS, *CALL_FACTS, *SOURCES])
def test_every_count_fact_and_source_of_calls_is_explained(name: str) -> None:
    assert f"`{name}`" in DISCOVERY


def test_every_problem_and_mismatch_is_explained() -> None:
    code = (ROOT / "archiver/kore/listings/reader.py").read_text() + (ROOT / "archiver/account/reconcile.py").read_text()
    named = set(re.findall(r'"(?:problem|mismatch)": "([a-z_]+)"', code))
    assert len(named) > 10, "the pattern above no longer finds them"
    assert not {name for name in named if f"| `{name}` |" not in DISCOVERY}


def test_the_cron_job_runs_a_command_that_there_is_as_the_images_user() -> None:
    job = yaml.safe_load(DISCOVERY.partition("```yaml\n")[2].partition("```")[0])
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()
    [container] = pod["containers"]
    command, *options = container["args"]
    known = importlib.import_module(f"archiver.cli.{command}").command
    assert known.make_context(command, options).params["form"] == "json"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
