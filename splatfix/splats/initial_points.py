"""Find the points that a sparse fit starts from, from several sources.

Only the chosen photos, their cameras, and the structure-from-motion points that at least two of these photos saw are
used. The colors of such points, too, are read from the chosen photos.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.shapes import Bool, Float, Int
from splatfix.similarity import IDENTITY, Similarity
from splatfix.splats.given_points import find_depth_map, make_depth_points, read_given_cloud
from splatfix.splats.hull import (
    BaselineStatistics,
    combine_masks,
    compute_baselines,
    depth_ranges,
    draw_random_points,
    find_seen_valid,
    is_in_hull,
    sample_colors,
)
from splatfix.splats.monocular import EstimatedDepths, estimate_points
from splatfix.splats.stereo.config import StereoConfig
from splatfix.splats.stereo.plane_sweep import StereoPoints, find_stereo_points, thin_points
from splatfix.splats.triangulate import TriangulateConfig, TriangulatedPoints, triangulate

if TYPE_CHECKING:  # importing captures needs more than torch, numpy and numba
    from splatfix.captures.capture import Points

log = logging.getLogger(__name__)

MIN_IN_VIEW = 0.01  # of the points of a given cloud, below which it is of another world
Source = Literal["points", "triangulated", "stereo", "random", "given", "estimated"]
SOURCES: tuple[Source, ...] = ("points", "triangulated", "stereo", "random", "given", "estimated")


@dataclass(frozen=True, kw_only=True)
class InitializationConfig:
    """Settings of the initial Gaussians.

    Attributes:
        start: a 3DGS .ply to begin from, in the world of the capture; all other settings are then not used.
        ply: a point cloud (PLY) in the world of the capture, whose points are added to those of the sources.
        depths: a folder with a depth map per photo, .npy or an image with 16 bits, that takes the place of stereo.
        depth_unit: what 1 in an image of depths means, in units of the capture.
        depth_model: a depth estimator of transformers, a folder or an id of the Hugging Face Hub such as
            depth-anything/Depth-Anything-V2-Small-hf, for points where stereo finds none and for fit.depth_weight.
        sources: any of points (SfM points that two of the photos saw), triangulated (SIFT on the photos), stereo
            (dense, from the photos), random and given (nothing but ply); or auto alone, which chooses from the results
            on the photos.
        num_random: number of random points.
        random_spread: standard deviation of the natural logarithm of their depths, relative to the depths of the known
            points near them in a photo; infinite spreads them over the whole depth range.
        num_stereo: largest number of stereo points, after thinning.
        pixels_per_point: smallest number of stereo pixels per stereo point, which limits their density.
        num_stereo_growing: the same number where Gaussians grow (fit.densify), which add the details themselves.
        pixels_per_point_growing: the same density there.
        min_points: auto triangulates if fewer SfM points than this are admissible.
        min_coverage: share of the pixels with a stereo depth below which auto considers the photos far apart.
        num_random_wide: largest number of random points that auto uses for photos far apart.
        num_stereo_wide: largest number of stereo points that auto uses for photos far apart.
        num_backdrop: number of Gaussians of the shell behind a scene without a separate background; 0 for none.
        backdrop_distance: radius of the shell over the distance of the farthest initial point or camera.
        initial_opacity: opacity of the Gaussians that are not in the shell, in (0, 1).
        scale_factor: standard deviation of a Gaussian over the mean distance to its three nearest neighbors.
        sh_degree: degree of the spherical harmonics, 0 to 3.
        triangulate: settings of triangulation.
        stereo: settings of stereo.
    """

    start: Path | None = None
    ply: Path | None = None
    depths: Path | None = None
    depth_unit: float = 0.001
    depth_model: str | None = None
    sources: tuple[Literal["auto", "points", "triangulated", "stereo", "random", "given"], ...] = ("auto",)
    num_random: int = 2000
    random_spread: float = 0.15
    num_stereo: int = 40_000
    pixels_per_point: float = 1.0
    num_stereo_growing: int = 10_000
    pixels_per_point_growing: float = 4.0
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

    def __post_init__(self) -> None:
        given = [name for name in ("start", "depths") if getattr(self, name) is not None]
        if self.depth_model is not None and given:
            raise ValueError(f"initial.depth_model and initial.{given[0]} are both given; wanted one of them")


def list_given_files(config: InitializationConfig, cameras: Sequence[Camera]) -> list[Path]:
    """List the files that a fit of these photos reads besides the capture: a splat, a cloud and depth maps.

    Raises:
        ValueError: one of them does not exist.
    """
    files = [path for path in (config.start, config.ply) if path is not None]
    for path in files:
        if path.is_dir():
            raise ValueError(f"{path}: is a folder; wanted a .ply to start from, such as {path / 'after.ply'} of a run")
        if not path.is_file():
            raise ValueError(f"{path}: no such file; wanted a PLY to start from")
    if config.depths is None:
        return files
    if not config.depths.is_dir():
        raise ValueError(f"{config.depths}: no such folder; wanted one depth map per photo (initial.depths)")
    return files + [find_depth_map(config.depths, camera.name) for camera in cameras]


@dataclass(frozen=True, eq=False)
class InitialPoints:
    """The initial points of a fit.

    Attributes:
        positions: world coordinates, float64 ``[P, 3]``.
        colors: RGB in [0, 1] from the chosen photos, float32 ``[P, 3]``.
        sources: index into `SOURCES` per point, ``[P]``.
        depth_scale: median depth of the sparse points in the photos (or, without any, of the depth range), world units.
        baselines: how far apart the photos are.
        notes: messages about the choices and their reasons.
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
        """Count the points of each source."""
        return {source: int((self.sources == index).sum()) for index, source in enumerate(SOURCES)}


@dataclass(frozen=True, eq=False)
class Survey:
    """Structure found in the photos: the slow part of `find_initial_points`, independent of the seed.

    Attributes:
        sparse: admissible SfM points and triangulated ones, ``[P, 3]``.
        seen: whether each photo saw each of them, ``[P, C]``.
        sources: index into `SOURCES` per point, ``[P]``.
        ranges: nearest and farthest depth of the scene in each photo.
        depth_scale: as in `InitialPoints`.
        dense: stereo points, or those of given depth maps; None if there are none.
        estimated: depths that a model estimated, aligned with the points; None if none did.
        given_colors: colors of the points that the user gave, the last ones; None for none, or a cloud without colors.
        notes: messages about the sparse points.
    """

    sparse: Float[ndarray, "P 3"]
    seen: Bool[ndarray, "P C"]
    sources: Int[ndarray, " P"]
    ranges: list[tuple[float, float]]
    depth_scale: float
    dense: StereoPoints | None
    estimated: EstimatedDepths | None
    given_colors: Float[ndarray, "G 3"] | None
    notes: tuple[str, ...]

    def surfaces(self, config: InitializationConfig) -> list[tuple[Source, StereoPoints, str]]:
        """List the dense points by their sources, each with words that its coverage ends."""
        found: list[tuple[Source, StereoPoints, str]] = []
        if self.dense is not None:
            words = "stereo covers" if config.depths is None else "the depth maps cover"
            found.append(("stereo", self.dense, words))
        if self.estimated is not None:
            found.append(("estimated", self.estimated.points, "estimated depths cover another"))
        return found


def survey_photos(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    points: Points | None,
    config: InitializationConfig,
    validities: Sequence[Float[ndarray, "_ _"] | None] | None = None,
    file_from_world: Similarity = IDENTITY,
    device: torch.device | str = "cpu",
    nearness: Sequence[Float[ndarray, "_ _"]] | None = None,
) -> Survey:
    """Find the structure in the photos. Arguments and errors as in `find_initial_points`.

    ``file_from_world`` is that of the capture, for the files that the user gives. Photos are matched on ``device``.
    ``nearness`` is what a model estimated of each photo: inverse depth up to scale and shift, ``[H, W]``.
    """
    wanted = _check_sources(cameras, photos, config)
    notes: list[str] = []
    validities = validities or [None] * len(cameras)
    usable = [combine_masks(*each) for each in zip(masks, validities, strict=True)]
    sparse, seen, sources = _find_sparse_points(cameras, photos, usable, points, config, wanted, notes, device)
    keep = is_in_hull(sparse, cameras, masks)
    sparse, seen, sources = sparse[keep], seen[keep], sources[keep]
    if any(validity is not None for validity in validities):
        seen = seen & find_seen_valid(sparse, cameras, validities)
        keep = seen.sum(axis=1) >= 2
        sparse, seen, sources = sparse[keep], seen[keep], sources[keep]
    given_colors = None
    if config.ply is not None:
        given, given_colors, given_notes = read_given_cloud(config.ply, file_from_world)
        in_view = np.any([camera.sees(given) for camera in cameras], axis=0)
        if in_view.mean() < MIN_IN_VIEW:
            raise ValueError(
                f"{config.ply}: {int(in_view.sum())} of {len(given)} points lie in the view of a photo; wanted a cloud "
                "in the coordinates of the capture"
            )
        notes += [*given_notes, f"{len(given)} points of {config.ply.name}"]
        sparse = np.concatenate([sparse, given])
        seen = np.concatenate([seen, np.stack([camera.sees(given) for camera in cameras], axis=1)])
        sources = np.concatenate([sources, np.full(len(given), SOURCES.index("given"))])
    ranges = depth_ranges(cameras, sparse)
    depths = np.concatenate([camera.project(sparse)[1][camera.sees(sparse)] for camera in cameras])
    depth_scale = float(np.median(depths)) if len(depths) >= 20 else float(np.sqrt(np.prod(ranges, axis=1)).mean())
    needs_stereo = bool({"auto", "stereo"} & wanted) and len(cameras) >= 2
    dense = None
    if config.depths is not None:
        dense = make_depth_points(config.depths, config.depth_unit, cameras, usable, file_from_world)
    elif needs_stereo:
        dense = find_stereo_points(cameras, photos, masks, ranges, config.stereo, validities=validities, device=device)
    estimated = None
    if nearness is not None:
        known = sources != SOURCES.index(
            "given"
        )  # whether a photo saw those, or something in front of them, is unknown
        estimated = estimate_points(
            *(cameras, nearness, masks, validities, sparse[known], seen[known], dense, ranges),
        )
        notes += estimated.notes
    return Survey(sparse, seen, sources, ranges, depth_scale, dense, estimated, given_colors, tuple(notes))


def find_initial_points(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    points: Points | None,
    config: InitializationConfig,
    rng: np.random.Generator,
    survey: Survey | None = None,
    *,
    validities: Sequence[Float[ndarray, "_ _"] | None] | None = None,
    grows: bool = False,
) -> InitialPoints:
    """Find the points that a fit from these photos starts from.

    Args:
        cameras: of the chosen photos; their names decide which SfM points are admissible.
        photos: sRGB in [0, 1], each ``[H, W, 3]`` with the size of its camera.
        masks: 1 on the object, ``[H, W]``; None for a photo without. Points off the object are dropped.
        points: all SfM points of the capture.
        config: settings.
        rng: generator for the random points and for thinning.
        survey: result of `survey_photos` for the same photos, if already computed.
        validities: 0 where a photo is ignored, ``[H, W]``; None for a photo without such pixels, or for no such photo.
            Nothing is matched there and no color comes from there, but points may be there.
        grows: whether the fit will add Gaussians.

    Raises:
        ValueError: no photos, invalid sources, or no point from any source.
    """
    wanted = _check_sources(cameras, photos, config)
    auto = wanted == {"auto"}
    if survey is None:
        survey = survey_photos(cameras, photos, masks, points, config, validities)
    dense, notes = survey.dense, list(survey.notes)
    positions, labels = [survey.sparse], [survey.sources]
    colors = [sample_colors(survey.sparse, survey.seen, cameras, photos)]
    if survey.given_colors is not None:
        colors[0][len(survey.sparse) - len(survey.given_colors) :] = survey.given_colors
    num_random, coverage = config.num_random, None
    num_stereo, density = config.num_stereo, config.pixels_per_point
    if grows:
        num_stereo, density = config.num_stereo_growing, config.pixels_per_point_growing
    if dense is not None:
        coverage = dense.coverage
        if auto and coverage < config.min_coverage:
            num_random = min(num_random, config.num_random_wide)
            num_stereo = min(num_stereo, config.num_stereo_wide)
    for source, surface, covers in survey.surfaces(config):
        max_points = (1 / (1 + surface.num_agreeing)).sum() / density
        indices = thin_points(surface, min(num_stereo, int(max_points)), rng)
        num_stereo -= len(indices)  # a limit for all of them; stereo is the first
        positions.append(surface.positions[indices])
        colors.append(surface.sample_colors(indices, photos))
        labels.append(np.full(len(indices), SOURCES.index(source)))
        notes.append(f"{covers} {surface.coverage:.1%} of the photos: {len(indices)} points")
    if auto or "random" in wanted:
        known = rng.permutation(np.concatenate(positions))[:2000]  # enough to estimate depths
        random_points = draw_random_points(cameras, masks, known, survey.ranges, num_random, config.random_spread, rng)
        positions.append(random_points)
        seen = find_seen_valid(random_points, cameras, validities or [None] * len(cameras))
        colors.append(sample_colors(random_points, seen, cameras, photos))
        labels.append(np.full(len(random_points), SOURCES.index("random")))
        shortfall = "" if len(random_points) == num_random else f" of {num_random} (the photos share little space)"
        notes.append(f"{len(random_points)} random points{shortfall}")
    initial = InitialPoints(
        np.concatenate(positions),
        np.concatenate(colors),
        np.concatenate(labels),
        survey.depth_scale,
        compute_baselines(cameras, survey.depth_scale, coverage),
        tuple(notes),
    )
    if len(initial) == 0:
        raise ValueError(
            f"no initial points from {', '.join(config.sources)}; add random to the sources (initial.sources), or "
            "fit from more or larger photos (views.num_train, views.size_px)"
        )
    log.info("initial points: %s", "; ".join(notes))
    return initial


def _check_sources(cameras: Sequence[Camera], photos: Sequence[ndarray], config: InitializationConfig) -> set[str]:
    """Check the photos and the settings, and return the sources as a set. ValueError names the field."""
    if not cameras:
        raise ValueError("no photos to start from; wanted at least 1")
    for camera, photo in zip(cameras, photos, strict=True):
        if photo.shape != (camera.height_px, camera.width_px, 3):
            size = f"{camera.width_px} x {camera.height_px}"
            raise ValueError(f"{camera.name}: photo of shape {photo.shape}; its camera wants {size} RGB")
    wanted: set[str] = set(config.sources)
    if not wanted:
        raise ValueError(f"sources = []: wanted auto or some of {', '.join(SOURCES)}")
    if "given" in wanted and config.ply is None:
        raise ValueError("sources has given, but no point cloud is given; wanted one as initial.ply")
    if "auto" in wanted and len(wanted) > 1:
        raise ValueError(f"sources = {list(config.sources)}: auto chooses by itself; name it alone")
    if not 0 < config.initial_opacity < 1:
        raise ValueError(f"initial_opacity = {config.initial_opacity}: wanted a share between 0 and 1")
    return wanted


def _find_sparse_points(
    cameras: Sequence[Camera],
    photos: Sequence[ndarray],
    masks: Sequence[ndarray | None],
    points: Points | None,
    config: InitializationConfig,
    wanted: set[str],
    notes: list[str],
    device: torch.device | str,
) -> tuple[Float[ndarray, "P 3"], Bool[ndarray, "P C"], Int[ndarray, " P"]]:
    """Find admissible and triangulated points: positions, the photos that see them, and sources.

    ``masks`` are 1 where keypoints may be.
    """
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
            triangulated = triangulate(cameras, photos, masks, config.triangulate, device)
        except ImportError as error:
            if "triangulated" in wanted:
                raise
            notes.append(str(error))
            triangulated = TriangulatedPoints(np.zeros((0, 3)), np.zeros((0, len(names)), bool), np.zeros(0))
        notes.append(f"{len(triangulated)} triangulated from the photos")
        positions = np.concatenate([positions, triangulated.positions])
        seen = np.concatenate([seen, triangulated.seen])
        labels = np.concatenate([labels, np.full(len(triangulated), SOURCES.index("triangulated"))])
    return positions, seen, labels
