"""Turn the relative depth that a model estimates from each single photo into depth in the world, and into points.

Such a model knows inverse depth up to a scale and a shift for each photo (MiDaS, Ranftl et al. 2020). Both are found
from what is known of the photo: sparse points and stereo. A photo where they cannot be found gets no depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.shapes import Bool, Float
from splatfix.splats.given_points import fuse_depth_maps
from splatfix.splats.hull import combine_masks, is_in_hull
from splatfix.splats.stereo.plane_sweep import StereoPoints

MIN_POINTS = 20  # with a known depth in a photo
MAX_STEREO = 1000  # stereo depths per photo that an alignment uses, so that sparse points still count
MAX_ERROR = 0.1  # relative error of an inverse depth up to which a point fits an alignment
MIN_FITTING = 0.5  # share of the points of a photo
MIN_CORRELATION = 0.5  # of estimated and known inverse depth, over the points that fit
NUM_DRAWS = 1000  # of pairs of points; some have no outlier, even if most points are outliers
NUM_REFITS = 5
MAX_STEP = 0.1  # relative difference of the depths around a pixel, above which an edge is there
STEREO_MARGIN_PX = 2  # around a pixel with a stereo depth, where no other points are added
AGREEMENT = 0.05  # relative difference of the depths of two photos up to which they show the same surface


@dataclass(frozen=True)
class Alignment:
    """How inverse depth follows from an estimate of it: ``scale * nearness + shift``, in 1 / world units.

    Attributes:
        scale: above 0.
        shift: of any sign.
        num_points: number of points with a known depth that it was found from.
        num_fitting: number of those whose inverse depth it meets within `MAX_ERROR`.
    """

    scale: float
    shift: float
    num_points: int
    num_fitting: int

    def depth(self, nearness: Float[ndarray, "*S"]) -> Float[ndarray, "*S"]:
        """Compute depth in world units; infinite where the estimate is farther than infinity."""
        inverse = self.scale * nearness.astype(np.float64) + self.shift
        return np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1), np.inf)


@dataclass(frozen=True, eq=False)
class EstimatedDepths:
    """What became of the estimates of all photos.

    Attributes:
        alignments: of each photo; None where none was found.
        notes: which photos have none, and why.
        points: in the places where stereo has none.
    """

    alignments: tuple[Alignment | None, ...]
    notes: tuple[str, ...]
    points: StereoPoints


def align_nearness(nearness: Float[ndarray, " P"], depths: Float[ndarray, " P"]) -> Alignment | str:
    """Find scale and shift between an estimate of inverse depth and known depths, of which some may be wrong.

    The line through two points that most others fit is chosen from `NUM_DRAWS` pairs (RANSAC, Fischler and Bolles 1981)
    and refined by least squares over the points that fit, in relative errors. The pairs are the same in each call.

    Args:
        nearness: estimate at each point, larger where nearer.
        depths: known depth of each point, above 0.

    Returns:
        The alignment, or in words why there is none.
    """
    num = len(depths)
    if num < MIN_POINTS:
        return f"{num} points with a known depth, wanted {MIN_POINTS}"
    x, y = nearness.astype(np.float64), 1 / depths.astype(np.float64)
    first, second = np.random.default_rng(0).integers(0, num, (2, NUM_DRAWS))
    differ = np.abs(x[first] - x[second]) > 1e-6 * max(np.ptp(x), 1e-12)
    first, second = first[differ], second[differ]
    if not len(first):
        return "the estimate is the same at all points with a known depth"
    slopes = (y[first] - y[second]) / (x[first] - x[second])
    offsets = y[first] - slopes * x[first]
    best, fitting = (0.0, 0.0), np.zeros(num, bool)
    for slope, offset in zip(slopes, offsets, strict=True):
        fits = np.abs(slope * x + offset - y) <= MAX_ERROR * y
        if fits.sum() > fitting.sum():
            best, fitting = (float(slope), float(offset)), fits
    for _ in range(NUM_REFITS):
        line = _fit_line(x[fitting], y[fitting])
        fits = np.abs(line[0] * x + line[1] - y) <= MAX_ERROR * y
        if fits.sum() < fitting.sum():
            break
        best, fitting = line, fits
    if fitting.mean() < MIN_FITTING:
        return f"the estimate fits {fitting.mean():.0%} of {num} points with a known depth, wanted {MIN_FITTING:.0%}"
    spread = x[fitting].std() * y[fitting].std()
    correlation = float(np.cov(x[fitting], y[fitting], ddof=0)[0, 1] / spread) if spread > 0 else 0.0
    if correlation <= -MIN_CORRELATION:
        return "the estimate takes near for far"
    if correlation < MIN_CORRELATION or best[0] <= 0:
        return f"the estimate correlates by {correlation:.2f} with the known depths, wanted {MIN_CORRELATION}"
    return Alignment(*best, num_points=num, num_fitting=int(fitting.sum()))


def _fit_line(x: Float[ndarray, " P"], y: Float[ndarray, " P"]) -> tuple[float, float]:
    """Fit ``y = a x + b`` by least squares of relative errors; returns a and b."""
    (a, b), *_ = np.linalg.lstsq(np.stack([x / y, 1 / y], axis=1), np.ones(len(x)), rcond=None)
    return float(a), float(b)


def estimate_points(
    cameras: Sequence[Camera],
    nearness: Sequence[Float[ndarray, "_ _"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    validities: Sequence[Float[ndarray, "_ _"] | None],
    sparse: Float[ndarray, "P 3"],
    seen: Bool[ndarray, "P C"],
    dense: StereoPoints | None,
    ranges: Sequence[tuple[float, float]],
) -> EstimatedDepths:
    """Align the estimates of all photos, and make points of them where stereo found none.

    Points that more photos see through than agree with are dropped, and those at edges, where such models blend near
    and far.

    Args:
        cameras: of the photos.
        nearness: estimated inverse depth of each photo, up to scale and shift, ``[H, W]``.
        masks: 1 on the object, ``[H, W]``; None for a photo without. Points off the object are dropped.
        validities: 0 where a photo is ignored, ``[H, W]``, which gets no point; None for a photo without such pixels.
        sparse: points of known positions.
        seen: whether each photo saw each of them.
        dense: stereo points; None if stereo did not run.
        ranges: nearest and farthest depth of the scene in each photo; no point is nearer or farther.
    """
    from scipy import ndimage  # here, because kernels and fits must import with torch, numpy and numba alone

    alignments: list[Alignment | None] = []
    estimated, combined, notes = [], [], []  # estimated depth maps; with those of stereo in their places
    usable = [combine_masks(*each) for each in zip(masks, validities, strict=True)]
    for index, (camera, values, mask, depth_range) in enumerate(zip(cameras, nearness, usable, ranges, strict=True)):
        pixels, depths = _known_depths(index, camera, sparse, seen, dense)
        aligned = align_nearness(values[pixels[:, 1], pixels[:, 0]], depths)
        stereo = np.zeros(values.shape)
        if dense is not None:
            column, row = dense.pixels[dense.view == index].T
            stereo[row, column] = camera.project(dense.positions[dense.view == index])[1]
        if isinstance(aligned, str):
            notes.append(f"{camera.name} gets no estimated depth: {aligned}")
            alignments.append(None)
            depth = np.zeros(values.shape)
        else:
            alignments.append(aligned)
            depth = _make_depth_map(aligned.depth(values), depth_range)
        if mask is not None:
            depth = np.where(mask > 0.5, depth, 0)
        near_stereo = ndimage.binary_dilation(stereo > 0, np.ones((3, 3)), iterations=STEREO_MARGIN_PX)
        estimated.append(np.where(near_stereo, 0, depth))
        combined.append(np.where(stereo > 0, stereo, depth))
    points = fuse_depth_maps(estimated, cameras, usable, compared=combined, tolerance=AGREEMENT, drop_contradicted=True)
    points = points.select(is_in_hull(points.positions, cameras, masks))
    return EstimatedDepths(tuple(alignments), tuple(notes), points)


def _known_depths(
    index: int, camera: Camera, sparse: ndarray, seen: ndarray, dense: StereoPoints | None
) -> tuple[ndarray, ndarray]:
    """Find the pixels of a photo (column and row) with a known depth, and these depths."""
    positions = sparse[seen[:, index] & camera.sees(sparse)]
    pixels = camera.project(positions)[0].astype(int)
    if dense is not None:
        mine = np.flatnonzero(dense.view == index)
        mine = mine[np.linspace(0, len(mine) - 1, min(len(mine), MAX_STEREO)).astype(int)]
        positions = np.concatenate([positions, dense.positions[mine]])
        pixels = np.concatenate([pixels, dense.pixels[mine]])
    return pixels, camera.project(positions)[1]


def _make_depth_map(depth: Float[ndarray, "H W"], depth_range: tuple[float, float]) -> Float[ndarray, "H W"]:
    """Set depths outside of the range and beside edges to 0."""
    from scipy import ndimage

    log_depth = np.log(np.clip(depth, *depth_range))
    largest, smallest = ndimage.maximum_filter(log_depth, 3), ndimage.minimum_filter(log_depth, 3)
    usable = (depth >= depth_range[0]) & (depth <= depth_range[1]) & (largest - smallest <= MAX_STEP)
    return np.where(usable, depth, 0)
