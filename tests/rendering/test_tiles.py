"""Dealing Gaussians out to tiles."""

from __future__ import annotations

import numpy as np

from splatfix.rendering.cpu import tiles


def test_no_gaussian_takes_more_tiles_than_it_has_room_for() -> None:
    """Room is counted from the box, entries from the ellipse; at the edges of tiles rounding may tell them apart."""
    n, size = 20_000, 512
    random = np.random.default_rng(0)
    variance = random.uniform(0.3, 9, n)
    opacities = random.uniform(0.1, 1, n).astype(np.float32)
    half = np.sqrt(2 * np.log(255 * opacities.astype(np.float64)) * variance)
    edge = 16 * random.integers(1, size // 16 - 1, n) - 0.5 + random.uniform(-2e-4, 2e-4, n)
    x = np.where(random.random(n) < 0.5, edge + half + 0.5 + 0.01, edge - half + 0.5 - 0.01)
    means2d = np.stack([x, random.uniform(20, size - 20, n)], 1).astype(np.float32)
    conics = np.stack([1 / variance, np.zeros(n), 1 / variance], 1).astype(np.float32)
    radii = np.ceil(np.stack([half, half], 1)).astype(np.int32)
    depths, colors = np.ones(n, np.float32), np.zeros((n, 3), np.float32)
    for shift in (0.0, -0.5, 0.5):  # whichever side of a pixel the edge of a tile is taken to be
        moved = means2d + np.array([shift, 0], np.float32)
        visible, order = tiles.sort_by_depth(depths, radii)
        records, capacities = tiles.pack_records(
            visible, moved, conics, depths, opacities, colors, radii, size, size, 1
        )
        entries, _, _ = tiles.assign_to_tiles(records, order, capacities, size, size, 1)
        taken = np.bincount((entries >> np.uint64(tiles.BLOCKS)).astype(np.int64), minlength=n)
        assert (taken <= capacities).all(), f"{(taken > capacities).sum()} of {n}"
