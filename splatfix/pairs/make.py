"""The pairs of one choice of photos, as a pure function of capture, fit number, seed and recipe.

A fit from a random few of the photos is rendered where something better is known: at the photos that it has not seen,
or wherever a dense fit of the same capture shows the scene well. Each render and its clean view are a pair. Where there
are several fits of the same photos, the mean of their renders is paired too: that is what the loop gives to a restorer.
No Ray here: workers call this.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.cameras import Camera, separation
from splatfix.captures.capture import Capture
from splatfix.flawed import FlawedView, Reference, coverage, render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.pairs.ground_truth import Truth, clean_renders
from splatfix.pairs.pair import Pair, pair_from
from splatfix.pairs.recipes import Initial, Recipe
from splatfix.rendering import render
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene, load_scene, start_fit
from splatfix.splats.train import FitConfig, advance
from splatfix.views import assign_bands, farthest_views, pick_evenly, repair_cameras, scene_depth, view_distances

MIN_CYCLE_COVERAGE = 0.5  # of the image: a render that shows less is not fitted again


@dataclass(frozen=True, eq=False)
class Made:
    """The pairs of a fit, and what is worth knowing of how they came about.

    Attributes:
        pairs: kept ones.
        settings: of the fit: photos, steps, initialisation, dropout, growth, number of Gaussians.
        filtered: views that were left out because the render covers too little of them.
        seconds: by stage.
    """

    pairs: list[Pair]
    settings: dict[str, Any]
    filtered: int
    seconds: dict[str, float]

    def counts(self) -> dict[str, Any]:
        """Kept pairs by band, and by artifact PSNR in whole dB, and by what the clean view is."""
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
    truth: Truth | None = None,
) -> Made:
    """Fit, render and pair. (capture, fit index, seed, recipe) determine all but the seconds, for a thread count.

    ``truth`` is what the recipe's clean renders are drawn from.

    Raises:
        ValueError: the capture has too few photos for a fit and a clean view, or there is no truth to draw.
    """
    if len(capture.views) < recipe.num_train[0] + 1:
        raise ValueError(
            f"{capture.path}: {len(capture.views)} photos; pairs need at least {recipe.num_train[0]} to fit from and "
            "one more to compare with"
        )
    if recipe.clean == "renders" and truth is None:
        raise ValueError(f"{capture.path}: recipe {recipe_name!r} has clean: renders, but there is nothing to draw")
    clock = _Clock()
    key = hashlib.sha256(f"{capture.name}/{fit_index}/{seed}".encode()).digest()
    fit_seed = int.from_bytes(key[:4], "little")
    rng = np.random.default_rng(fit_seed)
    most = min(recipe.num_train[1], len(capture.views) - 1)
    num_train = int(rng.integers(recipe.num_train[0], most + 1))
    train_ids = random_views(capture, num_train, rng)
    scene = load_scene(capture, train_ids, device)
    clock.lap("load")

    plan = _drawn_at_random(recipe, rng)
    fits = [fitted(scene, plan, seed=fit_seed + 1000 * k) for k in range(plan.num_fits)]
    clock.lap("fit")
    if recipe.cycle:
        again = _shown(scene, fits)
        fits = [fitted(again, plan, seed=fit_seed + 1000 * k + 500) for k in range(plan.num_fits)]
        clock.lap("fit again")

    cameras, cleans = _clean_views(capture, scene, recipe, truth, rng)
    distances = view_distances(cameras, scene.cameras, scene.points)
    bands = assign_bands(distances)
    cameras = pick_evenly(sorted(cameras, key=lambda camera: (distances[camera.name], camera.name)), recipe.max_views)
    settings = plan.to_json() | {"recipe": recipe_name, "fit_index": fit_index, "seed": seed}
    settings |= {"train_ids": list(train_ids), "cycle": recipe.cycle, "num_gaussians": len(fits[0].gaussians)}
    pairs, filtered = [], 0
    for name, shown in {f"f{fit_index:03d}": fits[:1], f"f{fit_index:03d}m": fits}.items():
        if name.endswith("m") and len(fits) == 1:
            continue
        references = render_references(shown, scene.cameras, scene.photos)
        usual = float(np.median([coverage(reference.alpha) for reference in references]))
        for view in _flawed_views(shown, cameras, references, scene, recipe.num_references):
            if coverage(view.alpha) < recipe.min_coverage * usual:
                filtered += 1
                continue
            clean = cleans.get(view.camera.name)
            if clean is None:
                clean = torch.from_numpy(capture.view(view.camera.name).load().rgb).to(device)
            pairs.append(
                pair_from(
                    view,
                    clean,
                    scene=capture.name,
                    fit=name,
                    num_references=recipe.num_references,
                    group=group or capture.name,
                    source=capture.format,
                    clean_from=_kind_of_clean(capture, recipe),
                    clean_psnr=None if truth is None or recipe.clean == "photos" else truth.psnr,
                    band=bands[view.camera.name],
                    distance=distances[view.camera.name],
                    fit_settings=settings | {"num_fits": len(shown)},
                )
            )
    clock.lap("render")
    return Made(pairs, settings, filtered, clock.seconds)


@dataclass(frozen=True)
class _Plan:
    """What a fit drew from its recipe."""

    fit: FitConfig
    initial: InitialiseConfig
    num_steps: int
    num_fits: int

    def to_json(self) -> dict[str, Any]:
        return {
            "num_steps": self.num_steps,
            "schedule": self.fit.steps,
            "initial": "+".join(self.initial.sources),
            "num_random": self.initial.num_random,
            "dropout": self.fit.dropout,
            "growth": self.fit.densify.strategy != "none",
            "num_fits": self.num_fits,
        }


def _drawn_at_random(recipe: Recipe, rng: np.random.Generator) -> _Plan:
    low, high = np.log(np.maximum(recipe.num_random, 1))
    num_random = int(np.exp(rng.uniform(low, high))) if recipe.num_random[1] > 0 else 0
    source = recipe.initial[int(rng.integers(len(recipe.initial)))]
    # structure may not be found: then there are at least random points
    sources: tuple[Initial, ...] = (source,) if source in ("auto", "random") else (source, "random")
    grows = bool(rng.random() < recipe.growth)
    fit = FitConfig(
        steps=recipe.steps,
        dropout=0.0 if rng.random() < recipe.undropped else FitConfig().dropout,
        densify=DensifyConfig(strategy="default" if grows else "none", max_gaussians=recipe.max_gaussians),
    )
    return _Plan(
        fit,
        InitialiseConfig(sources=sources, num_random=num_random, sh_degree=recipe.sh_degree),
        max(1, round(float(rng.uniform(*recipe.completed)) * recipe.steps)),
        int(rng.integers(recipe.num_fits[0], recipe.num_fits[1] + 1)),
    )


def fitted(scene: SparseScene, plan: _Plan, *, seed: int) -> Splat:
    """A fit of the scene after the planned steps, with everything random from ``seed``."""
    fit = start_fit(scene, plan.fit, plan.initial, seed=seed)
    advance(fit, scene.views(), plan.num_steps, seed=seed)
    return fit.splat()


def _shown(scene: SparseScene, fits: Sequence[Splat]) -> SparseScene:
    """The scene as the fits show it at new poses between and around the photos: what a cycle fits again."""
    num = max(12, 2 * len(scene.cameras))
    cameras = repair_cameras(scene.cameras, num=num, round_index=1, num_rounds=2, outward=0.5, depth=scene.depth)
    kept, images = [], []
    for camera in cameras:
        with torch.no_grad():
            made = [render(splat, [camera]) for splat in fits]
        if coverage(torch.stack([one.alpha[0] for one in made]).mean(0)) >= MIN_CYCLE_COVERAGE:
            kept.append(camera)
            images.append(torch.stack([one.rgb[0] for one in made]).mean(0).clamp(0, 1))
    if len(kept) < 2:  # a fit that shows next to nothing: then the photos' own poses have to do
        kept = list(scene.cameras)
        with torch.no_grad():
            images = [render(fits[0], [camera]).rgb[0].clamp(0, 1) for camera in kept]
    return replace(scene, cameras=tuple(kept), photos=tuple(images), masks=(None,) * len(kept), points=None)


def _clean_views(
    capture: Capture, scene: SparseScene, recipe: Recipe, truth: Truth | None, rng: np.random.Generator
) -> tuple[list[Camera], dict[str, Tensor]]:
    """Cameras of the clean views, and the clean images that are not photos."""
    if recipe.clean == "renders" and truth is not None:
        drawn = clean_renders(capture, truth, recipe.max_views, scene.depth, rng)
        return [camera for camera, _ in drawn], {camera.name: image for camera, image in drawn}
    trained = set() if recipe.cycle else {camera.name for camera in scene.cameras}
    return [camera for camera in capture.cameras if camera.name not in trained], {}


def _kind_of_clean(capture: Capture, recipe: Recipe) -> str:
    if capture.splat is not None:
        return "reference splat"
    return "photo" if recipe.clean == "photos" else "dense fit"


def _flawed_views(
    fits: Sequence[Splat],
    cameras: Sequence[Camera],
    references: Sequence[Reference],
    scene: SparseScene,
    num_references: int,
) -> Iterator[FlawedView]:
    """The renders; a photo is never its own reference."""
    for camera in cameras:
        others = [reference for reference in references if reference.camera.name != camera.name]
        yield from render_flawed(fits, [camera], others, scene.depth, num_references)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


def random_views(capture: Capture, num: int, rng: np.random.Generator) -> tuple[str, ...]:
    """A random choice of photos that still spreads: farthest-point from a random start, among a random half or all."""
    cameras = sorted(capture.cameras, key=lambda camera: camera.name)
    pool = np.arange(len(cameras))
    if rng.random() < 0.4 and len(cameras) >= 2 * num:  # a stretch of neighbours: narrower baselines
        size = int(rng.integers(num + 1, len(cameras) + 1))
        depth = scene_depth(cameras)
        center = int(rng.integers(len(cameras)))
        order = np.argsort([separation(cameras[center], camera, depth) for camera in cameras], kind="stable")
        pool = order[:size]
    return farthest_views([cameras[i] for i in pool], num, start=int(rng.integers(len(pool))))
