"""Dashboards and alerts select metrics that are sent, by labels and values that they have; every metric is used."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess

import promql_parser
import pytest

from splatfix.telemetry import METRICS
from tests.dashboards.queries import (
    ALERTS,
    FOLDER,
    NAMES,
    QUERIES,
    RULES,
    Query,
    find_nodes,
    find_selectors,
    read_dashboard,
)

FROM_RAY = {  # metrics of Ray itself that are used, and their labels
    "ray_node_gpus_utilization": {"ip"},
    "ray_node_gram_used": {"ip"},
    "ray_node_cpu_utilization": {"ip"},
    "ray_node_mem_used": {"ip"},
    "ray_node_mem_total": {"ip"},
    "ray_node_disk_free": {"ip"},
    "ray_node_disk_usage": {"ip"},
}
PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def exported_names(name: str) -> set[str]:
    """Names under which Ray exports a metric."""
    parts = ("_bucket", "_sum", "_count") if METRICS[name].kind == "histogram" else ("",)
    return {f"ray_{name}{part}" for part in parts}


EXPORTED = {exported: name for name in METRICS for exported in exported_names(name)}


def labels_of(exported: str) -> dict[str, tuple[str, ...] | None]:
    """The labels of an exported metric, and their values where these are known."""
    if exported in FROM_RAY:
        return dict.fromkeys(FROM_RAY[exported])
    le = {"le": None} if exported.endswith("_bucket") else {}
    return {"run": None, **le, **METRICS[EXPORTED[exported]].labels}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_queries_select_metrics_labels_and_values_that_are_sent(query: Query) -> None:
    selectors = find_selectors(query.expression)
    assert selectors
    for selector in selectors:
        labels = labels_of(selector.name)  # KeyError: nothing sends it
        for matcher in selector.matchers.matchers:
            values = labels[matcher.name]
            assert values is None or set(matcher.value.split("|")) <= set(values), matcher.value
    for node in find_nodes(promql_parser.parse(query.expression)):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            below = [
                labels_of(each.name) for each in find_nodes(node) if isinstance(each, promql_parser.VectorSelector)
            ]
            assert all(set(node.modifier.labels) <= set(labels) for labels in below)


def test_counters_are_read_as_rates_and_gauges_are_not() -> None:
    for query in QUERIES:
        for node in find_nodes(promql_parser.parse(query.expression)):
            if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase"):
                (selector,) = (each for each in find_nodes(node) if isinstance(each, promql_parser.VectorSelector))
                assert METRICS[EXPORTED[selector.name]].kind in ("counter", "histogram"), query


def test_every_metric_is_used() -> None:
    used = {selector.name for query in QUERIES for selector in find_selectors(query.expression)}
    assert [name for name in METRICS if not used & exported_names(name)] == []
    assert set(FROM_RAY) <= used


def test_panels_show_the_chosen_runs_only() -> None:
    for query in QUERIES:
        for selector in find_selectors(query.expression):
            chosen = [matcher.value for matcher in selector.matchers.matchers if matcher.name == "run"]
            is_panel = query not in ALERTS and selector.name in EXPORTED
            assert chosen == (["$run"] if is_panel else [])


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_what_build_writes_and_can_be_imported(name: str) -> None:
    dashboard = read_dashboard(name)
    assert dashboard == runpy.run_path(str(FOLDER / "build.py"))["DASHBOARDS"][name], "run dashboards/build.py"
    assert dashboard["uid"] == f"splatfix-{name.removesuffix('.json')}" and dashboard["schemaVersion"] >= 39
    source, run = dashboard["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    (metric,) = re.fullmatch(r"label_values\((\w+), run\)", run["definition"]).groups()  # type: ignore[union-attr]
    assert metric in EXPORTED
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & cells and max(x for x, _ in own) < 24
        cells |= own
        assert panel["datasource"]["uid"] == "${datasource}" and panel["title"]
        legends = [re.findall(r"{{(\w+)}}", target["legendFormat"]) for target in panel["targets"]]
        for target, labels in zip(panel["targets"], legends, strict=True):
            assert all(re.search(rf"by \([^)]*\b{label}\b", target["expr"]) for label in labels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_alerts_say_what_to_do_and_are_tested() -> None:
    cases = (FOLDER / "rules_test.yml").read_text()
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "remedy"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["alert"] in cases
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_the_page_lists_all_metrics_and_alerts() -> None:
    page = (FOLDER.parent / "docs" / "monitoring.md").read_text()
    for name, metric in METRICS.items():
        labels = "; ".join(f"`{label}`: {', '.join(values)}" for label, values in metric.labels.items())
        assert f"| `{name}` | {labels} | {metric.meaning} ({metric.unit}) |" in page
    for rule in RULES:
        assert f"| `{rule['alert']}` | {rule['labels']['severity']} |" in page


@PROMTOOL
def test_prometheus_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(FOLDER / "rules.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@PROMTOOL
@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then() -> None:
    command = ["promtool", "test", "rules", str(FOLDER / "rules_test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
