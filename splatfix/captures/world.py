"""Move captures that are far from the origin, or very large or small, to coordinates in which they can be fitted.

The renderer computes in float32 and leaves out what is nearer than 0.01 units. Positions in map coordinates (UTM), or a
scene measured in kilometers, would cost most of the detail. Such a capture is shifted to its cameras and scaled by a
power of two when it is opened, and what is exported is moved back (`Capture.file_from_world`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from splatfix.cameras import Camera, estimate_depth, measure_depth
from splatfix.captures.capture import Capture, Points
from splatfix.similarity import IDENTITY, Similarity

MAX_DISTANCE = 100.0  # of the cameras from the origin, in sizes of the scene
SIZES = (0.125, 4096.0)  # of the scene, in world units
SIZE = 4.0  # of a scene that is scaled, but for a factor below the square root of 2
NUM_CAMERAS, NUM_POINTS = 24, 500  # that the size is measured with
MOST = 0.8  # share of the cameras whose distances from the median center count
MAX_DEPTH = 100.0  # over the extent of the cameras, without points


def move_to_cameras(capture: Capture) -> Capture:
    """Shift and scale a capture to its cameras where it needs that; other captures are returned as they are."""
    file_from_world = choose_world(capture.cameras, capture.points)
    if file_from_world.is_identity:
        return capture
    points = capture.points
    if points is not None:
        points = replace(points, positions=file_from_world.apply_inverse(points.positions))
    return replace(
        capture,
        views=tuple(replace(view, camera=view.camera.change_world(file_from_world)) for view in capture.views),
        points=points,
        file_from_world=file_from_world,
        notes=(*capture.notes, describe_world(file_from_world)),
    )


def choose_world(cameras: Sequence[Camera], points: Points | None = None) -> Similarity:
    """Choose the world to fit in, as ``file_from_world`` of `Capture`; the identity for ordinary captures.

    A capture is shifted if its cameras are farther from the origin than `MAX_DISTANCE` sizes of the scene, and scaled
    if the size is outside of `SIZES`. Offsets are rounded, so that they are easy to read.
    """
    size = _measure_size(cameras, points)
    if size is None:
        return IDENTITY
    center = np.median([camera.center for camera in cameras], axis=0)
    scale = 1.0 if SIZES[0] <= size <= SIZES[1] else 2.0 ** round(math.log2(size / SIZE))
    offset = (0.0, 0.0, 0.0)
    if np.linalg.norm(center) > MAX_DISTANCE * size:
        step = 10.0 ** math.floor(math.log10(size))
        x, y, z = (round(value / step) * step for value in center.tolist())
        offset = (x, y, z)
    return Similarity(scale, offset)


def _measure_size(cameras: Sequence[Camera], points: Points | None) -> float | None:
    """Measure the size of a scene: its depth or the extent of its cameras, whichever is more. None if nothing tells.

    Some cameras whose poses are wrong do not matter: the extent is twice the distance of most cameras from the median
    center, and a depth without points, which such cameras or nearly parallel axes can put anywhere, is limited by it.
    """
    some = cameras[:: math.ceil(len(cameras) / NUM_CAMERAS)]
    positions = None if points is None else points.positions[:: math.ceil(max(len(points), 1) / NUM_POINTS)]
    centers = np.stack([camera.center for camera in some])
    extent = 2 * float(np.quantile(np.linalg.norm(centers - np.median(centers, axis=0), axis=1), MOST))
    depth = measure_depth(some, positions)
    if depth is None and extent > 0:
        depth = min(estimate_depth(some, None), MAX_DEPTH * extent)
    return None if depth is None else max(depth, extent)


def describe_world(file_from_world: Similarity) -> str:
    """Describe the move of a capture in a note."""
    done = []
    if any(file_from_world.offset):
        offset = ", ".join(f"{value:.10g}" for value in file_from_world.offset)
        done.append(f"the cameras are far from the origin: [{offset}] is subtracted from all coordinates")
    if file_from_world.scale != 1:
        size = "large" if file_from_world.scale > 1 else "small"
        done.append(f"the scene is very {size}: all coordinates are divided by {file_from_world.scale:.10g}")
    return "; ".join(done) + " (exported splats have the coordinates of the capture's files)"
