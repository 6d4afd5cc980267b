"""The scheduler of a sweep: hands out trials, takes in their reports, stops those that fall behind.

A sweep is resumed by replaying it: the study proposes all trials again and is given the results that are on disk. So
finished trials are kept, interrupted ones are handed out again, and the proposals are those of an uninterrupted sweep.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from splatfix.errors import DiskFull, RunAborted, disk_full, is_disk_full
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.halving import passes_rung
from splatfix.sweep.proposals import ProposalStudy
from splatfix.sweep.record import (
    ERRORS,
    AttemptEnd,
    RoundRecord,
    TrialRecord,
    TrialReport,
    read_record,
    trial_folder,
)

log = logging.getLogger(__name__)

MAX_FAILED_FIRST = 5  # trials, before any was complete: then it is not the trials
MAX_NODE_ERRORS = 3  # attempts in a row on one node: then other trials avoid it, too


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
        self._failed_on: dict[int, set[str]] = {}  # trial -> nodes on which an attempt at it failed
        self._node_errors: Counter[str] = Counter()  # failed attempts in a row
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

    def nodes_to_avoid(self, number: int) -> set[str]:
        """Nodes on which an attempt at this trial failed, and those that fail whatever runs on them."""
        bad = {node for node, errors in self._node_errors.items() if errors >= MAX_NODE_ERRORS}
        return bad | self._failed_on.get(number, set())

    def report(self, number: int, report: TrialReport, node: str | None = None) -> bool:
        """Take in a round or the end of a trial (`trial.run_trial`); returns whether the trial continues.

        ``node``: the node that it ran on, if there are several.
        """
        try:
            if isinstance(report, AttemptEnd):
                self._end_attempt(number, report, node)
                return False
            if node is not None:
                self._node_errors.pop(node, None)
            self._add_round(number, report)
            if self._continues(number, report.round):
                return True
            self._end(number, "stopped")
        except OSError as error:
            if not is_disk_full(error):
                raise
            self.abort_reason = disk_full(error)
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

    def _end_attempt(self, number: int, end: AttemptEnd, node: str | None) -> None:
        if number not in self._running:  # its end was reported before: this changes nothing
            if end.error is not None:
                log.warning("trial %d: an error after its end: %s", number, end.error)
            return
        self._running.discard(number)
        if end.traceback is not None:
            self._keep_traceback(number, end, node)
        if end.outcome == "disk full":
            self.abort_reason = DiskFull(str(end.error))
        elif end.outcome == "error":
            self._count_error(number, end, node)
        else:
            self._end(number, end.outcome, end.error)

    def _count_error(self, number: int, end: AttemptEnd, node: str | None) -> None:
        """Retry a trial, away from the node that it failed on, or mark it as failed after the last attempt."""
        self._attempts[number] += 1
        if node is not None:
            self._failed_on.setdefault(number, set()).add(node)
            self._node_errors[node] += 1
            if self._node_errors[node] == MAX_NODE_ERRORS:
                message = "node %s: %d attempts in a row failed on it; trials avoid it while others have room"
                log.warning(message, node, MAX_NODE_ERRORS)
        attempts = self._config.workers.attempts
        if self._attempts[number] >= attempts:
            self._end(number, "failed", end.error)
            return
        place = "" if node is None else f" on node {node}"
        log.warning(
            "trial %d: attempt %d of %d failed%s: %s", number, self._attempts[number], attempts, place, end.error
        )
        self._retries.append(number)

    def _keep_traceback(self, number: int, end: AttemptEnd, node: str | None) -> None:
        """Append the traceback of a failed attempt to a file in the trial's folder."""
        place = "" if node is None else f" on node {node}"
        with (trial_folder(self._sweep, number) / ERRORS).open("a") as file:
            file.write(f"Attempt {self._attempts[number] + 1}{place}: {end.error}\n\n{end.traceback}\n")

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
