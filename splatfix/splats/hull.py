"""The space that a few photos see in common: depth ranges, visual hull, random points and their colors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera, focus_point, measure_baseline
from splatfix.shapes import Bool, Float

log = logging.getLogger(__name__)

MIN_VALIDITY = 0.5  # of a pixel that is used as a whole; its color comes from its valid part alone


def neighbor_angles_deg(cameras: Sequence[Camera], depth: float) -> Float[ndarray, "C C"]:
    """Compute the angles in degrees between each camera and each other, seen from the point on its axis at ``depth``.

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


@dataclass(frozen=True)
class BaselineStatistics:
    """How far apart the photos are, computed from these photos alone.

    Attributes:
        neighbor_angle_deg: median over the photos of the angle to the nearest other one, as seen from their subject.
        stereo_coverage: share of the (masked) pixels with a stereo depth; None if stereo did not run.
    """

    neighbor_angle_deg: float
    stereo_coverage: float | None = None


def compute_baselines(
    cameras: Sequence[Camera], depth: float, stereo_coverage: float | None = None
) -> BaselineStatistics:
    """Compute how far apart photos are. ``depth`` is the typical depth of the scene, in world units."""
    nearest = neighbor_angles_deg(cameras, depth).min(axis=1)
    return BaselineStatistics(float(np.median(np.minimum(nearest, 180.0))), stereo_coverage)


def depth_ranges(cameras: Sequence[Camera], positions: Float[ndarray, "P 3"]) -> list[tuple[float, float]]:
    """Estimate the nearest and farthest depth to search in each photo, in world units.

    The range is 0.75 times the 2nd percentile to 1.5 times the 98th of the depths of the points in view. A photo with
    few points uses those of all photos; if all photos have few, the range is around the point that the cameras look at.
    """
    depths = [camera.project(positions)[1][camera.sees(positions)] for camera in cameras]
    all_depths = np.concatenate(depths)
    if len(all_depths) < 20:
        low, high = _guess_range(cameras)
        return [(low, high)] * len(cameras)
    ranges = []
    for photo_depths in depths:
        low, high = np.percentile(photo_depths if len(photo_depths) >= 20 else all_depths, [2, 98])
        ranges.append((0.75 * float(low), 1.5 * float(high)))
    return ranges


def _guess_range(cameras: Sequence[Camera]) -> tuple[float, float]:
    """Guess depths around the focus point, or multiples of the widest baseline if the axes do not meet in front."""
    focus = focus_point(cameras)
    depths = np.array([(focus - camera.center) @ camera.axis for camera in cameras])
    spread = measure_baseline(cameras)
    if (depths > 0.1 * spread).all() and depths.max() > 0 and (spread == 0 or depths.max() < 50 * spread):
        middle = float(np.median(depths))
        return 0.5 * middle, 2 * middle
    unit = spread if spread > 0 else 1.0
    log.info("initial points: the cameras look at no common point; depths are guessed from their distances")
    return 1.5 * unit, 20 * unit


def is_in_hull(
    positions: Float[ndarray, "P 3"],
    cameras: Sequence[Camera],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    margin_px: int = 1,
) -> Bool[ndarray, " P"]:
    """Test which points are in the visual hull, that is, off the object in no photo.

    A point is off the object in a photo if the mask, dilated by ``margin_px``, is 0 at its pixel, or if it is outside
    of the image, unless the object may extend there: beyond an edge that the mask touches. An empty mask excludes every
    point inside the image and none outside.
    """
    inside = np.ones(len(positions), bool)
    for camera, mask in zip(cameras, masks, strict=True):
        if mask is None or not len(positions):
            continue
        on_object = mask > 0.5
        height, width = on_object.shape
        touched = np.array([on_object[:, 0].any(), on_object[:, -1].any(), on_object[0].any(), on_object[-1].any()])
        touched |= ~on_object.any()
        padded = np.pad(on_object, margin_px)
        shifts = range(2 * margin_px + 1)
        dilated = np.any([padded[y : y + height, x : x + width] for y in shifts for x in shifts], axis=0)
        pixels, depths = camera.project(positions)
        x, y = pixels.T
        seen = camera.sees(positions)
        beyond = np.stack([x < 0, x >= width, y < 0, y >= height], axis=1)
        beyond[depths <= 0] = True  # points behind the camera are beyond every edge
        inside &= seen | (beyond & touched).any(axis=1)
        inside[seen] &= dilated[y[seen].astype(int), x[seen].astype(int)]
    return inside


def combine_masks(mask: ndarray | None, validity: ndarray | None) -> ndarray | None:
    """Multiply two masks ``[H, W]``, either of which may be missing."""
    if mask is None or validity is None:
        return validity if mask is None else mask
    return mask * validity


def find_valid(photo: Float[ndarray, "H W 3"], validity: Float[ndarray, "H W"] | None) -> Bool[ndarray, "H W"]:
    """Find the pixels of a photo of which at least half is valid, boolean; all of them for a validity of None."""
    return np.ones(photo.shape[:2], bool) if validity is None else validity >= MIN_VALIDITY


def find_seen_valid(
    positions: Float[ndarray, "P 3"],
    cameras: Sequence[Camera],
    validities: Sequence[Float[ndarray, "_ _"] | None],
) -> Bool[ndarray, "P C"]:
    """Find the photos in which the pixel of a point is not ignored. True outside of a photo."""
    seen = np.ones((len(positions), len(cameras)), bool)
    for index, (camera, validity) in enumerate(zip(cameras, validities, strict=True)):
        if validity is not None and len(positions):
            visible = camera.sees(positions)
            x, y = camera.project(positions[visible])[0].astype(int).T
            seen[visible, index] = validity[y, x] >= MIN_VALIDITY
    return seen


def sample_colors(
    positions: Float[ndarray, "P 3"],
    seen: Bool[ndarray, "P C"],
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
) -> Float[ndarray, "P 3"]:
    """Sample the mean color of each point over the photos that see it; gray if none does."""
    total, count = np.zeros((len(positions), 3)), np.zeros(len(positions))
    for index, (camera, photo) in enumerate(zip(cameras, photos, strict=True)):
        visible = seen[:, index] & camera.sees(positions)
        x, y = camera.project(positions[visible])[0].astype(int).T
        total[visible] += photo[y, x]
        count[visible] += 1
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
    """Draw points that at least two cameras see, inside the visual hull of the masks.

    A point is accepted with a probability proportional to the number of cameras that see it. Photo and pixel are
    uniform. The depth is that of one of the three ``known`` points nearest to the pixel in that photo, times a
    log-normal factor of width ``spread``. If the photo sees fewer than eight known points, or the spread is infinite,
    the logarithm of the depth is uniform over the range of the photo. If the cameras see little space in common, fewer
    than ``num`` points are returned.
    """
    found: list[ndarray] = []
    min_views = min(2, len(cameras))
    batch_size = max(2 * num // len(cameras), 64)
    known_in_view = [camera.sees(known) for camera in cameras]
    for _ in range(60):
        batches, chances = [], []
        for camera, (low, high), in_view in zip(cameras, ranges, known_in_view, strict=True):
            pixels = rng.random((batch_size, 2)) * [camera.width_px, camera.height_px]
            if in_view.sum() >= 8 and np.isfinite(spread):
                known_pixels, known_depths = camera.project(known[in_view])
                nearest = np.argsort(((pixels[:, None] - known_pixels) ** 2).sum(-1), axis=1)[:, :3]
                depths = known_depths[nearest[np.arange(batch_size), rng.integers(3, size=batch_size)]]
                depths = np.clip(depths * np.exp(spread * rng.standard_normal(batch_size)), low, high)
            else:
                depths = np.exp(rng.uniform(np.log(low), np.log(high), batch_size))
            batches.append(camera.unproject(pixels, depths))
            chances.append(rng.random(batch_size))
        candidates = np.concatenate(batches)
        num_views = np.sum([camera.sees(candidates) for camera in cameras], axis=0)
        accepted = (num_views >= min_views) & (np.concatenate(chances) < num_views / len(cameras))
        candidates = candidates[accepted]
        found.append(candidates[is_in_hull(candidates, cameras, masks, margin_px=0)])
        if sum(map(len, found)) >= num:
            break
    positions = np.concatenate(found)
    return positions[rng.permutation(len(positions))[:num]]
