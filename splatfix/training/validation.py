"""Validation: gains of the restorer on held-out groups, and the strength at which they are largest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from splatfix import metrics
from splatfix.conditioning import Conditioning
from splatfix.pairs import Pair
from splatfix.restoration.restorer import blend_correction

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
Repair = Callable[[Conditioning], torch.Tensor]  # the image of a whole view with the whole correction, [H, W, 3]


@dataclass(frozen=True)
class Row:
    """Gains over the render of one pair at one strength: PSNR in dB, and SSIM."""

    scene: str
    band: str | None
    strength: float
    psnr_gain: float
    ssim_gain: float


def measure_gains(repair: Repair, pair: Pair) -> list[Row]:
    """Gains over the render of one pair, on the whole image, at every strength."""
    conditioning = pair.conditioning()
    clean, weight = pair.target()
    full = repair(conditioning)
    mask = None if pair.mask is None else weight

    def score(image: torch.Tensor) -> tuple[float, float]:
        return min(metrics.psnr(image, clean, mask), 100.0), metrics.ssim(image, clean, mask)

    psnr, ssim = score(conditioning.rgb)
    rows = []
    for strength in STRENGTHS:
        better_psnr, better_ssim = score(blend_correction(conditioning.rgb, full, strength))
        rows.append(Row(pair.scene, pair.meta.get("band"), strength, better_psnr - psnr, better_ssim - ssim))
    return rows


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


def _means(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {
        name: {"psnr_gain": fmean(r.psnr_gain for r in members), "ssim_gain": fmean(r.ssim_gain for r in members)}
        for name, members in sorted(groups.items())
    }
