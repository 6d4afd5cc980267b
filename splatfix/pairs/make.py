"""The pairs of one choice of photos, as a pure function of capture, fit number, seed and settings.

A fit from a random few of the photos is rendered at the photos that it has not seen; each render and its photo are a
pair. Where there are several fits of the same photos, the mean of their renders is paired too: that is what the loop
gives to a restorer. No Ray here: workers call this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from splatfix.cameras import separation
from splatfix.captures.capture import Capture
from splatfix.flawed import coverage, render_flawed, render_references
from splatfix.gaussians import Gaussians
from splatfix.pairs.pair import Pair, pair_from
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene, load_scene, start_fit
from splatfix.splats.train import FitConfig, advance
from splatfix.views import assign_bands, farthest_views, scene_depth, view_distances


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """How the sparse fits behind the pairs differ from one another.

    Attributes:
        size_px: longest side of the images, in pixels.
        num_train: fewest and most photos of a fit.
        num_fits: fewest and most fits of the same photos, which differ in their seeds. Where there are several, the
            first alone and the mean of all are paired with the photos.
        steps: fewest and most training steps of a fit.
        num_random: fewest and most random points among the initial ones (log-uniform).
        undropped: share of the fits without dropout; the others have the dropout of a fit's defaults.
        growth: share of the fits that grow.
        max_gaussians: cap of those that do.
        sh_degree: highest spherical harmonics.
        max_views: clean views per fit, spread evenly over distance.
        min_coverage: a view is left out where the render covers less than this share of what training views cover.
        num_references: warped training photos stored with each pair.
    """

    size_px: int = 256
    num_train: tuple[int, int] = (3, 9)
    num_fits: tuple[int, int] = (1, 3)
    steps: tuple[int, int] = (500, 2400)
    num_random: tuple[int, int] = (500, 4000)
    undropped: float = 0.25
    growth: float = 0.15
    max_gaussians: int = 15_000
    sh_degree: int = 1
    max_views: int = 14
    min_coverage: float = 0.4
    num_references: int = 2


def make_pairs(
    capture: Capture, fit_index: int, *, seed: int, config: PairsConfig, device: torch.device, group: str | None = None
) -> Iterator[Pair]:
    """Fit and yield the pairs. (capture, fit index, seed, settings) determine them for a thread count.

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
        dropout=0.0 if rng.random() < config.undropped else FitConfig().dropout,
        densify=DensifyConfig(strategy="default" if grows else "none", max_gaussians=config.max_gaussians),
    )
    num_steps = int(rng.integers(config.steps[0], config.steps[1] + 1))
    num_fits = int(rng.integers(config.num_fits[0], config.num_fits[1] + 1))
    fits = [fitted(scene, settings, initial, num_steps, seed=fit_seed + 1000 * k) for k in range(num_fits)]

    others = [camera for camera in capture.cameras if camera.name not in set(train_ids)]
    distances = view_distances(others, scene.cameras, scene.points)
    bands = assign_bands(distances)
    ordered = sorted(others, key=lambda camera: (distances[camera.name], camera.name))
    if len(ordered) > config.max_views:
        ordered = [ordered[i] for i in np.linspace(0, len(ordered) - 1, config.max_views).round().astype(int)]
    made = {
        "fit_index": fit_index,
        "seed": seed,
        "train_ids": list(train_ids),
        "num_steps": num_steps,
        "num_random": initial.num_random,
        "dropout": settings.dropout,
        "growth": grows,
        "num_gaussians": len(fits[0]),
    }
    for name, shown in {f"f{fit_index:03d}": fits[:1], f"f{fit_index:03d}m": fits}.items():
        if name.endswith("m") and len(fits) == 1:
            continue
        references = render_references(shown, scene.cameras, scene.photos, scene.background)
        usual = float(np.median([coverage(reference.alpha) for reference in references]))
        flawed = render_flawed(shown, ordered, references, scene.background, scene.depth, config.num_references)
        for view in flawed:
            if coverage(view.alpha) < config.min_coverage * usual:
                continue
            yield pair_from(
                view,
                torch.from_numpy(capture.view(view.camera.name).load().rgb).to(device),
                scene=capture.name,
                fit=name,
                num_references=config.num_references,
                group=group or capture.name,
                source=capture.format,
                band=bands[view.camera.name],
                distance=distances[view.camera.name],
                fit_settings=made | {"num_fits": len(shown)},
            )


def fitted(
    scene: SparseScene, settings: FitConfig, initial: InitialiseConfig, num_steps: int, *, seed: int
) -> Gaussians:
    """A fit of the scene after ``num_steps`` steps, with everything random from ``seed``."""
    fit = start_fit(scene, settings, initial, seed=seed)
    advance(fit, scene.views(), num_steps, seed=seed, background=scene.background)
    return fit.gaussians().detach()


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
