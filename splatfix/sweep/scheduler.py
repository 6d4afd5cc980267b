"""The scheduler of a sweep: hands out trials, takes in their reports, stops those that fall behind.

A sweep is resumed by replaying it: the study proposes all trials again and is given the results that are on disk. So
finished trials are kept, interrupted ones are handed out again, and the proposals are those of an uninterrupted sweep.
"""

from __future__ import annotations

import errno
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from splatfix.sweep.config import SweepConfig
from splatfix.sweep.halving import passes_rung
from splatfix.sweep.proposals import ProposalStudy
from splatfix.sweep.record import AttemptEnd, RoundRecord, TrialRecord, TrialReport, read_record, trial_folder
from splatfix.workers import DiskFull, RunAborted

MAX_FAILED_FIRST = 5  # trials, before any was complete: then it is not the trials


class SweepScheduler:
    """All trials of a sweep; used by one thread.

    Attributes:
        num_trials: of the whole search.
        records: of the trials that were proposed, by number.
        abort_reason: the error that ends the sweep, once no other trial can work.
    """

    def __init__(
        self,
        config: SweepConfig,
        sweep: Path,
        *,
        parallel: int,
        source: str,
        start_time: float,
        on_change: Callable[[TrialRecord], object] = lambda _: None,
    ) -> None:
        """``start_time``: `time.time()` minus the seconds that the trials have taken so far."""
        self._config, self._sweep, self._parallel = config, sweep, parallel
        self._start_time, self._on_change = start_time, on_change
        self._study = ProposalStudy(config, source=source)
        self._num_told = 0  # results that the study has
        self._running: set[int] = set()
        self._retries: deque[int] = deque()
        self._attempts: Counter[int] = Counter()
        self.num_trials = self._study.num_trials
        self.records: list[TrialRecord] = []
        self.abort_reason: RunAborted | None = None

    @property
    def num_running(self) -> int:
        """Trials that were handed out and have not ended."""
        return len(self._running)

    @property
    def failed_attempts(self) -> Counter[int]:
        """Number of attempts at each trial that failed for other reasons than its settings."""
        return self._attempts

    @property
    def is_finished(self) -> bool:
        """Whether no trial is running and none will be handed out."""
        pending = self._retries or self._running or len(self.records) < self.num_trials
        return self.abort_reason is not None or not pending

    def next_trial(self) -> TrialRecord | None:
        """The next trial to run; None where it has to wait for others, or where there is none.

        Raises:
            ValueError: the trial on disk has other settings than those that are proposed now.
        """
        if self.abort_reason is not None:
            return None
        if self._retries:
            return self._start(self.records[self._retries.popleft()])
        while len(self.records) < self.num_trials:
            number = len(self.records)
            if not self._tell_results(number - self._parallel + 1):
                return None
            record = self._propose(number)
            self.records.append(record)
            self._on_change(record)
            if not record.has_ended:
                return self._start(record)
        return None

    def report(self, number: int, report: TrialReport) -> bool:
        """Take in a round or the end of a trial (`trial.run_trial`); returns whether the trial continues."""
        try:
            if isinstance(report, AttemptEnd):
                self._end_attempt(number, report)
                return False
            self._add_round(number, report)
            if self._continues(number, report.round):
                return True
            self._end(number, "stopped")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.abort_reason = DiskFull(str(error.filename or error))
        return False

    def _tell_results(self, num: int) -> bool:
        """Tell the study the results of the first ``num`` trials; False where one of them has not ended."""
        while self._num_told < num:
            record = self.records[self._num_told]
            if not record.has_ended:
                return False
            self._study.tell(record)
            self._num_told += 1
        return True

    def _propose(self, number: int) -> TrialRecord:
        """The trial as it is on disk, or a new one."""
        values, folder = self._study.ask(), trial_folder(self._sweep, number)
        known = read_record(folder)
        if known is None:
            record = TrialRecord(number=number, values=values)
            record.write(folder)
            return record
        if known.values != values:
            raise ValueError(
                f"{folder}: was proposed as {known.values}, but now {values} is proposed: the sweep was started with "
                f"other versions ({self._sweep / 'state.json'} names them); use those, or take another folder"
            )
        return known

    def _start(self, record: TrialRecord) -> TrialRecord:
        self._running.add(record.number)
        return record

    def _end_attempt(self, number: int, end: AttemptEnd) -> None:
        self._running.discard(number)
        if end.outcome == "disk full":
            self.abort_reason = DiskFull(str(end.error))
        elif end.outcome == "error":
            self._attempts[number] += 1
            if self._attempts[number] < self._config.workers.attempts:
                self._retries.append(number)
            else:
                self._end(number, "failed", end.error)
        else:
            self._end(number, end.outcome, end.error)

    def _add_round(self, number: int, round_: RoundRecord) -> None:
        """Record a round, unless an earlier attempt has reported it."""
        record = self.records[number]
        if all(known.round != round_.round for known in record.rounds):
            self._on_change(self._update(number, rounds=(*record.rounds, round_)))

    def _continues(self, number: int, round_number: int) -> bool:
        """Whether halving lets a trial continue after a round; the last round never stops it."""
        record = self.records[number]
        last = self._num_rounds(record)
        if self._config.halving is None or round_number >= last:
            return True
        objective = self._config.objectives[0]
        others = [  # trials that had ended when this one could be proposed: the same in every run of the sweep
            value
            for other in self.records[: max(0, number - self._parallel + 1)]
            if self._num_rounds(other) == last and (value := other.figure(objective, round_number)) is not None
        ]
        return passes_rung(round_number, record.figure(objective, round_number), others, self._config.halving)

    def _num_rounds(self, record: TrialRecord) -> int:
        return record.values.get("repair.rounds", self._config.loop.repair.rounds)

    def _end(self, number: int, status: Literal["complete", "stopped", "failed"], error: str | None = None) -> None:
        self._running.discard(number)
        if self.records[number].has_ended:
            return
        elapsed = round(time.time() - self._start_time, 1)
        self._on_change(self._update(number, status=status, error=error, elapsed=elapsed))
        if status == "failed":
            self._abort_if_all_failed(error)

    def _update(self, number: int, **changes: Any) -> TrialRecord:
        """Change the record of a trial, also on disk."""
        record = replace(self.records[number], **changes)
        self.records[number] = record
        record.write(trial_folder(self._sweep, number))
        return record

    def _abort_if_all_failed(self, error: str | None) -> None:
        """End the sweep where the first trials all failed; they count as running, so that resuming tries them again."""
        failed = [record for record in self.records if record.status == "failed"]
        has_success = any(record.status in ("complete", "stopped") for record in self.records)
        if has_success or len(failed) < min(MAX_FAILED_FIRST, self.num_trials):
            return
        self.abort_reason = RunAborted(f"the first {len(failed)} trials failed, the last with: {error}")
        for record in failed:
            self._update(record.number, status="running", error=None, elapsed=None)
