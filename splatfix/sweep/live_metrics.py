"""What the driver of a sweep sends to Ray while trials run (`splatfix.telemetry`)."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import get_args

from tqdm import tqdm

from splatfix.process import seconds_left
from splatfix.report.sweep.results import Status
from splatfix.sweep.analysis import best_trial
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.scheduler import SweepScheduler
from splatfix.telemetry import Telemetry


class LiveMetrics:
    """Sends the states of all trials, the best so far, the rounds that trials complete, and failed attempts."""

    def __init__(self, telemetry: Telemetry, scheduler: SweepScheduler, objective: str, bar: tqdm) -> None:
        self._telemetry, self._scheduler, self._objective = telemetry, scheduler, objective
        self._num_rounds: dict[int, int] = {}  # by trial
        self._num_errors: Counter[int] = Counter()  # by trial
        telemetry.set("splatfix_seconds_left", partial(seconds_left, bar))
        for state in ("waiting", *get_args(Status)):
            telemetry.set("splatfix_sweep_trials", partial(count_trials, scheduler, state), state=state)

    def update(self, record: TrialRecord) -> None:
        """Send what has changed with a trial: its rounds, and the best so far."""
        is_known = record.number in self._num_rounds  # else what the record holds was sent by an earlier driver
        before = self._num_rounds.get(record.number, len(record.rounds))
        self._telemetry.count("splatfix_sweep_rounds_total", len(record.rounds) - before)
        self._num_rounds[record.number] = len(record.rounds)
        if is_known and record.status == "failed" and not self._scheduler.failed_attempts[record.number]:
            self._telemetry.count("splatfix_sweep_failed_attempts_total", kind="content")
        self.count_errors()
        if record.has_ended and (best := best_trial(self._scheduler.records, self._objective)) is not None:
            self._telemetry.set("splatfix_sweep_best", best.figure(self._objective), objective=self._objective)

    def count_errors(self) -> None:
        """Send the attempts that have failed since the last call, for other reasons than a trial's settings."""
        errors = Counter(self._scheduler.failed_attempts)
        self._telemetry.count(
            "splatfix_sweep_failed_attempts_total", (errors - self._num_errors).total(), kind="machine"
        )
        self._num_errors = errors


def count_trials(scheduler: SweepScheduler, state: str) -> int:
    """Count the trials in a state; those to be tried again wait."""
    if state == "running":
        return scheduler.num_running
    if state == "waiting":
        return scheduler.num_trials - sum(record.has_ended for record in scheduler.records) - scheduler.num_running
    return sum(record.status == state for record in scheduler.records)
