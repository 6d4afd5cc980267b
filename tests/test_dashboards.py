"""Dashboards and alerts read metrics that are really sent, by labels that they really have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from splatfix.telemetry import METRICS

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"
PANELS = json.loads((FOLDER / "generate.json").read_text())["panels"]
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in RULES]


def sent(name: str) -> set[str]:
    """Names under which Ray exports a metric."""
    if METRICS[name].kind == "histogram":
        return {f"ray_{name}_{part}" for part in ("bucket", "sum", "count")}
    return {f"ray_{name}"}


@pytest.mark.parametrize("query", QUERIES)
def test_queries_name_metrics_and_labels_that_are_sent(query: str) -> None:
    names = re.findall(r"ray_splatfix_\w+", query)
    assert names
    for name in names:
        (metric,) = [known for known in METRICS if name in sent(known)]
        labels = {*METRICS[metric].labels, "le"}
        assert set(re.findall(rf"{name}\{{(\w+)", query)) <= labels
    for group in re.findall(r"by \(([^)]*)\)", query):
        assert set(group.split(", ")) <= {"le", *(label for metric in METRICS.values() for label in metric.labels)}
    assert query.count("(") == query.count(")")


def test_every_metric_is_shown() -> None:
    shown = {name for query in QUERIES for name in re.findall(r"ray_splatfix_\w+", query)}
    assert [name for name in METRICS if not shown & sent(name)] == []


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len(set(places)) == len(places) and len({panel["id"] for panel in PANELS}) == len(PANELS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(FOLDER / "rules.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
