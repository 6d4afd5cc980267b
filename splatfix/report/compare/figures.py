"""The figures of a restorer in a comparison, means over its cases: what table, page and headline share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splatfix.evaluation.drift import Drift
from splatfix.evaluation.results import mean_if_known
from splatfix.report.compare.results import RestorerResult


@dataclass(frozen=True, kw_only=True)
class ComparisonFigures:
    """Figures of one restorer; None where a case lacks one.

    Attributes:
        frame_psnr: of the repaired test views, dB.
        frame_change: that, minus the PSNR of their renders.
        color_gain: mean over test views and channels, 1 without drift.
        drift: standard deviation of the color gains over the test views.
        bias_spread: standard deviation of the color biases over the test views.
        flicker: mean change of the color gain between consecutive frames of a path.
        warp_error: mean absolute error of a repaired view warped into its neighbor.
        warp_ratio: the same over that of the photos.
        gain: in 3D, PSNR in dB.
    """

    frame_psnr: float | None
    frame_change: float | None
    color_gain: float | None
    drift: float | None
    bias_spread: float | None
    flicker: float | None
    warp_error: float | None
    warp_ratio: float | None
    gain: float | None


def comparison_figures(restorer: RestorerResult) -> ComparisonFigures:
    """The figures of a restorer."""
    entries = restorer.entries
    return ComparisonFigures(
        frame_psnr=restorer.mean("frame_mean", "repaired", "psnr"),
        frame_change=restorer.mean("frame_change", "psnr"),
        color_gain=mean_if_known(_channel_mean(entry.drift, "mean_gain") for entry in entries),
        drift=mean_if_known(_channel_mean(entry.drift, "gain_spread") for entry in entries),
        bias_spread=mean_if_known(_channel_mean(entry.drift, "bias_spread") for entry in entries),
        flicker=mean_if_known(_channel_mean(entry.path_drift, "gain_change") for entry in entries),
        warp_error=mean_if_known(None if entry.consistency is None else entry.consistency.error for entry in entries),
        warp_ratio=mean_if_known(None if entry.consistency is None else entry.consistency.ratio for entry in entries),
        gain=restorer.mean("gain"),
    )


def _channel_mean(drift: Drift | None, figure: str) -> float | None:
    channels = None if drift is None else getattr(drift, figure)
    return None if channels is None else float(np.mean(channels))
