"""Make the pairs of one fit: a pure function of capture, fit number, seed and recipe.

A sparse fit of a few random photos is rendered at the poses of clean views: of photos that the fit was not trained on,
or of poses where the ground truth of the capture covers the image well. Each render and its clean view are a pair. If
there are several fits of the same photos, the mean of their renders is paired too, since the loop gives such means to a
restorer. This module does not use Ray; workers call it.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.cameras import Camera, separation
from splatfix.captures.capture import Capture
from splatfix.captures.reading import check_photos
from splatfix.captures.splat_photos import draw_on
from splatfix.flawed import compute_coverage, render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.pairs.checkpoints import FitCheckpoints
from splatfix.pairs.ground_truth import GroundTruth, render_clean_views
from splatfix.pairs.pair import Pair, build_pair
from splatfix.pairs.recipes import Initial, Recipe
from splatfix.rendering import render
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import SparseScene, load_scene, start_fit
from splatfix.splats.train import FitConfig
from splatfix.views import (
    MIN_TEST_DISTANCE,
    Band,
    assign_bands,
    pick_evenly,
    place_repair_cameras,
    scene_depth,
    select_farthest_views,
    view_distances,
)

MIN_CYCLE_COVERAGE = 0.5  # of the image: a render that covers less is not used to train the second fit
NEIGHBORHOOD_SHARE = 0.4  # of the fits take their photos from neighboring cameras only


@dataclass(frozen=True, eq=False)
class FitPairs:
    """The pairs of a fit, and the settings and times of making them.

    Attributes:
        pairs: pairs whose render covers enough of the image.
        settings: photos, steps, initialization, dropout, growth and number of Gaussians of the fit.
        filtered: number of views whose render covers too little of the image.
        seconds: duration of each stage.
    """

    pairs: list[Pair]
    settings: dict[str, Any]
    filtered: int
    seconds: dict[str, float]

    def counts(self) -> dict[str, Any]:
        """Count pairs by band, by artifact PSNR in whole dB, and by the kind of their clean view."""
        psnrs = [pair.meta["artifact_psnr"] for pair in self.pairs]
        return {
            "bands": dict(sorted(Counter(str(pair.meta["band"]) for pair in self.pairs).items())),
            "psnr": dict(sorted(Counter(str(int(p)) for p in psnrs if p is not None).items())),
            "clean_from": dict(sorted(Counter(str(pair.meta["clean_from"]) for pair in self.pairs).items())),
        }


def make_pairs(
    capture: Capture,
    fit_index: int,
    *,
    seed: int,
    recipe: Recipe,
    device: torch.device,
    recipe_name: str = "",
    group: str | None = None,
    ground_truth: GroundTruth | None = None,
    checkpoints: FitCheckpoints | None = None,
) -> FitPairs:
    """Fit some photos of a capture, render the fit, and pair the renders with clean views.

    Capture, fit index, seed and recipe determine everything but the seconds, for a given number of threads.
    ``ground_truth`` is needed by recipes with ``clean: renders``. ``checkpoints`` resume an interrupted attempt.

    Raises:
        ValueError: the capture has too few photos for a fit and a clean view, or its ground truth is missing.
    """
    _check_capture(capture, recipe, recipe_name, ground_truth)
    clock = _Stopwatch()
    digest = hashlib.sha256(f"{capture.name}/{fit_index}/{seed}".encode()).digest()
    fit_seed = int.from_bytes(digest[:4], "little")
    rng = np.random.default_rng(fit_seed)
    num_train = int(rng.integers(recipe.num_train[0], min(recipe.num_train[1], len(capture.views) - 1) + 1))
    train_ids = choose_random_views(capture, num_train, rng)
    capture = draw_on(capture, device)
    scene = load_scene(capture, train_ids, device)
    clean_photos = _choose_photos(capture, scene, recipe) if recipe.clean == "photos" else None
    clean_names = [clean.camera.name for clean in clean_photos or ()]
    check_photos([capture.view(name) for name in clean_names])
    draw_on(capture, device, clean_names)
    clock.lap("load")

    drawn = _draw_settings(recipe, rng)
    checkpoints = checkpoints or FitCheckpoints()
    fits = [_fit_scene(scene, drawn, checkpoints, seed=fit_seed + 1000 * k) for k in range(drawn.num_fits)]
    clock.lap("fit")
    if recipe.cycle:
        cycle_scene = _render_cycle_scene(scene, fits)
        seeds = [fit_seed + 1000 * k + 500 for k in range(drawn.num_fits)]
        fits = [_fit_scene(cycle_scene, drawn, checkpoints, seed=each) for each in seeds]
        clock.lap("fit again")

    settings = drawn.to_json() | {"recipe": recipe_name, "fit_index": fit_index, "seed": seed}
    settings |= {"train_ids": list(train_ids), "cycle": recipe.cycle, "num_gaussians": len(fits[0].gaussians)}
    clean_views = clean_photos
    if clean_views is None:
        clean_views = _render_clean_views(capture, scene, recipe, ground_truth, rng)
    common: dict[str, Any] = {
        "group": group or capture.name,
        "source": capture.format,
        "clean_from": _name_clean_kind(capture, recipe),
        "clean_psnr": None if ground_truth is None or recipe.clean == "photos" else ground_truth.psnr,
    }
    if capture.license is not None:
        common["license"] = capture.license
    if not capture.file_from_world.is_identity:
        common["file_from_world"] = capture.file_from_world.to_json()
    members = {f"f{fit_index:03d}": fits[:1]}
    if len(fits) > 1:
        members[f"f{fit_index:03d}m"] = fits  # the mean of their renders
    pairs, filtered = [], 0
    for name, mean_fits in members.items():
        meta = common | {"fit_settings": settings | {"num_fits": len(mean_fits)}}
        for pair in _pair_views(name, mean_fits, clean_views, capture, scene, recipe, meta):
            if pair is None:
                filtered += 1
            else:
                pairs.append(pair)
    clock.lap("render")
    return FitPairs(pairs, settings, filtered, clock.seconds)


def _check_capture(capture: Capture, recipe: Recipe, recipe_name: str, ground_truth: GroundTruth | None) -> None:
    if len(capture.views) < recipe.num_train[0] + 1:
        raise ValueError(
            f"{capture.path}: {len(capture.views)} photos; pairs need at least {recipe.num_train[0]} to fit from and "
            "one more to compare with"
        )
    if recipe.clean == "renders" and ground_truth is None:
        raise ValueError(
            f"{capture.path}: recipe {recipe_name!r} has clean: renders, but there is no ground truth to render"
        )


@dataclass(frozen=True)
class _DrawnSettings:
    """The settings of a fit, drawn at random from its recipe."""

    fit: FitConfig
    initial: InitializationConfig
    num_steps: int
    num_fits: int

    def to_json(self) -> dict[str, Any]:
        return {
            "num_steps": self.num_steps,
            "schedule": self.fit.steps,
            "initial": "+".join(self.initial.sources),
            "num_random": self.initial.num_random,
            "dropout": self.fit.dropout,
            "growth": self.fit.grows,
            "num_fits": self.num_fits,
        }


def _draw_settings(recipe: Recipe, rng: np.random.Generator) -> _DrawnSettings:
    low, high = np.log(np.maximum(recipe.num_random, 1))
    num_random = int(np.exp(rng.uniform(low, high))) if recipe.num_random[1] > 0 else 0
    source = recipe.initial[int(rng.integers(len(recipe.initial)))]
    # random points are the fallback where a source finds no points
    sources: tuple[Initial, ...] = (source,) if source in ("auto", "random") else (source, "random")
    grows = bool(rng.random() < recipe.growth)
    fit = FitConfig(
        steps=recipe.steps,
        dropout=0.0 if rng.random() < recipe.undropped else FitConfig().dropout,
        densify=DensifyConfig(strategy="default" if grows else "auto", max_gaussians=recipe.max_gaussians),
    )
    return _DrawnSettings(
        fit,
        InitializationConfig(sources=sources, num_random=num_random, sh_degree=recipe.sh_degree),
        max(1, round(float(rng.uniform(*recipe.completed)) * recipe.steps)),
        int(rng.integers(recipe.num_fits[0], recipe.num_fits[1] + 1)),
    )


def _fit_scene(scene: SparseScene, settings: _DrawnSettings, checkpoints: FitCheckpoints, *, seed: int) -> Splat:
    fit = start_fit(scene, settings.fit, settings.initial, seed=seed)
    return checkpoints.train(fit, scene.views(), settings.num_steps, seed=seed)


def _render_cycle_scene(scene: SparseScene, fits: Sequence[Splat]) -> SparseScene:
    """Replace the photos of a scene by renders of its fits at new poses between and around the cameras."""
    num = max(12, 2 * len(scene.cameras))
    candidates = place_repair_cameras(
        scene.cameras, num=num, round_index=1, num_rounds=2, outward=0.5, depth=scene.depth
    )
    cameras, images = [], []
    for camera in candidates:
        with torch.no_grad():
            renders = [render(splat, [camera]) for splat in fits]
        if compute_coverage(torch.stack([rendering.alpha[0] for rendering in renders]).mean(0)) >= MIN_CYCLE_COVERAGE:
            cameras.append(camera)
            images.append(torch.stack([rendering.rgb[0] for rendering in renders]).mean(0).clamp(0, 1))
    if len(cameras) < 2:  # the fit covers too little at new poses: use those of the photos
        cameras = list(scene.cameras)
        with torch.no_grad():
            images = [render(fits[0], [camera]).rgb[0].clamp(0, 1) for camera in cameras]
    none = (None,) * len(cameras)
    return replace(scene, cameras=tuple(cameras), photos=tuple(images), masks=none, validities=none, points=None)


@dataclass(frozen=True, eq=False)
class _CleanView:
    """A view to pair a render with; ``image`` is None for a photo of the capture, which is read when it is needed."""

    camera: Camera
    image: Tensor | None
    band: Band
    distance: float


def _choose_photos(capture: Capture, scene: SparseScene, recipe: Recipe) -> list[_CleanView]:
    """Choose photos that the fit is not trained on, nor on a copy of, as clean views."""
    if recipe.cycle:
        return _spread_views(capture.cameras, {}, scene, recipe)
    distances = view_distances(capture.cameras, scene.cameras, scene.points)
    cameras = [camera for camera in capture.cameras if distances[camera.name] > MIN_TEST_DISTANCE]
    return _spread_views(cameras, {}, scene, recipe)


def _render_clean_views(
    capture: Capture, scene: SparseScene, recipe: Recipe, ground_truth: GroundTruth | None, rng: np.random.Generator
) -> list[_CleanView]:
    """Render the ground truth at new poses as clean views."""
    assert ground_truth is not None
    renders = render_clean_views(capture, ground_truth, recipe.max_views, scene.depth, rng)
    images = {camera.name: image for camera, image in renders}
    return _spread_views([camera for camera, _ in renders], images, scene, recipe)


def _spread_views(
    cameras: Sequence[Camera], images: Mapping[str, Tensor], scene: SparseScene, recipe: Recipe
) -> list[_CleanView]:
    """Choose at most ``recipe.max_views`` views, evenly spread over distance from the training cameras."""
    distances = view_distances(cameras, scene.cameras, scene.points)
    bands = assign_bands(distances)
    ordered = sorted(cameras, key=lambda camera: (distances[camera.name], camera.name))
    return [
        _CleanView(camera, images.get(camera.name), bands[camera.name], distances[camera.name])
        for camera in pick_evenly(ordered, recipe.max_views)
    ]


def _name_clean_kind(capture: Capture, recipe: Recipe) -> str:
    if capture.splat is not None:
        return "reference splat"
    if recipe.clean == "renders":
        return "dense fit"
    return "procedural scene" if capture.format == "procedural" else "photo"


def _pair_views(
    name: str,
    fits: Sequence[Splat],
    clean_views: Sequence[_CleanView],
    capture: Capture,
    scene: SparseScene,
    recipe: Recipe,
    meta: dict[str, Any],
) -> Iterator[Pair | None]:
    """Pair the mean render of the fits with each clean view; None where the render covers too little of the image."""
    references = render_references(fits, scene.cameras, scene.photos, scene.validities)
    typical_coverage = float(np.median([compute_coverage(reference.alpha) for reference in references]))
    for clean in clean_views:
        others = [reference for reference in references if reference.camera.name != clean.camera.name]
        (view,) = render_flawed(fits, [clean.camera], others, scene.depth, recipe.num_references)
        if compute_coverage(view.alpha) < recipe.min_coverage * typical_coverage:
            yield None
            continue
        image, validity = clean.image, None
        if image is None:
            photo, device = capture.view(clean.camera.name).load(), scene.photos[0].device
            image = torch.from_numpy(photo.rgb).to(device)
            validity = None if photo.validity is None else torch.from_numpy(photo.validity).to(device)
        yield build_pair(
            view,
            image,
            scene=capture.name,
            fit=name,
            mask=validity,
            num_references=recipe.num_references,
            band=clean.band,
            distance=clean.distance,
            **meta,
        )


class _Stopwatch:
    """Measures the duration of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


def choose_random_views(capture: Capture, num: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Choose photos by farthest-point sampling from a random start.

    A share of the calls (`NEIGHBORHOOD_SHARE`) chooses among neighboring cameras only, for narrower baselines.
    """
    cameras = sorted(capture.cameras, key=lambda camera: camera.name)
    pool = np.arange(len(cameras))
    if rng.random() < NEIGHBORHOOD_SHARE and len(cameras) >= 2 * num:
        size = int(rng.integers(num + 1, len(cameras) + 1))
        depth = scene_depth(cameras)
        center = int(rng.integers(len(cameras)))
        order = np.argsort([separation(cameras[center], camera, depth) for camera in cameras], kind="stable")
        pool = order[:size]
    return select_farthest_views([cameras[i] for i in pool], num, start=int(rng.integers(len(pool))))
