"""The sweep in MLflow: a run of its own, and a nested one of each trial, found again by stable tags.

Whatever is told twice (after a kill between two writes) is the same record, and changes nothing there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from splatfix.config import to_tree
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import FIGURES, TrialRecord, read_record
from splatfix.sweep.trial import PICTURES, trial_folder
from splatfix.tracking import Status, Tracker, ended_as, is_sent, open_tracker, send_rest

log = logging.getLogger(__name__)

WAIT_SECONDS, HURRIED_SECONDS = 60.0, 4.0  # at the end, for what is being sent; after a stop
CALL_SECONDS = 15.0  # of a single call, at most
MAX_SENDING = 8  # runs that have ended and are still being sent, each by a thread
NOTE = "mlflow.note.content"  # the description that MLflow's page shows
OUTCOMES: dict[str, Status] = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class TrackedSweep:
    """Tells MLflow what is learnt of the trials. Leaving it as a context ends what is under way."""

    def __init__(self, config: SweepConfig, sweep: Path) -> None:
        self._config, self._sweep = config, sweep
        self._parent = open_tracker(sweep, config.tracking)
        self._parent.params(to_tree(replace(config, tracking=replace(config.tracking, uri=None))))
        self._under_way: dict[int, Tracker] = {}
        self._ending: deque[Tracker] = deque()
        self._best: float | None = None

    def changed(self, record: TrialRecord) -> None:
        """A trial was proposed, ended a round, or ended; or it was found on the disk like that."""
        if not self._config.tracking.enabled:
            return
        folder = trial_folder(self._sweep, record.number)
        is_best = self._is_best_so_far(record)
        if record.status != "running" and ended_as(folder) == OUTCOMES[record.status]:
            return
        rounds = record.rounds[-1:]
        if record.number not in self._under_way:
            self._under_way[record.number], rounds = self._open(record, folder), record.rounds
        tracker = self._under_way[record.number]
        for made in rounds:
            tracker.metrics(dict(_figures(made)), step=made["round"], time_ms=made["time_ms"])
        if record.status == "running":
            return
        if is_best and self._best is not None:
            self._parent.metrics({"best_so_far": self._best}, step=record.number, time_ms=record.rounds[-1]["time_ms"])
        tracker.tags({"splatfix.outcome": record.status, NOTE: _note(record)})
        for path in self._artifacts(folder):
            tracker.artifact(path, f"splats/{path.parent.name}" if path.suffix == ".ply" else "")
        tracker.end(OUTCOMES[record.status])
        del self._under_way[record.number]
        self._ending.append(tracker)
        if len(self._ending) > MAX_SENDING:  # the server is away or slow: the rest is sent at the end
            self._ending.popleft().finish(OUTCOMES[record.status], wait_seconds=0, told=False)

    def _is_best_so_far(self, record: TrialRecord) -> bool:
        gain = record.objective(self._config.objectives[0])
        if record.status != "complete" or gain is None or (self._best is not None and gain <= self._best):
            return False
        self._best = gain
        return True

    def _open(self, record: TrialRecord, folder: Path) -> Tracker:
        config = replace(self._config.tracking, name=f"trial-{record.name}")
        tracker = open_tracker(folder, config, key=f"{self._parent.key}-{record.name}", parent=self._parent)
        tracker.params(record.values)
        return tracker

    def _artifacts(self, folder: Path) -> Iterator[Path]:
        yield from self._pages(folder)
        if self._config.keep_splats:
            yield from sorted(folder.glob("*/after.ply"))

    def _pages(self, folder: Path) -> Iterator[Path]:
        return (path for path in (folder / "report.html", folder / PICTURES) if path.exists())

    def concluded(self, note: str, figures: dict[str, float], best: int | None, files: Sequence[Path]) -> None:
        """What came out: words for the sweep's page, figures, the best trial, and files."""
        self._parent.tags({NOTE: note, "splatfix.best": "none" if best is None else f"trial-{best:04d}"})
        self._parent.metrics(figures, step=0)
        for path in files:
            self._parent.artifact(path)
        if best is not None:
            for path in self._pages(trial_folder(self._sweep, best)):
                self._parent.artifact(path, "best trial")

    def __enter__(self) -> TrackedSweep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        enabled = self._config.tracking.enabled
        if enabled:
            self._end_the_rest()
        trackers, late = [*self._under_way.values(), *self._ending], []
        hurried = kind is not None or any(tracker.is_down for tracker in trackers)
        deadline = time.monotonic() + (HURRIED_SECONDS if hurried else WAIT_SECONDS)
        for tracker in trackers:
            if not tracker.finish("KILLED", wait_seconds=max(0.0, deadline - time.monotonic()), told=False):
                late.append(tracker)
        self._parent.__exit__(kind, error, trace)
        if enabled:
            self._send_rest(tries=kind is None and all(tracker.is_idle(CALL_SECONDS) for tracker in late))

    def _end_the_rest(self) -> None:
        """Nothing runs any more: neither what was under way here, nor what an earlier process left."""
        for folder in sorted((self._sweep / "trials").glob("*")):
            record = read_record(folder)
            if record is None or record.number in self._under_way or ended_as(folder) is not None:
                continue
            if record.status == "running":
                self._under_way[record.number] = self._open(record, folder)
        for tracker in self._under_way.values():
            tracker.end("KILLED")

    def _send_rest(self, *, tries: bool) -> None:
        """What earlier processes, or slow times, left unsent of the trials; where it is vain to try, that is told."""
        unsent = [folder for folder in sorted((self._sweep / "trials").glob("*")) if not is_sent(folder)]
        reason = "there was no answer in time"
        for folder in list(unsent) if tries else ():
            try:
                send_rest(folder, self._config.tracking.uri)
            except (ConnectionError, ValueError) as error:
                reason = str(error)
                break
            unsent.remove(folder)
        if unsent:
            where = f"{self._sweep} {self._sweep / 'trials' / '*'}"
            message = "tracking: %d trials are not sent (%s); `splatfix track %s` sends them, as does --resume"
            log.warning(message, len(unsent), reason, where)


def _figures(made: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name in FIGURES:
        if made.get(name) is not None:
            yield name, made[name]
    for case, held in made["cases"].items():
        for name, value in held.items():
            if value is not None:
                yield f"{case}/{name}", value


def _note(record: TrialRecord) -> str:
    settings = "\n".join(f"- `{field}`: {value}" for field, value in record.values.items())
    if record.error:
        return f"Failed: {record.error}\n\n{settings}"
    told = {"complete": "Complete", "stopped": "Stopped early"}[record.status]
    gain = record.objective("gain")
    figure = "" if gain is None else f", gain {gain:+.3f}"
    head = f"{told}{figure} after {len(record.rounds)} rounds."
    return f"{head}\n\n{settings}\n\nUnder Artifacts: the report, and pictures of each case."
