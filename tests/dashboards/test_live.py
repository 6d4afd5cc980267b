"""A running Ray whose metrics a Prometheus scrapes: all panels and alerts are evaluated, and have data."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from splatfix.pairs.config import GenerateConfig
from splatfix.pairs.generate import generate
from splatfix.pairs.tasks import Task
from splatfix.pairs.worker import TaskResult
from splatfix.process import progress
from splatfix.sweep.live_metrics import LiveMetrics
from splatfix.sweep.record import RoundRecord, TrialRecord
from splatfix.sweep.scheduler import SweepScheduler
from splatfix.telemetry import Telemetry, run_label
from splatfix.training.live_metrics import send_segment, send_start, send_step
from splatfix.training.state import TrainingState
from splatfix.workers import WorkersConfig
from tests.dashboards.queries import ALERTS, FOLDER, PANELS, QUERIES, find_selectors
from tests.pairs.folders import make_empty_captures
from tests.pairs.stub import StubWorker
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.starts_ray]
ROOT = Path(__file__).resolve().parents[2]
STOP = "stop"  # a file; then all end
ONLY_WITH_GPUS = ("gpu", "gram")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert isinstance(port, int)
        return port


@dataclass(frozen=True)
class FlakyWorker(StubWorker):
    """As `StubWorker`, but two fits fail: one as on a bad machine, at first, and one for good. Hurries at the end."""

    def run(self, task: Task, upcoming: Task | None) -> TaskResult:
        folder = Path(self.settings.out).parent
        mark = folder / f"{task.stem}.tried"
        time.sleep(0 if (folder / STOP).exists() else 1)
        if task.fit_index == 2:
            raise ValueError("it has no photos")
        if task.fit_index == 1 and not mark.exists():
            mark.touch()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().run(task, upcoming)


def send_as_training(out: str) -> None:
    """Send what the driver and the main process of a training send."""
    validation = {"psnr_gain": 0.5}
    state = TrainingState(planned=3000, limits=[3000, None], best=0.6, history=[{"validation": validation}])
    bar = progress(total=3000, description="train")
    with Telemetry("launch", out) as launch, Telemetry("train", out) as telemetry:
        launch.set("splatfix_train_processes", 2)
        send_start(telemetry, state, torch.device("cpu"), bar)
        for step in range(3000):
            time.sleep(0.1)
            if Path(out).with_name(STOP).exists():
                break
            bar.update()
            numbers = {"loss": 1 / (step + 1), "learning_rate": 1e-3, "seconds": 0.1, "data_seconds": 0.02}
            send_step(telemetry, numbers, num_crops=8, steps_left=3000 - step)
            if step % 10 == 9:
                send_segment(telemetry, state, 0.01)


def send_as_sweep(out: str) -> None:
    """Send what the driver of a sweep sends."""

    def round_(number: int) -> RoundRecord:
        return RoundRecord(round=number, gain=0.1 * number, gain_worst=0.0, seconds=1.0, cases={}, time_ms=0)

    records = [TrialRecord(number=0, values={}), TrialRecord(number=1, values={})]
    scheduler = Mock(spec=SweepScheduler, records=records, num_trials=8, num_running=2, failed_attempts={0: 1})
    bar = progress(total=8, description="trials")
    with Telemetry("sweep", out) as telemetry:
        live_metrics = LiveMetrics(telemetry, scheduler, "gain", bar)
        for number in range(100):
            if Path(out).with_name(STOP).exists():
                break
            rounds = tuple(round_(each + 1) for each in range(number))
            records[0] = TrialRecord(number=0, values={}, rounds=rounds)
            live_metrics.update(records[0])
            if number == 2:
                records[1] = TrialRecord(number=1, values={}, status="complete", rounds=rounds)
                live_metrics.update(records[1])
                bar.update()
            time.sleep(1)


@dataclass(frozen=True)
class Running:
    """Ray's port of metrics, the URL of Prometheus (None where it is not installed), and the outputs of the runs."""

    metrics_port: int
    prometheus: str | None
    runs: dict[str, str]
    senders: list[Future[Any]]

    def check_senders(self) -> None:
        """Raise the error of a run that has ended too early."""
        for sender in self.senders:
            if sender.done():
                raise RuntimeError(f"a run has ended: {sender.result()}")

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def values(self, expression: str) -> list[float]:
        """The values of an expression now."""
        result = self.ask("query", query=expression.replace("$run", ".*"))["result"]
        return [float(each["value"][1]) for each in result]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def exported(self) -> list[tuple[str, dict[str, str]]]:
        """Name and labels of the series that Ray exports."""
        from prometheus_client.parser import text_string_to_metric_families

        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return [(sample.name, sample.labels) for family in families for sample in family.samples]


@contextlib.contextmanager
def prometheus_of(metrics_port: int, folder: Path) -> Iterator[str | None]:
    if shutil.which("prometheus") is None:
        yield None
        return
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{FOLDER / 'rules.yml'}]\n"
        f"scrape_configs: [{{job_name: ray, static_configs: [{{targets: ['127.0.0.1:{metrics_port}']}}]}}]\n"
    )
    port = free_port()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Running]:
    """A generation, a training and a sweep, all of stubs, in one Ray."""
    import ray

    folder, metrics_port = tmp_path_factory.mktemp("live"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_metrics_report_interval_ms", "1000")  # a gauge that is not repeated is gone after 2 s
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            _metrics_export_port=metrics_port,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            with prometheus_of(metrics_port, folder) as url:
                captures = make_empty_captures(folder / "in", "scene")
                config = GenerateConfig(fits_per_capture=100, device="cpu", workers=WorkersConfig(num=1))
                runs = {name: str(folder / name) for name in ("pairs", "restorer", "sweep")}
                make_fits = partial(generate, captures, runs["pairs"], config, make_worker=FlakyWorker)
                senders = [
                    make_fits,
                    partial(send_as_training, runs["restorer"]),
                    partial(send_as_sweep, runs["sweep"]),
                ]
                with ThreadPoolExecutor() as pool:
                    ends = [pool.submit(sender) for sender in senders]
                    yield Running(metrics_port, url, runs, ends)
                    (folder / STOP).touch()
                    for end in ends:
                        end.result(timeout=180)
        finally:
            ray.shutdown()


def is_expected(expression: str) -> bool:
    return not any(word in expression for word in ONLY_WITH_GPUS)


def test_ray_exports_every_series_that_is_selected(running: Running) -> None:
    missing: list[str] = []
    series: list[tuple[str, dict[str, str]]] = []  # of all scrapes: on a busy machine Ray's own gauges come and go

    def all_are_there() -> bool:
        running.check_senders()
        series.extend(each for each in running.exported() if each not in series)
        missing[:] = [
            query.place
            for query in QUERIES
            for selector in find_selectors(query.expression)
            if is_expected(selector.name) and not any(matches(selector, *each) for each in series)
        ]
        return not missing

    def matches(selector: Any, name: str, labels: dict[str, str]) -> bool:
        wanted = {matcher.name: matcher.value.split("|") for matcher in selector.matchers.matchers}
        wanted.pop("run", None)
        return selector.name == name and all(labels.get(label) in values for label, values in wanted.items())

    with contextlib.suppress(AssertionError):
        wait_for(all_are_there, seconds=90)
    assert not missing
    runs = {labels["run"] for name, labels in running.exported() if name.startswith("ray_splatfix_")}
    assert runs == {run_label(out) for out in running.runs.values()}


def test_all_panels_have_data_and_all_alerts_are_evaluated(running: Running) -> None:
    if running.prometheus is None:
        pytest.skip("prometheus is not installed")
    empty: list[str] = []

    def all_have_data() -> bool:
        running.check_senders()
        values = {query: running.values(query.expression) for query in PANELS}
        empty[:] = [
            query.place
            for query, found in values.items()
            if is_expected(query.expression) and not any(map(math.isfinite, found))
        ]
        return not empty

    with contextlib.suppress(AssertionError):
        wait_for(all_have_data, seconds=90)
    assert not empty
    for alert in ALERTS:
        running.values(alert.expression)
    wait_for(lambda: {rule["health"] for rule in running.rules()} == {"ok"}, seconds=10)


def test_a_gauge_that_is_set_once_stays_and_time_left_is_that_of_the_bar(running: Running) -> None:
    if running.prometheus is None:
        pytest.skip("prometheus is not installed")
    wait_for(lambda: running.values("max(count_over_time(ray_splatfix_train_processes[12s]))") >= [10], seconds=20)
    seconds = running.values('max(ray_splatfix_seconds_left{run=~"restorer.*"})')
    assert 150 < seconds[0] < 900  # 3000 steps of 0.1 s
