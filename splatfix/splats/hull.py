"""The space that a few photos share: its depths, its visual hull, and random points in it with their colors."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera, focus_point
from splatfix.shapes import Bool, Float

log = logging.getLogger(__name__)


def neighbor_angles_deg(cameras: Sequence[Camera], depth: float) -> Float[ndarray, "C C"]:
    """Angles in degrees between a camera and another one, as seen from the point on its axis at ``depth``.

    Infinite for the camera itself, and for cameras that have this point behind them.
    """
    angles = np.full((len(cameras), len(cameras)), np.inf)
    for i, camera in enumerate(cameras):
        target = camera.center + depth * camera.axis
        for j, other in enumerate(cameras):
            ray = target - other.center
            if i != j and ray @ other.axis > 0:
                cosine = ray @ camera.axis / max(float(np.linalg.norm(ray)), 1e-12)
                angles[i, j] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return angles


def depth_ranges(cameras: Sequence[Camera], positions: Float[ndarray, "P 3"]) -> list[tuple[float, float]]:
    """Nearest and farthest depth to search in each photo, in world units.

    From the points in view: the 2nd percentile times 0.75 to the 98th times 1.5. A photo with few points takes those of
    all photos; without enough points in any photo, the place that the cameras look at decides.
    """
    depths = [camera.project(positions)[1][camera.sees(positions)] for camera in cameras]
    all_depths = np.concatenate(depths)
    if len(all_depths) < 20:
        low, high = _range_of_cameras(cameras)
        return [(low, high)] * len(cameras)
    ranges = []
    for own in depths:
        low, high = np.percentile(own if len(own) >= 20 else all_depths, [2, 98])
        ranges.append((0.75 * float(low), 1.5 * float(high)))
    return ranges


def _range_of_cameras(cameras: Sequence[Camera]) -> tuple[float, float]:
    """Depths around the focus point, or multiples of the widest baseline where the axes do not meet in front."""
    focus = focus_point(cameras)
    depths = np.array([(focus - camera.center) @ camera.axis for camera in cameras])
    centers = np.stack([camera.center for camera in cameras])
    spread = float(np.linalg.norm(centers[:, None] - centers, axis=-1).max())
    if (depths > 0.1 * spread).all() and depths.max() > 0 and (spread == 0 or depths.max() < 50 * spread):
        middle = float(np.median(depths))
        return 0.5 * middle, 2 * middle
    unit = spread if spread > 0 else 1.0
    log.info("initial points: the cameras look at no common place; depths are guessed from their spacing")
    return 1.5 * unit, 20 * unit


def in_hull(
    positions: Float[ndarray, "P 3"],
    cameras: Sequence[Camera],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    margin_px: int = 1,
) -> Bool[ndarray, " P"]:
    """Which points are in the visual hull: no photo shows them off the object.

    A photo with a mask shows a point off the object where its mask (widened by ``margin_px``) is 0 there. It also does
    where the point is outside its view, unless the object may extend there: beyond a side that the mask touches. An
    empty mask excludes every point in its view, and none outside.
    """
    inside = np.ones(len(positions), bool)
    for camera, mask in zip(cameras, masks, strict=True):
        if mask is None or not len(positions):
            continue
        on = mask > 0.5
        height, width = on.shape
        touched = np.array([on[:, 0].any(), on[:, -1].any(), on[0].any(), on[-1].any()]) | ~on.any()
        grown = np.pad(on, margin_px)
        span = range(2 * margin_px + 1)
        on = np.any([grown[y : y + height, x : x + width] for y in span for x in span], axis=0)
        pixels, depths = camera.project(positions)
        x, y = pixels.T
        seen = camera.sees(positions)
        beyond = np.stack([x < 0, x >= width, y < 0, y >= height], axis=1)
        beyond[depths <= 0] = True  # behind the camera is beyond every side
        inside &= seen | (beyond & touched).any(axis=1)
        inside[seen] &= on[y[seen].astype(int), x[seen].astype(int)]
    return inside


def sample_colors(
    positions: Float[ndarray, "P 3"],
    seen: Bool[ndarray, "P C"],
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
) -> Float[ndarray, "P 3"]:
    """Mean color over the photos that see each point; gray where none does."""
    total, count = np.zeros((len(positions), 3)), np.zeros(len(positions))
    for index, (camera, photo) in enumerate(zip(cameras, photos, strict=True)):
        here = seen[:, index] & camera.sees(positions)
        x, y = camera.project(positions[here])[0].astype(int).T
        total[here] += photo[y, x]
        count[here] += 1
    mean = total / np.maximum(count, 1)[:, None]
    return np.where(count[:, None] > 0, mean, 0.5).astype(np.float32)


def draw_random_points(
    cameras: Sequence[Camera],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    known: Float[ndarray, "P 3"],
    ranges: Sequence[tuple[float, float]],
    num: int,
    spread: float,
    rng: np.random.Generator,
) -> Float[ndarray, "N 3"]:
    """Draw points that at least two cameras see, inside the masks' visual hull; more cameras make a point more likely.

    Photo and pixel are uniform. The depth is that of one of the three ``known`` points nearest to the pixel in that
    photo, times a log-normal factor of width ``spread``. Where a photo shows fewer than eight of them, and with an
    infinite spread, its logarithm is uniform over the photo's range. Where the cameras share little space, there are
    fewer than ``num`` points.
    """
    drawn: list[ndarray] = []
    least = min(2, len(cameras))
    each = max(2 * num // len(cameras), 64)
    in_view = [camera.sees(known) for camera in cameras]
    for _ in range(60):
        for camera, (low, high), own in zip(cameras, ranges, in_view, strict=True):
            pixels = rng.random((each, 2)) * [camera.width_px, camera.height_px]
            if own.sum() >= 8 and np.isfinite(spread):
                at, depth = camera.project(known[own])
                near = np.argsort(((pixels[:, None] - at) ** 2).sum(-1), axis=1)[:, :3]
                depths = depth[near[np.arange(each), rng.integers(3, size=each)]]
                depths = np.clip(depths * np.exp(spread * rng.standard_normal(each)), low, high)
            else:
                depths = np.exp(rng.uniform(np.log(low), np.log(high), each))
            candidates = camera.unproject(pixels, depths)
            seeing = np.sum([other.sees(candidates) for other in cameras], axis=0)
            keep = (seeing >= least) & (rng.random(each) < seeing / len(cameras))
            drawn.append(candidates[keep][in_hull(candidates[keep], cameras, masks, margin_px=0)])
        if sum(map(len, drawn)) >= num:
            break
    positions = np.concatenate(drawn)
    return positions[rng.permutation(len(positions))[:num]]
