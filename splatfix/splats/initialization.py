"""Initialize Gaussians from points: isotropic, with the distance between neighbors as size."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from numpy import ndarray

from splatfix.gaussians import Gaussians, make_isotropic_gaussians
from splatfix.jit import kernel
from splatfix.shapes import Float
from splatfix.splats.initial_points import InitializationConfig, InitialPoints


def initialize_gaussians(
    points: InitialPoints, config: InitializationConfig, device: torch.device | str = "cpu"
) -> Gaussians:
    """Place isotropic Gaussians at the points, as 3D Gaussian Splatting does (Kerbl et al. 2023, section 5).

    Their standard deviation is the mean distance to the three nearest neighbors, clamped to the 1st and 95th
    percentile, times ``config.scale_factor``.
    """
    spacing = nearest_distances(np.ascontiguousarray(points.positions, np.float64))
    known = spacing[np.isfinite(spacing) & (spacing > 0)]
    low, high = np.percentile(known, [1, 95]) if len(known) else [0.01 * points.depth_scale] * 2
    spacing = np.clip(np.where(np.isfinite(spacing), spacing, high), low, high) * config.scale_factor
    return make_isotropic_gaussians(
        points.positions,
        points.colors,
        np.log(spacing),
        opacity=config.initial_opacity,
        sh_degree=config.sh_degree,
        device=device,
    )


def nearest_distances(positions: Float[ndarray, "P 3"]) -> Float[ndarray, " P"]:
    """Compute the mean distance to the three nearest other points (or to all, if fewer); NaN for a single point."""
    distances = np.full(len(positions), np.nan)
    if len(positions) > 1:
        axis = int(np.argmax(np.ptp(positions, axis=0)))
        order = np.argsort(positions[:, axis], kind="stable")
        distances[order] = _nearest(positions[order], axis)
    return distances


@kernel(parallel=True)
def _nearest(positions, axis):
    """Search points sorted along ``axis`` in both directions, until that coordinate is farther than the third best."""
    n = len(positions)
    result = np.empty(n)
    for p in prange(n):
        best = np.full(min(3, n - 1), np.inf)
        for direction in (-1, 1):
            q = p + direction
            while 0 <= q < n and (positions[q, axis] - positions[p, axis]) ** 2 < best[-1]:
                squared = 0.0
                for k in range(3):
                    squared += (positions[q, k] - positions[p, k]) ** 2
                slot = len(best) - 1
                if squared < best[slot]:
                    while slot > 0 and best[slot - 1] > squared:
                        best[slot] = best[slot - 1]
                        slot -= 1
                    best[slot] = squared
                q += direction
        total = 0.0
        for squared in best:
            total += np.sqrt(squared)
        result[p] = total / len(best)
    return result
