"""The sweep in MLflow: a run of its own, and a nested one of each trial, found again by stable tags.

Whatever is told twice (after a kill between two writes) is the same record, and changes nothing there.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from splatfix.config import to_tree
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import TrialRecord, read_record
from splatfix.sweep.trial import PICTURES, trial_folder
from splatfix.tracking import Status, Tracker, has_ended, is_sent, open_tracker, send_rest

log = logging.getLogger(__name__)

MAX_SENDING = 8  # runs that have ended and are still being sent, each by a thread
NOTE = "mlflow.note.content"  # the description that MLflow's page shows
OUTCOMES: dict[str, Status] = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
FIGURES = ("gain", "gain_worst", "near", "mid", "far", "gain_ssim", "seconds")


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
        folder = trial_folder(self._sweep, record.number)
        if not self._config.tracking.enabled or (record.status != "running" and has_ended(folder)):
            return
        rounds = record.rounds[-1:]
        if record.number not in self._under_way:
            self._under_way[record.number], rounds = self._open(record, folder), record.rounds
        tracker = self._under_way[record.number]
        for made in rounds:
            tracker.metrics(dict(_figures(made)), step=made["round"], time_ms=made["time_ms"])
        if record.status == "running":
            return
        self._best_so_far(record)
        tracker.tags({"splatfix.outcome": record.status, NOTE: _note(record)})
        for path in self._artifacts(folder):
            tracker.artifact(path, f"splats/{path.parent.name}" if path.suffix == ".ply" else "")
        tracker.end(OUTCOMES[record.status])
        del self._under_way[record.number]
        self._ending.append(tracker)
        if len(self._ending) > MAX_SENDING:  # the server is away or slow: the rest is sent at the end
            self._ending.popleft().finish(OUTCOMES[record.status], wait_seconds=0, told=False)

    def _open(self, record: TrialRecord, folder: Path) -> Tracker:
        config = replace(self._config.tracking, name=f"trial-{record.name}")
        tracker = open_tracker(folder, config, key=f"{self._parent.key}-{record.name}", parent=self._parent)
        tracker.params(record.values)
        return tracker

    def _best_so_far(self, record: TrialRecord) -> None:
        gain = record.objective(self._config.objectives[0])
        if record.status == "complete" and gain is not None and (self._best is None or gain > self._best):
            self._best = gain
            self._parent.metrics({"best_so_far": gain}, step=record.number, time_ms=record.rounds[-1]["time_ms"])

    def _artifacts(self, folder: Path) -> Iterator[Path]:
        for path in (folder / "report.html", folder / PICTURES):
            if path.exists():
                yield path
        if self._config.keep_splats:
            yield from sorted(folder.glob("*/after.ply"))

    def concluded(self, note: str, figures: dict[str, float], best: int | None, files: Sequence[Path]) -> None:
        """What came out: words for the sweep's page, figures, the best trial, and files."""
        self._parent.tags({NOTE: note, "splatfix.best": "none" if best is None else f"trial-{best:04d}"})
        self._parent.metrics(figures, step=0)
        for path in files:
            self._parent.artifact(path)

    def __enter__(self) -> TrackedSweep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._config.tracking.enabled:
            self._end_the_rest()
        for tracker in [*self._under_way.values(), *self._ending]:
            tracker.finish("KILLED", wait_seconds=10 if kind is None else 2, told=False)
        self._parent.__exit__(kind, error, trace)
        if self._config.tracking.enabled:
            self._send_rest()

    def _end_the_rest(self) -> None:
        """Nothing runs any more: neither what was under way here, nor what an earlier process left."""
        for folder in sorted((self._sweep / "trials").glob("*")):
            record = read_record(folder)
            if record is None or record.number in self._under_way or has_ended(folder):
                continue
            if record.status == "running":
                self._under_way[record.number] = self._open(record, folder)
        for tracker in self._under_way.values():
            tracker.end("KILLED")

    def _send_rest(self) -> None:
        """What earlier processes, or slow times, left unsent of the trials."""
        unsent = [folder for folder in sorted((self._sweep / "trials").glob("*")) if not is_sent(folder)]
        for done, folder in enumerate(unsent):
            try:
                send_rest(folder, self._config.tracking.uri)
            except (ConnectionError, ValueError) as error:
                num, where = len(unsent) - done, f"{self._sweep} {self._sweep / 'trials' / '*'}"
                log.warning("tracking: %d trials are not sent (%s); `splatfix track %s` sends them", num, error, where)
                return


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
    return f"{told}{figure} after {len(record.rounds)} rounds.\n\n{settings}\n\nPictures and report: under Artifacts."
