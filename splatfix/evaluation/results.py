"""``results.json``: what a run measured on its test photos. The public contract of every measured run.

The dataclasses have the shape of the file: every writer builds them, every reader gets them from `read_results`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from splatfix.evaluation.validation import Validation
from splatfix.files import read_json, write_json
from splatfix.records import parse_record
from splatfix.views import Band

SCHEMA = 1
RESULTS = "results.json"
REMEDY = "run the command again, or use the splatfix that wrote it (run.json names its version)"

Arm = Literal["before", "control", "after", "post"]
ARMS: tuple[Arm, ...] = ("before", "control", "after", "post")
ARM_MEANINGS = {
    "before": "the sparse fit from the training photos",
    "control": "the same fit trained on as long as “after”, without repaired views",
    "after": "the fit retrained with repaired views",
    "post": "“after”, with the restorer applied once more to each rendered image",
}
LOWER_IS_BETTER = frozenset({"lpips"})

Metrics = dict[str, float | None]  # by metric, as `metrics.compute_metrics` names them; None where one is not known


@dataclass(frozen=True, kw_only=True)
class ViewResult:
    """One test view: its place and the metrics of each arm; None for an arm that the run does not have.

    Attributes:
        name: of the photo.
        band: of the distance.
        distance: from the training cameras (`views.view_distances`).
        before: the sparse fit.
        control: the sparse fit, trained on without repaired views.
        after: the fit retrained with repaired views.
        post: ``after``, its render repaired once more.
    """

    name: str
    band: Band
    distance: float | None
    before: Metrics | None
    control: Metrics | None
    after: Metrics | None
    post: Metrics | None

    def value(self, arm: str, metric: str) -> float | None:
        """A metric of an arm; None where either is missing."""
        return _value(getattr(self, arm), metric)

    @property
    def gain(self) -> Metrics | None:
        """`gain` of this view's arms."""
        return gain(self.before, self.control, self.after)


@dataclass(frozen=True, kw_only=True)
class BandSummary:
    """Means over the views of a band, per arm, and the gain of these means. None for a missing arm."""

    before: Metrics | None
    control: Metrics | None
    after: Metrics | None
    post: Metrics | None
    gain: Metrics | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """`BandSummary` of all test views and of each band; None where there is no view."""

    all: BandSummary | None
    near: BandSummary | None
    mid: BandSummary | None
    far: BandSummary | None

    def value(self, band: str, column: str, metric: str) -> float | None:
        """A mean: ``band`` may be ``all``, ``column`` is an arm or ``gain``; None where any of them is missing.

        Raises:
            ValueError: no such band or column.
        """
        bands, columns = [f.name for f in fields(Summary)], [f.name for f in fields(BandSummary)]
        for what, name, known in (("band", band, bands), ("column", column, columns)):
            if name not in known:
                raise ValueError(f"summary: {what} {name!r}; wanted one of {', '.join(known)}")
        means = getattr(self, band)
        return None if means is None else _value(getattr(means, column), metric)

    @staticmethod
    def from_json(tree: Any, source: str) -> Summary:
        """Read parsed JSON. ValueError in one line where a field is missing or ill-typed."""
        return parse_record(Summary, tree, source=source, remedy=REMEDY)


@dataclass(frozen=True, kw_only=True)
class Elongation:
    """Longest over shortest axis of the Gaussians of a splat: median and 95th percentile."""

    median: float | None
    p95: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimate of ``before`` where no photo is left to test on (`leave_one_out.estimate_quality`).

    Attributes:
        photos: names of the training photos that were left out, one at a time.
        psnr: mean over them, in dB; None where it is not known.
        ssim: mean over them.
    """

    photos: tuple[str, ...]
    psnr: float | None
    ssim: float | None


@dataclass(frozen=True, kw_only=True)
class IgnoredPixels:
    """Share of the pixels that masks exclude, in [0, 1]: means over the training photos, and over the test photos.

    ``test`` is None without test photos.
    """

    train: float
    test: float | None


@dataclass(frozen=True, kw_only=True)
class Results:
    """The whole of ``results.json``.

    Attributes:
        schema: of the file.
        capture: name of the capture.
        restorer: name or folder of the restorer; None where none was used.
        seed: of the run.
        size_px: longest side of the images.
        views: the test views, in the order of the split.
        summary: means over the views.
        elongation: by exported arm.
        seconds: by stage.
        num_gaussians: by exported arm.
        reasons: why a metric is None, by metric.
        estimate: of ``before``, where no photo is left to test on.
        ignored: what masks exclude from the fit and from all metrics; None where that is nothing.
        validation: of the rounds on left-out training photos; None where they were not validated.
        spread: the run-to-run spread: absolute difference between the means of two controls with the same seed, by
            metric. None where it was not measured; where fits repeat exactly (on the CPU) it would be 0.
    """

    schema: int = SCHEMA
    capture: str
    restorer: str | None
    seed: int | None
    size_px: int
    views: tuple[ViewResult, ...]
    summary: Summary
    elongation: dict[str, Elongation]
    seconds: dict[str, float]
    num_gaussians: dict[str, int]
    reasons: dict[str, str]
    estimate: Estimate | None = None
    ignored: IgnoredPixels | None = None
    validation: Validation | None = None
    spread: Metrics | None = None

    @property
    def arms(self) -> list[Arm]:
        """The arms that were measured, in the order of `ARMS`."""
        return [arm for arm in ARMS if any(getattr(view, arm) is not None for view in self.views)]

    def to_json(self) -> dict[str, Any]:
        """The results as ``results.json`` holds them."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Any, source: str = RESULTS) -> Results:
        """Read parsed JSON.

        Raises:
            ValueError: another schema, or a missing or ill-typed field; one line names source, field, value and remedy.
        """
        return parse_record(Results, tree, source=source, remedy=REMEDY, schema=SCHEMA)


def write_results(folder: Path, results: Results) -> None:
    """Write ``results.json`` into a run folder."""
    write_json(Path(folder) / RESULTS, results.to_json())


def read_results(folder: Path) -> Results:
    """Read ``results.json`` of a run folder.

    Raises:
        ValueError: no such file, or not one that this splatfix reads; one line names the file and the remedy.
    """
    path = Path(folder) / RESULTS
    if not path.is_file():
        raise ValueError(
            f"{folder}: no {RESULTS}; wanted the folder of a finished fit, loop or evaluate run (generate, pose and "
            "compare write a page of their own)"
        )
    return Results.from_json(read_json(path), str(path))


def mean_if_known(values: Iterable[float | None]) -> float | None:
    """The mean; None where there are no values or one of them is None."""
    found = list(values)
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def gain(before: Metrics | None, control: Metrics | None, after: Metrics | None) -> Metrics | None:
    """``after`` minus the better of ``before`` and ``control``, metric by metric; None where an arm is missing.

    For LPIPS, where less is better, a negative gain is an improvement.
    """
    if before is None or control is None or after is None:
        return None
    gains: Metrics = {}
    for metric, value in after.items():
        rivals = [before.get(metric), control.get(metric)]
        known = [rival for rival in rivals if rival is not None]
        if value is None or len(known) < len(rivals):
            gains[metric] = None
        else:
            gains[metric] = value - (min(known) if metric in LOWER_IS_BETTER else max(known))
    return gains


def _value(metrics: Metrics | None, metric: str) -> float | None:
    return None if metrics is None else metrics.get(metric)
