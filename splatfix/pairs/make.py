"""The pairs of one sparse fit, as a pure function of capture, fit number, seed and settings.

A fit from a random few of the photos is rendered at the photos that it has not seen; each render and its photo are a
pair. No Ray here: workers call this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from splatfix.captures.capture import Capture
from splatfix.flawed import render_flawed, render_references
from splatfix.pairs.pair import Pair, pair_from
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import load_scene, start_fit
from splatfix.splats.train import FitConfig, advance
from splatfix.views import assign_bands, farthest_views, scene_depth, separation, view_distances


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """How the sparse fits behind the pairs differ from one another.

    Attributes:
        size_px: longest side of the images, in pixels.
        num_train: fewest and most photos of a fit.
        steps: fewest and most training steps of a fit.
        num_random: fewest and most random points among the initial ones (log-uniform).
        growth: share of the fits that grow.
        max_gaussians: cap of those that do.
        sh_degree: highest spherical harmonics.
        max_views: clean views per fit, spread evenly over distance.
        min_coverage: a view is left out where the render covers less than this share of what training views cover.
        num_references: warped training photos stored with each pair.
    """

    size_px: int = 256
    num_train: tuple[int, int] = (3, 9)
    steps: tuple[int, int] = (250, 1000)
    num_random: tuple[int, int] = (300, 3000)
    growth: float = 0.25
    max_gaussians: int = 15_000
    sh_degree: int = 1
    max_views: int = 14
    min_coverage: float = 0.4
    num_references: int = 2


def make_pairs(
    capture: Capture, fit_index: int, *, seed: int, config: PairsConfig, device: torch.device, group: str | None = None
) -> Iterator[Pair]:
    """Fit once and yield the pairs. (capture, fit index, seed, settings) determine them for a thread count.

    Raises:
        ValueError: the capture has too few photos for a fit and a clean view.
    """
    if len(capture.views) < config.num_train[0] + 1:
        raise ValueError(
            f"{capture.path}: {len(capture.views)} photos; pairs need at least {config.num_train[0]} to fit from and "
            "one more to compare with"
        )
    key = hashlib.sha256(f"{capture.name}/{fit_index}/{seed}".encode()).digest()
    fit_seed = int.from_bytes(key[:4], "little")
    rng = np.random.default_rng(fit_seed)
    most = min(config.num_train[1], len(capture.views) - 1)
    num_train = int(rng.integers(config.num_train[0], most + 1))
    train_ids = random_views(capture, num_train, rng)
    scene = load_scene(capture, train_ids, device)

    low, high = np.log(config.num_random)
    initial = InitialiseConfig(num_random=int(np.exp(rng.uniform(low, high))), sh_degree=config.sh_degree)
    grows = bool(rng.random() < config.growth)
    settings = FitConfig(
        steps=config.steps[1],
        dropout=float(rng.choice([0.0, 0.3])),
        densify=DensifyConfig(strategy="default" if grows else "none", max_gaussians=config.max_gaussians),
    )
    num_steps = int(rng.integers(config.steps[0], config.steps[1] + 1))
    fit = start_fit(scene, settings, initial, seed=fit_seed)
    advance(fit, scene.views(), num_steps, seed=fit_seed, background=scene.background)
    gaussians = fit.gaussians().detach()

    others = [camera for camera in capture.cameras if camera.name not in set(train_ids)]
    distances = view_distances(others, scene.cameras, scene.points)
    bands = assign_bands(distances)
    ordered = sorted(others, key=lambda camera: (distances[camera.name], camera.name))
    if len(ordered) > config.max_views:
        ordered = [ordered[i] for i in np.linspace(0, len(ordered) - 1, config.max_views).round().astype(int)]
    references = render_references([gaussians], scene.cameras, scene.photos, scene.background)
    usual = float(np.median([float((r.alpha > 0.5).float().mean()) for r in references]))
    made = {
        "fit_index": fit_index,
        "seed": seed,
        "train_ids": list(train_ids),
        "num_steps": num_steps,
        "num_random": initial.num_random,
        "dropout": settings.dropout,
        "growth": grows,
        "num_gaussians": len(gaussians),
    }
    for view in render_flawed([gaussians], ordered, references, scene.background, config.num_references):
        if float((view.alpha > 0.5).float().mean()) < config.min_coverage * usual:
            continue
        name = view.camera.name
        yield pair_from(
            view,
            torch.from_numpy(capture.view(name).load().rgb).to(device),
            scene=capture.name,
            fit=f"f{fit_index:03d}",
            num_references=config.num_references,
            group=group or capture.name,
            source=capture.format,
            band=bands[name],
            distance=distances[name],
            fit_settings=made,
        )


def random_views(capture: Capture, num: int, rng: np.random.Generator) -> tuple[str, ...]:
    """A random choice of photos that still spreads: farthest-point from a random start, among a random half or all."""
    cameras = sorted(capture.cameras, key=lambda camera: camera.name)
    pool = np.arange(len(cameras))
    if rng.random() < 0.4 and len(cameras) >= 2 * num:  # a stretch of neighbours: narrower baselines
        size = int(rng.integers(num + 1, len(cameras) + 1))
        depth = scene_depth(cameras)
        centre = int(rng.integers(len(cameras)))
        order = np.argsort([separation(cameras[centre], camera, depth) for camera in cameras], kind="stable")
        pool = order[:size]
    return farthest_views([cameras[i] for i in pool], num, start=int(rng.integers(len(pool))))
