"""The documents are held against the code: a reader must be able to believe them."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import archiver
from archiver.account.counts import COUNTS
from archiver.cli.app import COMMANDS, cli
from archiver.config import CALL_FACTS
from archiver.evidence.audit.report import MEANINGS
from archiver.observe.readiness import REASONS as NOT_READY
from archiver.outcome import REASONS
from archiver.postgres.database import Database
from archiver.session import State
from tests.audio_files import CASES
from tests.contracts.every_metric import every_metric

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DISCOVERY = (ROOT / "docs" / "discovery.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
UPGRADING = (ROOT / "UPGRADING.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*/README.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
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


def test_metrics_begin_with_every_reason_that_an_attempt_can_end_with() -> None:
    """A reason that is missing here is a counter that begins with 1, which no alert on its increase ever sees."""
    begun = {re.sub(r"_http_\dxx", "_http_...", reason) for reasons in REASONS.values() for reason in reasons if reason}
    of_no_attempt = {"crashed_workers", "worker_lost", "partial", "invalid_session_id", "metadata_too_large"}
    of_base_classes = {"api_error", "transfer_failed", "recording_rejected"}
    of_a_repair = {"recording_differs", "no_longer_listed", "claimed", "moved", "unknown_bot"}
    assert not set(_reasons()) - begun - of_no_attempt - of_base_classes - of_a_repair
    assert not {reason for reason in begun if f"`{reason}`" not in OPERATIONS}


@pytest.mark.parametrize("state", State)
def test_every_state_is_explained(state: State) -> None:
    assert f"| `{state.value}` |" in OPERATIONS


def test_what_an_upgrade_tells_people_to_run_exists() -> None:
    """A line to write that is refused costs whoever follows it the night."""
    named = set(re.findall(r"--error (\w+)", UPGRADING))
    assert named
    patterns = [re.compile(re.escape(reason).replace(r"\.\.\.", r"\w+")) for reason in _reasons()]
    assert not {name for name in named if not any(pattern.fullmatch(name) for pattern in patterns)}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _prose(text: str) -> str:
    """Without fenced code, which may hold whatever looks like a link."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _code(text: str) -> Iterator[str]:
    """Every line of code: of blocks, fenced or indented, with those that go on joined, and what stands between backticks."""
    text = text.replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    for line in _prose(text).splitlines():
        if line.startswith("    "):
            yield line.strip()
    for span in re.findall(r"`([^`]+)`", _prose(text)):
        yield " ".join(span.split())


def _anchors(path: Path) -> set[str]:
    """The fragments by which GitHub reaches the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", _prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", _prose(document.read_text())):
        target, _, fragment = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), link
        assert not fragment or fragment in _anchors(path), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_path_that_is_named_exists(document: Path) -> None:
    rooms = r"(?:archiver|benchmarks|docs|locks|migrations|tests)/[\w./-]*"
    for path in re.findall(rf"`({rooms})`", document.read_text()):
        if not re.search(r"NAME|NNNN|VERB", path):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_prose_is_wrapped(document: Path) -> None:
    for number, line in enumerate(_prose(document.read_text()).splitlines(), 1):
        table_or_code = re.match(r"\s*\||    ", line)
        assert table_or_code or len(line) <= 100, f"{_name(document)}:{number}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_command_that_is_named_exists(document: Path) -> None:
    """With its options: a line to copy that is refused costs whoever follows it the night."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in _code(document.read_text()):
        made = re.match(r"(?:\$ |CI=true )?make ([a-z][\w-]*)", line)
        assert made is None or made[1] in targets, line
        found = re.match(r"(?:\$ |\S*/)?archiver (?:--config \S+ )?([a-z]+)(?: (.*))?$", line)
        if found is None:
            continue
        command = cli.get_command(click.Context(cli), found[1])
        assert command is not None, line
        words = shlex.split(re.split(r" +[#|>]| 2>", found[2] or "")[0].replace("'", ""))
        if isinstance(command, click.Group):
            command = command.commands[words[0]] if words else command
        options = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"} <= options, line


def test_the_rooms_are_those_that_may_import_each_other_so() -> None:
    section = ARCHITECTURE.partition("\n## Rooms")[2].partition("\n## ")[0]
    rows: dict[int, set[str]] = {}
    for row, room, path in re.findall(r"^\| (\d+) \| \[(\w+)\]\((archiver/[\w./]+)\) \|", section, re.MULTILINE):
        assert Path(path).stem == room
        rows.setdefault(int(row), set()).add(room)
    layers = next(contract["layers"] for contract in PROJECT["tool"]["importlinter"]["contracts"] if contract["type"] == "layers")
    assert [rooms for _, rooms in sorted(rows.items())] == [set(re.split(r" [|:] ", layer)) for layer in layers]
    there = {path.stem for path in (ROOT / "archiver").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set().union(*rows.values()) == there - {"__init__", "__main__"}


def test_each_file_of_the_walk_exists_and_comes_once() -> None:
    section = ARCHITECTURE.partition("\n## The walk of one session")[2].partition("\n## ")[0]
    steps = re.findall(r"^(\d+)\. \[(\S+)\]\((\S+)\): ", section, re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) > 20
    for _, shown, path in steps:
        assert shown == path
        assert (ROOT / path).is_file(), path
    assert len({path for _, path, _ in steps}) == len(steps)


def test_log_events_that_are_named_exist() -> None:
    """Alerts are written against them."""
    code = "".join(path.read_text() for path in (ROOT / "archiver").rglob("*.py"))
    logs = OPERATIONS.partition("\n## Logs")[2]
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", logs))
    renames = UPGRADING.partition("**Log events are named")[2].partition("\n- ")[0]
    renamed = re.findall(r"^ *\| `([a-z_]+)` \| (`.*`.*) \|$", renames, re.MULTILINE)
    assert len(named) > 20
    assert len(renamed) > 20
    assert len({old for old, _ in renamed}) == len(renamed)
    named |= {name for _, new in renamed for name in re.findall(r"`([a-z_]+)`", new.partition(" (")[0])}
    of_outcomes = {f"session_{state}" for state in [*State, "handed_back", "not_ready", "retry", "rechecked"]}
    assert not {name for name in named - of_outcomes if f'"{name}"' not in code}


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


def test_every_metric_is_explained_with_its_type_and_labels_and_no_other() -> None:
    served = {}
    for family in every_metric():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        served[name] = (family.type, labels)
        assert family.samples, f"{name} has no value here, and so no labels"
    rows = re.findall(r"^\| `(archiver_\w+)` \| (\w+) \| ([\w, ]*) ?\| ", METRICS, re.MULTILINE)
    assert len(rows) > 30
    assert {name: (kind, set(filter(None, labels.strip().split(", ")))) for name, kind, labels in rows} == served


def test_every_reason_why_a_process_is_not_ready_is_explained_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", METRICS.partition("## Liveness")[2].partition("\n## ")[0], re.MULTILINE)
    assert rows == list(NOT_READY)


def test_the_changelog_has_an_unreleased_section_and_one_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog
    sections = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert sections[0][0] == PROJECT["project"]["version"] == archiver.__version__
    assert f"VERSION={archiver.__version__}" in (ROOT / "docs" / "container.md").read_text()


def test_the_source_distribution_has_every_document() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {path.relative_to(ROOT).parts[0] for path in DOCUMENTS} <= set(included)


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
    flags = {flag for case in CASES for flag in case.flags} | {"unproven"}  # that one is repair's
    assert flags == set(re.findall(r"^- `(\w+)`: ", section, re.MULTILINE))


@pytest.mark.parametrize("name", [*COUNTS, *CALL_FACTS, *SOURCES])
def test_every_count_fact_and_source_of_calls_is_explained(name: str) -> None:
    assert f"`{name}`" in DISCOVERY


def test_every_problem_and_mismatch_is_explained() -> None:
    code = (ROOT / "archiver/kore/listings/reader.py").read_text() + (ROOT / "archiver/account/reconcile.py").read_text()
    named = set(re.findall(r'"(?:problem|mismatch)": "([a-z_]+)"', code))
    assert len(named) > 10, "the pattern above no longer finds them"
    assert not {name for name in named if f"| `{name}` |" not in DISCOVERY}


def test_every_finding_of_an_audit_is_explained_and_in_the_order_in_which_it_is_told() -> None:
    page = (ROOT / "docs" / "evidence.md").read_text()
    _, _, table = page.partition("| finding | what it means | what to do |\n|---|---|---|\n")
    rows = [line.split("|") for line in table.partition("\n\n")[0].splitlines()]
    assert [row[1].strip() for row in rows] == [f"`{name}`" for name in MEANINGS]
    assert all(len(row) == 5 and row[2].strip() and row[3].strip() for row in rows)


def test_everything_that_an_audit_tells_as_known_is_explained() -> None:
    page = (ROOT / "docs" / "evidence.md").read_text()
    (told,) = re.findall(r"Told as `known:`.*?\n\n", page, re.DOTALL)
    sources = (ROOT / "archiver" / "evidence" / "audit").glob("*.py")
    known = {name for path in sources for name in re.findall(r'\.know\("(\w+)"', path.read_text())}
    assert known
    assert {name for name in known if f"`{name}`" not in told} == set()


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
