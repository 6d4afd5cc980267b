"""What the driver of a sweep sends while trials run."""

from __future__ import annotations

import time
from pathlib import Path

from splatfix.process import progress
from splatfix.sweep.live_metrics import LiveMetrics
from splatfix.sweep.record import AttemptEnd, RoundRecord, TrialRecord
from splatfix.sweep.scheduler import SweepScheduler
from splatfix.telemetry import Telemetry
from tests.fake_ray_metrics import FakeRayMetrics
from tests.sweep.small import SPACE, small
from tests.waiting import wait_for

CONFIG = small(space=SPACE, search={"trials": 4, "method": "random", "parallel": 4}, workers={"attempts": 2})
ERROR, FAILED = AttemptEnd(outcome="error", error="killed"), AttemptEnd(outcome="failed", error="loss = nan")


def states(metrics: FakeRayMetrics) -> dict[str, float]:
    sent = metrics.sent["splatfix_sweep_trials"]
    return {labels[0][1]: values[-1] for labels, values in sent.items()}


def test_a_sweep_sends_states_rounds_failures_and_the_best(tmp_path: Path, ray_metrics: FakeRayMetrics) -> None:
    def start(telemetry: Telemetry) -> tuple[SweepScheduler, LiveMetrics]:
        def on_change(record: TrialRecord) -> None:
            live_metrics.update(record)

        settings = {"parallel": 4, "source": "test", "start_time": time.time()}
        scheduler = SweepScheduler(CONFIG, tmp_path, on_change=on_change, **settings)
        live_metrics = LiveMetrics(telemetry, scheduler, "gain", progress(total=4, description="trials", quiet=True))
        return scheduler, live_metrics

    with Telemetry("sweep", tmp_path) as telemetry:
        scheduler, live_metrics = start(telemetry)
        for _ in range(3):
            scheduler.next_trial()
        expected = {"waiting": 1, "running": 3, "complete": 0, "stopped": 0, "failed": 0}
        wait_for(lambda: states(ray_metrics) == expected)
        for number in (1, 2):
            scheduler.report(0, RoundRecord(round=number, gain=0.25 * number))
        scheduler.report(0, AttemptEnd(outcome="complete"))
        scheduler.report(1, FAILED)
        scheduler.report(2, ERROR)
        live_metrics.count_errors()
        wait_for(lambda: states(ray_metrics) == {"waiting": 2, "running": 0, "complete": 1, "stopped": 0, "failed": 1})
        assert scheduler.next_trial() is not None
        scheduler.report(2, ERROR)
        wait_for(lambda: states(ray_metrics)["failed"] == 2)
    assert ray_metrics.total("splatfix_sweep_rounds_total") == 2
    assert ray_metrics.last("splatfix_sweep_best", objective="gain") == 0.5
    assert ray_metrics.total("splatfix_sweep_failed_attempts_total", kind="machine") == 2
    assert ray_metrics.total("splatfix_sweep_failed_attempts_total", kind="content") == 1

    ray_metrics.sent.clear()
    with Telemetry("sweep", tmp_path) as telemetry:  # resumed: what an earlier driver has sent is not sent again
        scheduler, _ = start(telemetry)
        assert scheduler.next_trial() is not None
    assert ray_metrics.total("splatfix_sweep_rounds_total") == 0
    assert ray_metrics.total("splatfix_sweep_failed_attempts_total", kind="content") == 0
    assert ray_metrics.last("splatfix_sweep_best", objective="gain") == 0.5
