"""Log a sweep to MLflow: a run of the sweep, and a nested run of each trial, found again by stable tags.

Writes are idempotent: sending a record again, after a kill between two writes, has no effect.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from splatfix.config import to_tree
from splatfix.messages import without_secrets
from splatfix.report.sweep.results import FIGURES, PAGE, SWEEP, SweepResults
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import RoundRecord, TrialRecord, read_record, trial_folder, trial_name
from splatfix.sweep.summary import BEST
from splatfix.sweep.trial import PICTURES
from splatfix.tracking import (
    Status,
    Tracker,
    end_status,
    exit_status,
    finish_all,
    is_sent,
    open_tracker,
    send_unsent,
)

log = logging.getLogger(__name__)

WAIT_SECONDS, HURRIED_SECONDS = 60.0, 4.0  # for all unsent records at the end; after an interruption
DOWN_SECONDS = 20.0  # the same where the server did not answer last: it may be back
CALL_SECONDS = 15.0  # of a single call, at most
MAX_SENDING = 8  # ended runs that are still being sent, each by a thread
NOTE = "mlflow.note.content"  # the description on MLflow's page
RUN_STATUS: dict[str, Status] = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class SweepTracker:
    """Logs the trials of a sweep to MLflow. As a context manager, it ends all runs at its exit."""

    def __init__(self, config: SweepConfig, sweep: Path) -> None:
        self._config, self._sweep = config, sweep
        self._parent = open_tracker(sweep, config.tracking)
        self._parent.params(to_tree(replace(config, tracking=replace(config.tracking, uri=None))))
        self._running: dict[int, Tracker] = {}
        self._ending: deque[Tracker] = deque()
        self._best: float | None = None

    def update_trial(self, record: TrialRecord) -> None:
        """Log a trial that was proposed, completed a round, or ended; or that an earlier process left like that."""
        if not self._config.tracking.enabled:
            return
        folder = trial_folder(self._sweep, record.number)
        is_best = self._is_best_so_far(record)
        if record.has_ended and end_status(folder) == RUN_STATUS[record.status]:
            return
        rounds = record.rounds[-1:]
        if record.number not in self._running:
            self._running[record.number], rounds = self._open(record, folder), record.rounds
        tracker = self._running[record.number]
        for round_ in rounds:
            tracker.metrics(dict(_metrics(round_)), step=round_.round, time_ms=round_.time_ms)
        if not record.has_ended:
            return
        if is_best and self._best is not None:
            self._parent.metrics({"best_so_far": self._best}, step=record.number, time_ms=record.rounds[-1].time_ms)
        tracker.tags({"splatfix.outcome": record.status, NOTE: _describe_trial(record)})
        for path in self._artifacts(folder):
            tracker.artifact(path, f"splats/{path.parent.name}" if path.suffix == ".ply" else "")
        tracker.end(RUN_STATUS[record.status])
        del self._running[record.number]
        self._ending.append(tracker)
        if len(self._ending) > MAX_SENDING:  # the server is away or slow: the rest is sent at the end
            self._ending.popleft().finish(RUN_STATUS[record.status], wait_seconds=0, warn=False)

    def conclude(self, results: SweepResults) -> None:
        """Log the results of the whole sweep: a description, figures, the best trial, and files."""
        best = None if results.best is None else trial_name(results.best)
        verdicts = {} if results.reruns is None else results.reruns.verdicts
        differences = {f"reruns/{name}_difference": verdict.difference for name, verdict in verdicts.items()}
        self._parent.tags({NOTE: _describe_sweep(results), "splatfix.best": best or "none"})
        self._parent.metrics({"trials": float(len(results.trials)), **differences}, step=0)
        for path in (self._sweep / name for name in (PAGE, results.files.best, results.files.trials, SWEEP)):
            if path.is_file():
                self._parent.artifact(path)
        if results.best is not None:
            for path in self._report_and_pictures(trial_folder(self._sweep, results.best)):
                self._parent.artifact(path, "best trial")

    def _is_best_so_far(self, record: TrialRecord) -> bool:
        gain = record.figure(self._config.objectives[0])
        if record.status != "complete" or gain is None or (self._best is not None and gain <= self._best):
            return False
        self._best = gain
        return True

    def _open(self, record: TrialRecord, folder: Path) -> Tracker:
        config = replace(self._config.tracking, name=trial_name(record.number))
        tracker = open_tracker(folder, config, key=f"{self._parent.key}-{record.name}", parent=self._parent)
        tracker.params(record.values)
        return tracker

    def _artifacts(self, folder: Path) -> Iterator[Path]:
        yield from self._report_and_pictures(folder)
        if self._config.keep_splats:
            yield from sorted(folder.glob("*/after.ply"))

    def _report_and_pictures(self, folder: Path) -> Iterator[Path]:
        return (path for path in (folder / "report.html", folder / PICTURES) if path.exists())

    def __enter__(self) -> SweepTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._config.tracking.enabled:
            return
        self._end_running()
        trackers = [*self._running.values(), *self._ending]
        is_down = any(tracker.is_down for tracker in (self._parent, *trackers))
        seconds = HURRIED_SECONDS if kind is not None else DOWN_SECONDS if is_down else WAIT_SECONDS
        deadline = time.monotonic() + seconds
        late = finish_all([(self._parent, exit_status(kind)), *((tracker, "KILLED") for tracker in trackers)], deadline)
        self._parent.warn_unsent()
        last_call = time.monotonic() + CALL_SECONDS  # which a late thread may be in
        tries = kind is None and all(tracker.is_idle(max(0.0, last_call - time.monotonic())) for tracker in late)
        self._send_unsent(tries, time.monotonic() + WAIT_SECONDS)  # of a server that is back

    def _end_running(self) -> None:
        """End the runs of trials that no longer run, here or in an earlier process."""
        for folder in sorted((self._sweep / "trials").glob("*")):
            record = read_record(folder)
            if record is None or record.number in self._running or end_status(folder) is not None:
                continue
            if not record.has_ended:
                self._running[record.number] = self._open(record, folder)
        for tracker in self._running.values():
            tracker.end("KILLED")

    def _send_unsent(self, tries: bool, deadline: float) -> None:
        """Send the records of trials that earlier processes or a slow server left unsent; warn where that fails.

        Without ``tries`` it only warns. ``deadline``: the end of the wait, as a time of the monotonic clock.
        """
        unsent = [folder for folder in sorted((self._sweep / "trials").glob("*")) if not is_sent(folder)]
        reason = "there was no answer in time"
        for folder in list(unsent) if tries else ():
            try:
                send_unsent(folder, self._config.tracking.uri, stopped=lambda: time.monotonic() > deadline)
            except (ConnectionError, ValueError) as error:
                reason = str(error)
                break
            if time.monotonic() > deadline:
                break
            unsent.remove(folder)
        if unsent:
            uri = self._config.tracking.uri
            folders = f"{self._sweep} {self._sweep / 'trials' / '*'}"
            folders += "" if uri is None else f" --uri {without_secrets(uri)}"
            message = "tracking: %d trials are not sent (%s); `splatfix sync %s` sends them"
            log.warning(message, len(unsent), reason, folders)


def _metrics(round_: RoundRecord) -> Iterator[tuple[str, float]]:
    for name in FIGURES:
        if (value := getattr(round_, name)) is not None:
            yield name, value
    for case, figures in round_.cases.items():
        for name, value in vars(figures).items():
            if value is not None:
                yield f"{case}/{name}", value


def _describe_trial(record: TrialRecord) -> str:
    settings = "\n".join(f"- `{field}`: {value}" for field, value in record.values.items())
    if record.error:
        return f"Failed: {record.error}\n\n{settings}"
    end = {"complete": "Complete", "stopped": "Stopped early"}[record.status]
    gain = record.figure("gain")
    figure = "" if gain is None else f", gain {gain:+.3f}"
    head = f"{end}{figure} after {len(record.rounds)} rounds."
    return f"{head}\n\n{settings}\n\nUnder Artifacts: the report, and pictures of each case."


def _describe_sweep(results: SweepResults) -> str:
    verdicts = {} if results.reruns is None else results.reruns.verdicts
    return "\n\n".join(
        [
            f"Best: {trial_name(results.best)}" if results.best is not None else "No trial was completed.",
            *(verdict.sentence for verdict in verdicts.values()),
            f"Under Artifacts: pictures and report of the best trial, the whole page ({PAGE}), and {BEST}.",
        ]
    )
