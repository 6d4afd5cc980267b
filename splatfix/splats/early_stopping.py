"""Early stopping of a sparse fit, decided on training photos alone.

Sparse fits can overfit: unseen views are best after a few hundred steps and then get worse. Each probe fit, at reduced
size, holds out one training photo and is scored on it at intervals; the fit from all photos stops at the step with the
best mean score. A held-out photo is farther from the others than most test views are, so the chosen step is too early
for those: with dropout and without growth, the full schedule was better on all captures compared, and is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from splatfix.cameras import pairwise_separations
from splatfix.gaussians import Splat
from splatfix.rendering import render
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import SparseScene, start_fit
from splatfix.splats.train import FitConfig, advance


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """Settings of early stopping.

    Attributes:
        enabled: choose the last step by holding out photos; False trains for the full schedule.
        folds: number of photos to hold out, one probe fit each.
        scale: size of the images that probes train on, as a share of the full size.
        every: steps between scores of a probe fit.
        patience: a probe fit ends after this many scores without a better one.
        tolerance_db: the earliest step with a score within this of the best is chosen, in dB.
    """

    enabled: bool = False
    folds: int = 2
    scale: float = 0.5
    every: int = 100
    patience: int = 5
    tolerance_db: float = 0.05


@dataclass(frozen=True)
class Stop:
    """The chosen number of steps, and the curve it was chosen from: mean PSNR of held-out photos in dB, per score."""

    steps: int
    curve: tuple[float, ...] = ()


def choose_stop(
    scene: SparseScene,
    initial: InitializationConfig,
    fit: FitConfig,
    config: EarlyStoppingConfig,
    *,
    seed: int,
    on_probe: Callable[[], object] | None = None,
) -> Stop:
    """Choose the last step with one probe fit per held-out photo. With fewer than three photos, use the full schedule.

    A fit that starts from a splat has ended already.

    ``on_probe`` is called after every probe fit.
    """
    if not config.enabled or initial.start is not None or len(scene.cameras) < 3:
        return Stop(fit.steps)
    small = shrink_scene(scene, config.scale)
    curves = []
    for index in choose_folds(scene, config.folds):
        curves.append(_run_probe(scene, small, index, initial, fit, config, seed))
        if on_probe is not None:
            on_probe()
    length = max(len(scores) for scores in curves)
    curve = np.mean([scores + [scores[-1]] * (length - len(scores)) for scores in curves], axis=0)
    best = int(np.argmax(curve >= curve.max() - config.tolerance_db))
    return Stop(min((best + 1) * config.every, fit.steps), tuple(curve.round(3).tolist()))


def choose_folds(scene: SparseScene, num: int) -> list[int]:
    """Choose photos to hold out: those with the nearest neighbors, so that the others still see the same surfaces."""
    gaps = pairwise_separations(scene.cameras, scene.depth)
    np.fill_diagonal(gaps, np.inf)
    nearest_two = np.sort(gaps, axis=1)[:, :2].mean(1)
    return [int(i) for i in np.argsort(nearest_two, kind="stable")[:num]]


def shrink_scene(scene: SparseScene, scale: float) -> SparseScene:
    """Scale the photos of a scene, their masks and cameras down by ``scale`` (area filter)."""

    def shrink(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
        channels = image.reshape(*image.shape[:2], -1).permute(2, 0, 1)[None]
        small = F.interpolate(channels, size=(height, width), mode="area")[0].permute(1, 2, 0)
        return small.reshape(height, width, *image.shape[2:])

    def shrink_all(images: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
        return tuple(None if each is None else shrink(each, *size) for each, size in zip(images, sizes, strict=True))

    sizes = [(max(round(c.width_px * scale), 16), max(round(c.height_px * scale), 16)) for c in scene.cameras]
    return replace(
        scene,
        cameras=tuple(c.resize(*size) for c, size in zip(scene.cameras, sizes, strict=True)),
        photos=tuple(shrink(photo, *size) for photo, size in zip(scene.photos, sizes, strict=True)),
        masks=shrink_all(scene.masks),
        validities=shrink_all(scene.validities),
        nearness=tuple(shrink(each, *size) for each, size in zip(scene.nearness, sizes, strict=False)),  # may be empty
    )


def _run_probe(
    scene: SparseScene,
    small: SparseScene,
    index: int,
    initial: InitializationConfig,
    settings: FitConfig,
    config: EarlyStoppingConfig,
    seed: int,
) -> list[float]:
    """Fit without one photo, initialized at full size and trained on the ``small`` photos; returns its scores."""
    fit = start_fit(scene.leave_out(index), settings, initial, seed=seed)
    others = small.leave_out(index)
    scores: list[float] = []
    while fit.step < settings.steps:
        count = min(config.every, settings.steps - fit.step)
        advance(fit, others.views(), count, seed=seed)
        scores.append(score_photo(fit.splat(), small, index))
        if int(np.argmax(scores)) + config.patience < len(scores):
            break
    return scores


def score_photo(splat: Splat, scene: SparseScene, index: int) -> float:
    """Compute the PSNR of the held-out photo in dB, in float32 on the device of the fit; finite for equal images.

    Ignored pixels of the photo are left out.
    """
    with torch.no_grad():
        rendering = render(splat, [scene.cameras[index]])
    squared = (rendering.rgb[0].clamp(0, 1) - scene.photos[index]).square()
    validity = scene.validities[index]
    if validity is None:
        error = squared.mean()
    else:
        error = (squared.mean(-1) * validity).sum() / validity.sum().clamp_min(1e-6)
    return -10 * float(torch.log10(error.clamp_min(1e-10)))
