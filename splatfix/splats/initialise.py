"""Where the Gaussians of a sparse fit start: which points, from which sources, and how points become Gaussians.

Nothing but the chosen photos, their cameras, and structure-from-motion points that at least two of them saw may enter;
even the colours of such points are taken from the chosen photos again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numba import prange
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.gaussians import SH_C0, Gaussians
from splatfix.jit import kernel
from splatfix.shapes import Bool, Float, Int
from splatfix.splats.hull import depth_ranges, in_hull, neighbour_angles_deg, random_points, sampled_colors
from splatfix.splats.stereo.plane_sweep import StereoConfig, StereoPoints, stereo, thinned
from splatfix.splats.triangulate import TriangulateConfig, TriangulatedPoints, triangulate

if TYPE_CHECKING:  # readers need more than torch, numpy and numba
    from splatfix.captures.capture import Points

log = logging.getLogger(__name__)

Source = Literal["points", "triangulated", "stereo", "random"]
SOURCES: tuple[Source, ...] = ("points", "triangulated", "stereo", "random")


@dataclass(frozen=True, kw_only=True)
class InitialiseConfig:
    """Where the Gaussians start.

    Attributes:
        sources: any of points (SfM points that two of the photos saw), triangulated (SIFT on the photos), stereo
            (dense, from the photos) and random; or auto alone, which looks at the photos and chooses.
        num_random: random points.
        random_spread: how far their depths stray from those of the known points near them in a photo, as the standard
            deviation of a natural logarithm; infinite scatters them over the whole depth range.
        num_stereo: most stereo points, after thinning.
        pixels_per_point: fewest stereo pixels per stereo point, so that a small patch is not crowded.
        min_points: auto triangulates where fewer SfM points than this may be used.
        min_coverage: share of the pixels with a stereo depth below which auto takes the photos to stand far apart.
        num_random_wide: random points that auto takes where they do, if that is fewer.
        num_stereo_wide: stereo points that auto takes there at most.
        num_backdrop: Gaussians of the shell behind a scene without a background of its own; 0 for none.
        backdrop_distance: radius of the shell over the distance of the farthest initial point or camera.
        initial_opacity: of every Gaussian before it, in (0, 1).
        scale_factor: standard deviation of a Gaussian over the mean distance to its three nearest neighbours.
        sh_degree: degree of the spherical harmonics, 0 to 3.
        triangulate: how sparse points are found in the photos.
        stereo: how dense ones are.
    """

    sources: tuple[Literal["auto", "points", "triangulated", "stereo", "random"], ...] = ("auto",)
    num_random: int = 2000
    random_spread: float = 0.15
    num_stereo: int = 10_000
    pixels_per_point: float = 4.0
    min_points: int = 100
    min_coverage: float = 0.06
    num_random_wide: int = 600
    num_stereo_wide: int = 4_000
    num_backdrop: int = 400
    backdrop_distance: float = 4.0
    initial_opacity: float = 0.1
    scale_factor: float = 1.0
    sh_degree: int = 1
    triangulate: TriangulateConfig = field(default_factory=TriangulateConfig)
    stereo: StereoConfig = field(default_factory=StereoConfig)


@dataclass(frozen=True, eq=False)
class InitialPoints:
    """Points and what is known about them.

    Attributes:
        positions: world coordinates, float64 ``[P, 3]``.
        colors: RGB in [0, 1] from the chosen photos, float32 ``[P, 3]``.
        sources: index into `SOURCES` per point, ``[P]``.
        depth_scale: median depth of the sparse points in the photos (of the searched range without any), world units.
        baselines: how far apart the photos stand.
        notes: what was chosen and why, for people to read.
    """

    positions: Float[ndarray, "P 3"]
    colors: Float[ndarray, "P 3"]
    sources: Int[ndarray, " P"]
    depth_scale: float
    baselines: BaselineStatistics
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    def counts(self) -> dict[str, int]:
        """Number of points per source."""
        return {source: int((self.sources == index).sum()) for index, source in enumerate(SOURCES)}


@dataclass(frozen=True)
class BaselineStatistics:
    """How far apart the photos stand, known without any other photo.

    Attributes:
        neighbour_angle_deg: median over the photos of the angle to the nearest other one, as their subject sees it.
        stereo_coverage: share of the (masked) pixels whose stereo depth survives; None where stereo did not run.
    """

    neighbour_angle_deg: float
    stereo_coverage: float | None = None


def baseline_statistics(
    cameras: Sequence[Camera], depth: float, stereo_coverage: float | None = None
) -> BaselineStatistics:
    """Statistics for a rule to choose by. ``depth`` is the typical depth of the scene, in world units."""
    nearest = neighbour_angles_deg(cameras, depth).min(axis=1)
    return BaselineStatistics(float(np.median(np.minimum(nearest, 180.0))), stereo_coverage)


@dataclass(frozen=True, eq=False)
class Survey:
    """What the photos tell of the scene's structure: what of `initial_points` takes time and leaves nothing to chance.

    Attributes:
        sparse: admissible SfM points and triangulated ones, ``[P, 3]``.
        seen: which photo saw which of them, ``[P, C]``.
        sources: index into `SOURCES` of each, ``[P]``.
        ranges: nearest and farthest depth of the scene in each photo.
        depth_scale: as in `InitialPoints`.
        dense: stereo points; None where they are not wanted.
        notes: for people to read.
    """

    sparse: Float[ndarray, "P 3"]
    seen: Bool[ndarray, "P C"]
    sources: Int[ndarray, " P"]
    ranges: list[tuple[float, float]]
    depth_scale: float
    dense: StereoPoints | None
    notes: tuple[str, ...]


def survey(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    points: Points | None,
    config: InitialiseConfig,
) -> Survey:
    """Look for structure in the photos. Arguments and errors as of `initial_points`."""
    wanted = _checked(cameras, photos, config)
    notes: list[str] = []
    sparse, seen, sources = _sparse(cameras, photos, masks, points, config, wanted, notes)
    ranges = depth_ranges(cameras, sparse)
    depths = np.concatenate([camera.project(sparse)[1][camera.sees(sparse)] for camera in cameras])
    depth_scale = float(np.median(depths)) if len(depths) >= 20 else float(np.sqrt(np.prod(ranges, axis=1)).mean())
    with_stereo = bool({"auto", "stereo"} & wanted) and len(cameras) >= 2
    dense = stereo(cameras, photos, masks, ranges, config.stereo) if with_stereo else None
    return Survey(sparse, seen, sources, ranges, depth_scale, dense, tuple(notes))


def initial_points(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    points: Points | None,
    config: InitialiseConfig,
    rng: np.random.Generator,
    surveyed: Survey | None = None,
) -> InitialPoints:
    """The points that a fit from these photos starts from.

    Args:
        cameras: of the chosen photos; their names say which SfM points are admissible.
        photos: sRGB in [0, 1], each ``[H, W, 3]`` with the size of its camera.
        masks: 1 on the object, ``[H, W]``; None where the capture has none. Points off the object are dropped.
        points: the capture's SfM points, all of them.
        rng: for random points and for thinning; nothing else is left to chance.
        surveyed: the `survey` of the same photos, where there is one already.

    Raises:
        ValueError: no photos, sources that cannot be, or none of the sources gave a point.
    """
    wanted = _checked(cameras, photos, config)
    auto = wanted == {"auto"}
    s = survey(cameras, photos, masks, points, config) if surveyed is None else surveyed
    sparse, ranges, depth_scale, dense, notes = s.sparse, s.ranges, s.depth_scale, s.dense, list(s.notes)
    positions, colors, labels = [sparse], [sampled_colors(sparse, s.seen, cameras, photos)], [s.sources]
    num_random, num_stereo, coverage = config.num_random, config.num_stereo, None
    if dense is not None:
        coverage = dense.coverage
        if auto and coverage < config.min_coverage:
            num_random = min(num_random, config.num_random_wide)
            num_stereo = min(num_stereo, config.num_stereo_wide)
        room = (1 / (1 + dense.num_agreeing)).sum() / config.pixels_per_point
        kept = thinned(dense, min(num_stereo, int(room)), rng)
        positions.append(dense.positions[kept])
        colors.append(_own_colors(dense, kept, photos))
        labels.append(np.full(len(kept), SOURCES.index("stereo")))
        notes.append(f"stereo covers {coverage:.1%} of the photos: {len(kept)} points")
    if auto or "random" in wanted:
        known = rng.permutation(np.concatenate(positions))[:2000]  # enough to say how deep the scene is
        scattered = random_points(cameras, masks, known, ranges, num_random, config.random_spread, rng)
        positions.append(scattered)
        colors.append(sampled_colors(scattered, np.ones((len(scattered), len(cameras)), bool), cameras, photos))
        labels.append(np.full(len(scattered), SOURCES.index("random")))
        short = "" if len(scattered) == num_random else f" of {num_random} (the photos share little space)"
        notes.append(f"{len(scattered)} random points{short}")
    found = InitialPoints(
        np.concatenate(positions),
        np.concatenate(colors),
        np.concatenate(labels),
        depth_scale,
        baseline_statistics(cameras, depth_scale, coverage),
        tuple(notes),
    )
    if len(found) == 0:
        raise ValueError(f"no initial points from {', '.join(config.sources)}; add random to the sources")
    log.info("initial points: %s", "; ".join(notes))
    return found


def initialise(points: InitialPoints, config: InitialiseConfig, device: torch.device | str = "cpu") -> Gaussians:
    """Round Gaussians at the points, as 3D Gaussian Splatting starts (Kerbl et al. 2023, section 5).

    Their size is the mean distance to the three nearest neighbours, clamped to the 1st and 95th percentile.
    """
    spacing = nearest_distances(np.ascontiguousarray(points.positions, np.float64))
    known = spacing[np.isfinite(spacing) & (spacing > 0)]
    low, high = np.percentile(known, [1, 95]) if len(known) else [0.01 * points.depth_scale] * 2
    spacing = np.clip(np.where(np.isfinite(spacing), spacing, high), low, high) * config.scale_factor

    def tensor(values: ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    n = len(points)
    logit = float(np.log(config.initial_opacity / (1 - config.initial_opacity)))
    return Gaussians(
        means=tensor(points.positions),
        log_scales=tensor(np.log(spacing))[:, None].repeat(1, 3),
        quats=tensor(np.tile([1.0, 0.0, 0.0, 0.0], (n, 1))),
        opacity_logits=torch.full((n,), logit, device=device),
        sh0=tensor((points.colors - 0.5) / SH_C0)[:, None, :],
        sh_rest=torch.zeros(n, (config.sh_degree + 1) ** 2 - 1, 3, device=device),
    )


def nearest_distances(positions: Float[ndarray, "P 3"]) -> Float[ndarray, " P"]:
    """Mean distance to the three nearest other points (fewer where there are fewer); NaN for a point alone."""
    distances = np.full(len(positions), np.nan)
    if len(positions) > 1:
        axis = int(np.argmax(np.ptp(positions, axis=0)))
        order = np.argsort(positions[:, axis], kind="stable")
        distances[order] = _nearest(positions[order], axis)
    return distances


@kernel(parallel=True)
def _nearest(positions, axis):
    """For points sorted along ``axis``: look both ways until that coordinate alone is farther than the third best."""
    n = len(positions)
    result = np.empty(n)
    for p in prange(n):
        best = np.full(min(3, n - 1), np.inf)
        for way in (-1, 1):
            q = p + way
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
                q += way
        total = 0.0
        for squared in best:
            total += np.sqrt(squared)
        result[p] = total / len(best)
    return result


def _checked(cameras: Sequence[Camera], photos: Sequence[ndarray], config: InitialiseConfig) -> set[str]:
    """The sources as a set, after checks that name the field."""
    if not cameras:
        raise ValueError("no photos to start from; wanted at least 1")
    for camera, photo in zip(cameras, photos, strict=True):
        if photo.shape != (camera.height_px, camera.width_px, 3):
            size = f"{camera.width_px} x {camera.height_px}"
            raise ValueError(f"{camera.name}: photo of shape {photo.shape}; its camera wants {size} RGB")
    wanted: set[str] = set(config.sources)
    if not wanted:
        raise ValueError(f"sources = []: wanted auto or some of {', '.join(SOURCES)}")
    if "auto" in wanted and len(wanted) > 1:
        raise ValueError(f"sources = {list(config.sources)}: auto chooses by itself; name it alone")
    if not 0 < config.initial_opacity < 1:
        raise ValueError(f"initial_opacity = {config.initial_opacity}: wanted a share between 0 and 1")
    return wanted


def _sparse(
    cameras: Sequence[Camera],
    photos: Sequence[ndarray],
    masks: Sequence[ndarray | None],
    points: Points | None,
    config: InitialiseConfig,
    wanted: set[str],
    notes: list[str],
) -> tuple[Float[ndarray, "P 3"], Bool[ndarray, "P C"], Int[ndarray, " P"]]:
    """Admissible and triangulated points on the object, which photos see them, and their sources."""
    names = [camera.name for camera in cameras]
    positions, seen, labels = np.zeros((0, 3)), np.zeros((0, len(names)), bool), np.zeros(0, int)
    if "points" in wanted or "auto" in wanted:
        known = points.admissible(names) if points is not None else None
        if known is not None and len(known):
            assert known.tracks is not None  # points without tracks are never admissible
            positions = np.asarray(known.positions, np.float64)
            seen = np.array([[name in track for name in names] for track in known.tracks])
            labels = np.zeros(len(known), int)
        notes.append(f"{len(positions)} SfM points that two of the photos saw")
    if len(names) >= 2 and ("triangulated" in wanted or ("auto" in wanted and len(positions) < config.min_points)):
        try:
            made = triangulate(cameras, photos, masks, config.triangulate)
        except ImportError as error:
            if "triangulated" in wanted:
                raise
            notes.append(str(error))
            made = TriangulatedPoints(np.zeros((0, 3)), np.zeros((0, len(names)), bool), np.zeros(0))
        notes.append(f"{len(made)} triangulated from the photos")
        positions = np.concatenate([positions, made.positions])
        seen = np.concatenate([seen, made.seen])
        labels = np.concatenate([labels, np.full(len(made), SOURCES.index("triangulated"))])
    keep = in_hull(positions, cameras, masks)
    return positions[keep], seen[keep], labels[keep]


def _own_colors(dense: StereoPoints, which: Int[ndarray, " M"], photos: Sequence[ndarray]) -> Float[ndarray, "M 3"]:
    """Colour of stereo points in the photo that they were found in."""
    column, row = dense.pixels[which].T
    colors = np.zeros((len(which), 3), np.float32)
    for index, photo in enumerate(photos):
        here = dense.view[which] == index
        colors[here] = photo[row[here], column[here]]
    return colors
