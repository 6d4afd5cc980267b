"""Metrics: counters start at 0, gauges are repeated, labels are bounded, and nothing is raised."""

from __future__ import annotations

from pathlib import Path

from splatfix import telemetry
from splatfix.telemetry import METRICS, SENDERS, Telemetry, run_label
from tests.fake_ray_metrics import FakeRayMetrics
from tests.waiting import wait_for


def test_counters_start_at_0_with_all_their_labels(tmp_path: Path, ray_metrics: FakeRayMetrics) -> None:
    with Telemetry("generate", tmp_path):
        wait_for(lambda: "splatfix_pairs_total" in ray_metrics.sent)
    outcomes = {(("outcome", outcome),): [0.0] for outcome in ("done", "failed", "retried")}
    assert ray_metrics.sent["splatfix_fits_total"] == outcomes
    kinds = {(("kind", kind),): [0.0] for kind in ("content", "machine")}
    assert ray_metrics.sent["splatfix_failed_attempts_total"] == kinds
    counters = {name for name, each in METRICS.items() if each.kind == "counter" and "generate" in each.senders}
    assert set(ray_metrics.sent) == counters
    assert ray_metrics.runs == {run_label(tmp_path)}


def test_gauges_are_repeated_until_the_end(tmp_path: Path, ray_metrics: FakeRayMetrics) -> None:
    numbers = iter(range(1000))
    with Telemetry("generate", tmp_path) as sender:
        sender.set("splatfix_fits_left", 7)
        sender.set("splatfix_seconds_left", lambda: next(numbers))
        sender.set("splatfix_output_free_bytes", lambda: None)
        fits_left, seconds_left = ray_metrics.sent["splatfix_fits_left"][()], ray_metrics.sent["splatfix_seconds_left"]
        wait_for(lambda: len(fits_left) > 3)
    assert set(fits_left) == {7.0} and seconds_left[()][:3] == [0.0, 1.0, 2.0]
    assert "splatfix_output_free_bytes" not in ray_metrics.sent
    num = len(fits_left)
    assert sender._thread is not None and not sender._thread.is_alive()
    assert len(fits_left) == num


def test_unknown_label_values_become_other(tmp_path: Path, ray_metrics: FakeRayMetrics) -> None:
    sender = Telemetry("generate", tmp_path)
    sender.observe("splatfix_stage_seconds", 1.5, stage="render")
    sender.observe("splatfix_stage_seconds", 2.5, stage="scene 12345")
    sender.count("splatfix_pairs_total", 0)  # Ray refuses to add 0
    sender.count("splatfix_pairs_total", 3)
    stages = ray_metrics.sent["splatfix_stage_seconds"]
    assert dict(stages) == {(("stage", "render"),): [1.5], (("stage", "other"),): [2.5]}
    assert ray_metrics.sent["splatfix_pairs_total"][()] == [0.0, 3.0]


def test_an_error_of_ray_or_of_a_gauge_stops_nothing(tmp_path: Path, ray_metrics: FakeRayMetrics) -> None:
    def fail(*_: object) -> float:
        raise OSError("stale file handle")

    with Telemetry("generate", tmp_path) as sender:
        sender.set("splatfix_output_free_bytes", fail)
        sender.set("splatfix_fits_left", 3)
        wait_for(lambda: len(ray_metrics.sent["splatfix_fits_left"][()]) > 2)
        sender._metrics["splatfix_fits_left"].send = fail
        sender.set("splatfix_fits_left", 2)


def test_nothing_is_sent_without_ray_or_by_other_processes(tmp_path: Path, ray_metrics, monkeypatch) -> None:
    with Telemetry("train", tmp_path, enabled=False) as sender:
        sender.count("splatfix_train_steps_total")
    monkeypatch.setattr(telemetry, "_connected_metrics", lambda: None)
    with Telemetry("train", tmp_path) as sender:
        sender.count("splatfix_train_steps_total")
    assert not ray_metrics.sent


def test_runs_are_told_apart_by_their_output(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_label("pairs") == run_label(tmp_path / "pairs") == run_label(f"{tmp_path}/pairs/")
    assert run_label("pairs").startswith("pairs-") and run_label("pairs") != run_label("a/pairs")
    assert run_label("s3://bucket/my pairs (2)").startswith("my-pairs-2-")
    assert len(run_label("x" * 200)) < 40


def test_metrics_are_declared_in_prometheus_style() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("splatfix_") and metric.meaning and metric.unit
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.senders and set(metric.senders) <= set(SENDERS)
        assert "run" not in metric.labels and all(metric.labels.values())
