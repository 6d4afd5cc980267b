"""Validation: gains of the restorer on held-out groups, the strength at which they are largest, and its calibration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from torch import Tensor

from splatfix import metrics
from splatfix.conditioning import Conditioning
from splatfix.pairs import Pair
from splatfix.restoration.restorer import blend_correction
from splatfix.shapes import Bool, Float

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
GOOD_ERROR = 0.05  # mean absolute error of a pixel's channels up to which the render counts as good there
ERROR_BINS = np.geomspace(1e-4, 1.0, 161)  # edges, in absolute sRGB error
MIN_PIXELS = 100  # that are good, or bad, for a figure of them


class WholeRepair(NamedTuple):
    """A view repaired as a whole, with the whole correction: the image, not clamped, and its expected error."""

    rgb: Float[Tensor, "H W 3"]
    error: Float[Tensor, "H W"] | None = None


Repair = Callable[[Conditioning], WholeRepair]


@dataclass(frozen=True)
class Row:
    """Gains over the render of one pair at one strength: PSNR in dB, and SSIM.

    ``good_gain`` and ``bad_gain`` are PSNR over the pixels where the render's error is at most `GOOD_ERROR`, and over
    the others; None where a view has too few.
    """

    scene: str
    band: str | None
    strength: float
    psnr_gain: float
    ssim_gain: float
    good_gain: float | None = None
    bad_gain: float | None = None


class Measured(NamedTuple):
    """What was measured on one pair: gains at every strength, and the errors expected and found."""

    rows: list[Row]
    errors: ErrorTable | None


def measure_pair(repair: Repair, pair: Pair) -> Measured:
    """Repair one pair, and measure the gains over its render on the whole image and the expected error."""
    conditioning = pair.conditioning()
    clean, weight = pair.target()
    full, expected = repair(conditioning)
    mask = None if pair.mask is None else weight
    rows = _measure_gains(pair, conditioning.rgb, full, clean, weight, mask)
    found = (full.clamp(0, 1) - clean).abs().mean(-1)
    return Measured(rows, None if expected is None else tabulate_errors(expected, found, weight > 0.5))


def _measure_gains(
    pair: Pair, render: Tensor, full: Tensor, clean: Tensor, weight: Tensor, mask: Tensor | None
) -> list[Row]:
    """Gains at every strength of a correction to the image ``full``."""
    is_good = (render - clean).abs().mean(-1) <= GOOD_ERROR
    parts = [(part & (weight > 0.5)) for part in (is_good, ~is_good)]

    def score(image: Tensor) -> tuple[float, float]:
        return bounded_psnr(image, clean, mask), metrics.ssim(image, clean, mask)

    psnr, ssim = score(render)
    rows = []
    for strength in STRENGTHS:
        better = blend_correction(render, full, strength)
        better_psnr, better_ssim = score(better)
        changes = [_part_gain(render, better, clean, part) for part in parts]
        rows.append(Row(pair.scene, pair.meta.get("band"), strength, better_psnr - psnr, better_ssim - ssim, *changes))
    return rows


def _part_gain(render: Tensor, better: Tensor, clean: Tensor, part: Tensor) -> float | None:
    """Gain in dB over some of the pixels; None for too few."""
    if int(part.sum()) < MIN_PIXELS:
        return None
    return bounded_psnr(better, clean, part.float()) - bounded_psnr(render, clean, part.float())


def bounded_psnr(image: Tensor, clean: Tensor, mask: Tensor | None) -> float:
    """PSNR in dB over a mask, 100 at most, so that gains over equal images are finite."""
    return min(metrics.psnr(image, clean, mask), 100.0)


@dataclass(frozen=True, eq=False)
class ErrorTable:
    """Errors that a network expects, and what is found: sums over pixels by bins of the expected error.

    Attributes:
        num: pixels per bin of `ERROR_BINS`, ``[B]``.
        expected: sum of the expected absolute errors in each bin, ``[B]``.
        found: sum of the absolute errors that were found there, ``[B]``.
    """

    num: Float[ndarray, " B"]
    expected: Float[ndarray, " B"]
    found: Float[ndarray, " B"]

    def __add__(self, other: ErrorTable) -> ErrorTable:
        return ErrorTable(self.num + other.num, self.expected + other.expected, self.found + other.found)


def tabulate_errors(
    expected: Float[Tensor, "H W"], found: Float[Tensor, "H W"], is_known: Bool[Tensor, "H W"]
) -> ErrorTable:
    """Sum expected and found errors over the known pixels where both are finite, by bins of the expected error."""
    is_known = is_known & expected.isfinite() & found.isfinite()
    errors, truth = (values[is_known].double().cpu().numpy() for values in (expected, found))
    index = np.searchsorted(ERROR_BINS, errors)
    sums = [np.bincount(index, weights=weights, minlength=len(ERROR_BINS) + 1) for weights in (None, errors, truth)]
    return ErrorTable(*(values.astype(np.float64) for values in sums))


def calibrate(errors: ErrorTable) -> dict[str, Any]:
    """Fit the error that is found to the one that is expected, and list both by deciles of the expected error.

    Returns ``scale`` and ``power`` of ``found = scale * expected ** power``, by least squares of the logarithms of the
    deciles' means, and ``deciles``: a list of ``expected`` and ``found``, from the smallest errors to the largest.
    """
    order = np.cumsum(errors.num) - errors.num / 2
    decile = np.minimum((10 * order / max(errors.num.sum(), 1)).astype(int), 9)
    num, expected, found = (
        np.bincount(decile, weights=values, minlength=10) for values in (errors.num, errors.expected, errors.found)
    )
    is_filled = (num > 0) & (found > 0)
    means = expected[is_filled] / num[is_filled], found[is_filled] / num[is_filled]
    scale, power = 1.0, 1.0
    if is_filled.sum() >= 2 and np.ptp(np.log(means[0])) > 0:
        slope, offset = np.polyfit(np.log(means[0]), np.log(means[1]), 1, w=np.sqrt(num[is_filled]))
        power = float(np.clip(slope, 0.1, 3.0))
        scale = float(np.clip(np.exp(offset + (slope - power) * np.log(means[0]).mean()), 0.01, 100.0))
    rows = [{"expected": float(a), "found": float(b)} for a, b in zip(*means, strict=True)]
    return {"scale": scale, "power": power, "deciles": rows}


def summarize(measured: Sequence[Measured], groups: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The record of a validation: `summarize_gains`, and `calibrate` where the network tells an error."""
    summary = summarize_gains([row for one in measured for row in one.rows], groups)
    tables = [one.errors for one in measured if one.errors is not None]
    return summary | ({"calibration": calibrate(sum(tables[1:], start=tables[0]))} if tables else {})


def summarize_gains(rows: Sequence[Row], groups: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Average gains by strength: over scenes, then by scene, group and band; and find the best strength by mean PSNR.

    ``groups`` has the group of each scene; without it, each scene is one.
    """
    by_strength: dict[str, dict[str, Any]] = {}
    for strength in sorted({row.strength for row in rows}):
        chosen = [row for row in rows if row.strength == strength]
        by_scene = _means(chosen, lambda row: row.scene)
        by_strength[str(strength)] = {
            "psnr_gain": fmean(gain["psnr_gain"] for gain in by_scene.values()),
            "ssim_gain": fmean(gain["ssim_gain"] for gain in by_scene.values()),
            **_part_means(chosen),
            "by_scene": by_scene,
            "by_group": _means(chosen, lambda row: (groups or {}).get(row.scene, row.scene)),
            "by_band": _means([row for row in chosen if row.band], lambda row: str(row.band)),
        }
    best = max(by_strength, key=lambda strength: by_strength[strength]["psnr_gain"])
    return {
        "strength": float(best),
        "psnr_gain": by_strength[best]["psnr_gain"],
        "ssim_gain": by_strength[best]["ssim_gain"],
        "num_pairs": len(rows) // len(by_strength),
        "by_strength": by_strength,
    }


def _part_means(rows: Sequence[Row]) -> dict[str, float]:
    """Mean gains over scenes where the render was good, and where it was bad, as far as there are any."""
    means = {}
    for name, field in (("psnr_gain_good", "good_gain"), ("psnr_gain_bad", "bad_gain")):
        by_scene: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if (gain := getattr(row, field)) is not None:
                by_scene[row.scene].append(gain)
        if by_scene:
            means[name] = fmean(fmean(gains) for gains in by_scene.values())
    return means


def _means(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {
        name: {"psnr_gain": fmean(r.psnr_gain for r in members), "ssim_gain": fmean(r.ssim_gain for r in members)}
        for name, members in sorted(groups.items())
    }
