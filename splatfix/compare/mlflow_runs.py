"""Log a comparison to MLflow: a run of the comparison, and a nested run of each entry, found again by stable keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType

from splatfix.compare.config import CompareConfig
from splatfix.compare.entry import EntryTask
from splatfix.config import to_tree
from splatfix.report.compare.results import COMPARE, PAGE, CompareResults, Entry
from splatfix.restoration import RestorerChoice
from splatfix.tracking import TRACKING_FILES, open_tracker

TRACKING_PATTERNS = (*TRACKING_FILES, *(f"*/*/{name}" for name in TRACKING_FILES))
METRICS = ("psnr", "ssim", "lpips")


class CompareTracker:
    """Logs the entries of a comparison to MLflow. As a context manager, it ends all runs at its exit."""

    def __init__(self, config: CompareConfig, out: Path) -> None:
        self._config, self._out = config, out
        self._parent = open_tracker(out, config.tracking)
        self._parent.params(to_tree(replace(config, tracking=replace(config.tracking, uri=None))))

    def add(self, task: EntryTask, entry: Entry) -> None:
        """Log an entry that has just ended."""
        if not self._config.tracking.enabled:
            return
        config = replace(self._config.tracking, name=task.name.replace("/", " on "))
        key = f"{self._parent.key}-{task.label}-{task.case.name}"
        choice = RestorerChoice.of(task.restorer)
        folder = self._out / entry.folder
        tracker = open_tracker(folder, config, key=key, parent=self._parent)
        tracker.params({"restorer": choice.name, "options": choice.options, "capture": task.case.title})
        tracker.metrics({name: value for name, value in entry_metrics(entry).items() if value is not None}, step=0)
        if (folder / "report.html").is_file():
            tracker.artifact(folder / "report.html")
        tracker.finish("FINISHED" if entry.error is None else "FAILED", wait_seconds=5, warn=False)

    def conclude(self, results: CompareResults) -> None:
        """Log the figures of the whole comparison, its table and its page."""
        for restorer in results.restorers:
            gain = restorer.mean("gain")
            if gain is not None:
                self._parent.metrics({f"gain/{restorer.label}": gain}, step=0)
        for name in (PAGE, COMPARE):
            if (self._out / name).is_file():
                self._parent.artifact(self._out / name)

    def __enter__(self) -> CompareTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parent.__exit__(kind, error, trace)


def entry_metrics(entry: Entry) -> dict[str, float | None]:
    """The figures of an entry by name."""
    figures: dict[str, float | None] = {f"gain/{metric}": entry.gain(metric) for metric in METRICS}
    figures |= {f"frames/{metric}": entry.frame_mean("repaired", metric) for metric in METRICS}
    figures |= {"frames/good_pixels": entry.pixel_change("good"), "frames/bad_pixels": entry.pixel_change("bad")}
    return figures | {"seconds_per_view": entry.seconds_per_view}
