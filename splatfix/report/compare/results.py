"""The contents of ``compare.json``, the public record of a comparison of restorers.

The comparison writes it and the page reads it. The types are here, beside the page, since imports point downward.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from splatfix.evaluation.consistency import Consistency
from splatfix.evaluation.drift import Drift
from splatfix.evaluation.results import Metrics, Results, mean_if_known
from splatfix.files import read_json, write_json
from splatfix.records import parse_record
from splatfix.views import Band

COMPARE, PAGE = "compare.json", "compare.html"  # names on disk
SCHEMA = 1
REMEDY = "run splatfix compare again, which writes it again, or use the splatfix that wrote it"
BANDS_AND_ALL = ("all", "near", "mid", "far")
DIGEST = re.compile(r"-[0-9a-f]{6}$")  # of a restorer's options, at the end of its label

State = Literal["running", "finished"]


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """A test view as the restorer repairs it in 2D.

    Attributes:
        name: of the photo.
        band: of the view's distance.
        render: metrics of the flawed render.
        repaired: of the repaired render.
        good_share: share of the pixels where the render is good (`compare.frames.GOOD_ERROR`).
        good, bad: PSNR in dB of render and repaired render where the render is good, and where it is not: keys
            ``render`` and ``repaired``; None where there are no such pixels.
        mask_share: share of the pixels that the restorer's mask marks; None without a mask.
    """

    name: str
    band: Band
    render: Metrics
    repaired: Metrics
    good_share: float
    good: dict[str, float | None]
    bad: dict[str, float | None]
    mask_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A restorer on one case (a capture with a seed).

    Attributes:
        case: its name.
        folder: of the loop's run, relative to the comparison's.
        results: of the loop, as in ``results.json``; None until it has ended.
        frames: the test views, repaired in 2D.
        drift: of the repaired test views against the photos.
        path_drift: of repaired frames along a path through the training cameras, against the renders.
        consistency: of neighboring repaired test views, against that of the photos.
        seconds_per_view: that the restorer took.
        peak_memory_mb: of the process (on CUDA: of the device) up to the end of this entry.
        reasons: why a metric of a frame is None, by metric.
        error: why there are no figures.
    """

    case: str
    folder: str
    results: Results | None = None
    frames: tuple[FrameResult, ...] = ()
    drift: Drift | None = None
    path_drift: Drift | None = None
    consistency: Consistency | None = None
    seconds_per_view: float | None = None
    peak_memory_mb: int | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @staticmethod
    def from_json(tree: Any, source: str) -> Entry:
        """Read parsed JSON. ValueError in one line where a field is missing or ill-typed."""
        return parse_record(Entry, tree, source=source, remedy=REMEDY)

    def frame_mean(self, kind: str, metric: str, band: str = "all") -> float | None:
        """Mean of a metric over the test views of a band: ``kind`` is ``render`` or ``repaired``; None if one lacks."""
        return mean_if_known(getattr(frame, kind).get(metric) for frame in self._frames_in(band))

    def frame_change(self, metric: str, band: str = "all") -> float | None:
        """How much the repair changes a metric of the frames; positive is better, except for LPIPS."""
        render, repaired = self.frame_mean("render", metric, band), self.frame_mean("repaired", metric, band)
        return None if render is None or repaired is None else repaired - render

    def pixel_change(self, kind: str) -> float | None:
        """Mean PSNR change in dB where the render is ``good`` or ``bad``, over the views that have such pixels."""
        pairs = [getattr(frame, kind) for frame in self.frames]
        changes = [
            pair["repaired"] - pair["render"]
            for pair in pairs
            if pair.get("repaired") is not None and pair.get("render") is not None
        ]
        return mean_if_known(changes)

    def gain(self, metric: str = "psnr", band: str = "all") -> float | None:
        """The gain that survives in 3D (`evaluation.results.gain`)."""
        return None if self.results is None else self.results.summary.value(band, "gain", metric)

    def _frames_in(self, band: str) -> list[FrameResult]:
        return [frame for frame in self.frames if band in ("all", frame.band)]


@dataclass(frozen=True, kw_only=True)
class RestorerResult:
    """A restorer on all cases.

    Attributes:
        label: its name in the comparison, a folder's name.
        restorer: name or folder.
        options: of the restorer.
        entries: one for each case.
    """

    label: str
    restorer: str
    options: dict[str, Any] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()

    def mean(self, figure: str, *arguments: Any) -> float | None:
        """Mean over the cases of a figure: the name of a method or field of `Entry`; None if a case lacks it."""
        values = [getattr(entry, figure) for entry in self.entries]
        return mean_if_known(value(*arguments) if callable(value) else value for value in values)

    def spread(self, figure: str, *arguments: Any) -> float | None:
        """Standard deviation over the cases of the same; None for fewer than two."""
        values = [getattr(entry, figure) for entry in self.entries]
        found = [value(*arguments) if callable(value) else value for value in values]
        return None if len(found) < 2 or None in found else float(np.std(found, ddof=1))


@dataclass(frozen=True, kw_only=True)
class CompareCase:
    """A capture with a seed, and the baseline that all restorers share.

    Attributes:
        case: its name.
        capture: name of the capture.
        seed: of the loop.
        folder: run folder of the baseline, relative to the comparison's.
        before, control: PSNR in dB.
    """

    case: str
    capture: str
    seed: int
    folder: str
    before: float | None
    control: float | None


@dataclass(frozen=True, kw_only=True)
class CompareResults:
    """The whole of ``compare.json``.

    Attributes:
        schema: of the file.
        state: running or finished.
        cases: captures with seeds.
        restorers: in the order that was asked for.
        seconds: by stage.
        reasons: why a metric is None, by metric.
    """

    schema: int = SCHEMA
    state: State
    cases: tuple[CompareCase, ...]
    restorers: tuple[RestorerResult, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The results as ``compare.json`` holds them."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Any, source: str = COMPARE) -> CompareResults:
        """Read parsed JSON.

        Raises:
            ValueError: another schema, or a missing or ill-typed field; one line names source, field, value and remedy.
        """
        return parse_record(CompareResults, tree, source=source, remedy=REMEDY, schema=SCHEMA)


def shorten_labels(results: CompareResults) -> CompareResults:
    """Leave the digest of its options out of the label of a restorer whose name no other one has, for readers."""
    names = [DIGEST.sub("", restorer.label) for restorer in results.restorers]
    restorers = [
        replace(restorer, label=name if names.count(name) == 1 else restorer.label)
        for restorer, name in zip(results.restorers, names, strict=True)
    ]
    return replace(results, restorers=tuple(restorers))


def write_compare(folder: Path, results: CompareResults) -> None:
    """Write ``compare.json`` into the folder of a comparison."""
    write_json(Path(folder) / COMPARE, results.to_json())


def read_compare(folder: Path) -> CompareResults:
    """Read ``compare.json`` of a comparison's folder. ValueError names the file and the remedy."""
    path = Path(folder) / COMPARE
    if not path.is_file():
        raise ValueError(f"{folder}: no {COMPARE}; wanted the folder of splatfix compare")
    return CompareResults.from_json(read_json(path), str(path))
