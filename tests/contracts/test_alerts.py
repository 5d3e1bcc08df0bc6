"""What ships for Prometheus, Alertmanager and Grafana is held against these, against the metrics and against the runbook."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contracts.every_metric import every_metric
from tests.programs import installed

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
CASES = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))

pytestmark = pytest.mark.once  # files are the same on every Python


def _promtool(*arguments: str, folder: Path = PROMETHEUS) -> str:
    program = installed("promtool", "prometheus")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _expressions(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for panel in panels:
        for target in panel.get("targets", ()):
            yield panel["title"], re.sub(r"\$\w+", ".*", target["expr"])


def test_prometheus_takes_rules_and_configuration() -> None:
    assert f"{len(RULES)} rules found" in _promtool("check", "rules", "alerts.yml")
    _promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_otherwise() -> None:
    _promtool("test", "rules", "alerts_test.yml")
    tried: dict[str, set[bool]] = {}
    for case in CASES:
        for test in case["alert_rule_test"]:
            tried.setdefault(test["alertname"], set()).add(bool(test["exp_alerts"]))
    assert tried == {rule["alert"]: {True, False} for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_the_runbook_says_what_to_do(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^### {name}\n\n(.*?)(?=^#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert section[1].startswith(rule["labels"]["severity"].capitalize() + ".")
    assert "- Look" in section[1]
    assert "Do" in section[1] or "do:" in section[1]


def test_the_runbook_has_no_alert_that_does_not_exist() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_alertmanager_takes_its_example() -> None:
    program = installed("amtool", "prometheus-alertmanager")
    done = subprocess.run([program, "check-config", str(ALERTMANAGER)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    severities = {rule["labels"]["severity"] for rule in RULES}
    assert severities == {"page", "ticket"}
    named = set(re.findall(r"Archiver\w+", ALERTMANAGER.read_text()))
    assert named
    assert named <= {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_takes_every_expression_of_a_dashboard(dashboard: Path, tmp_path: Path) -> None:
    board = json.loads(dashboard.read_text())
    rules = [
        {"record": f"panel:{number}", "expr": expression, "labels": {"title": title}}
        for number, (title, expression) in enumerate(_expressions(board["panels"]))
    ]
    assert len(rules) > 10
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in _promtool("check", "rules", "rules.yml", folder=tmp_path)
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)


SELECTOR = re.compile(r"\b((?:archiver|process)_\w+)(?:\{([^}]*)\})?")
OTHERS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
"""Of prometheus_client itself."""


def _used() -> Iterator[tuple[str, str, set[str]]]:
    """Each metric that an expression names: where, and by which labels it is chosen."""
    alerts = [(rule["alert"], rule["expr"]) for rule in RULES]
    panels = [panel for path in DASHBOARDS for panel in _expressions(json.loads(path.read_text())["panels"])]
    for where, expression in (*alerts, *panels):
        for name, labels in SELECTOR.findall(expression):
            yield where, name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))


def test_alerts_and_dashboards_name_metrics_that_there_are_by_labels_that_they_have() -> None:
    served: dict[str, set[str]] = {name: set() for name in OTHERS}
    for family in every_metric():
        for sample in family.samples:
            served.setdefault(sample.name, set()).update(sample.labels)
    used = list(_used())
    assert len({name for _, name, _ in used}) > 30
    assert not {(where, name) for where, name, _ in used if name not in served}
    from_scraping = {"job", "instance"}
    assert not {
        (where, name, *labels - served[name] - from_scraping)
        for where, name, labels in used
        if labels - served[name] - from_scraping
    }


def test_labels_by_which_alerts_are_grouped_are_those_of_their_metrics() -> None:
    """An alert without the bot that it names would be one for all bots."""
    served: dict[str, set[str]] = {"up": set()}
    for family in every_metric():
        for sample in family.samples:
            served.setdefault(sample.name, set()).update(sample.labels)
    for rule in RULES:
        texts = " ".join(rule["annotations"].values())
        named = set(re.findall(r"\$labels\.(\w+)", texts)) - {"job", "instance"}
        names = [name for name, _ in SELECTOR.findall(rule["expr"])]
        assert all(any(label in served[name] for name in names) for label in named), rule["alert"]
