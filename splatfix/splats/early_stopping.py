"""When a sparse fit stops, decided on training photos alone.

Sparse fits can overfit: unseen views are best after some hundred steps and then get worse. Probe fits at reduced size
leave one training photo out and are scored on it as they go; the fit from all photos stops at the step with the best
mean over the left-out photos. A left-out photo stands farther from the others than most test views do, so it asks for
an earlier stop than they would: with dropout and without growth the whole schedule was better on the captures it was
compared on, and is the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from splatfix.cameras import separations
from splatfix.gaussians import Splat
from splatfix.rendering import render
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene, start_fit
from splatfix.splats.train import FitConfig, advance


@dataclass(frozen=True, kw_only=True)
class ChooseConfig:
    """How a sparse fit is stopped.

    Attributes:
        enabled: leave photos out to choose the last step; False trains for the whole schedule.
        folds: number of photos left out, one probe fit each.
        scale: size of the images that probes train on, as a share of the full size.
        every: probe every so many steps.
        patience: stop a probe after so many probes without a better score.
        tolerance_db: an earlier step is taken where its score is within this of the best, in dB.
    """

    enabled: bool = False
    folds: int = 2
    scale: float = 0.5
    every: int = 100
    patience: int = 5
    tolerance_db: float = 0.05


@dataclass(frozen=True)
class Stop:
    """The number of steps, and the curve that decided: PSNR in dB per probe, the mean over the left-out photos."""

    steps: int
    curve: tuple[float, ...] = ()


def choose_stop(
    scene: SparseScene,
    initial: InitialiseConfig,
    fit: FitConfig,
    config: ChooseConfig,
    *,
    seed: int,
    on_probe: Callable[[], object] | None = None,
) -> Stop:
    """Leave training photos out, one probe fit each. With fewer than three photos the whole schedule is kept."""
    if not config.enabled or len(scene.cameras) < 3:
        return Stop(fit.steps)
    small = shrunk(scene, config.scale)
    runs = []
    for index in folds(scene, config.folds):
        runs.append(_probe(scene, small, index, initial, fit, config, seed))
        if on_probe is not None:
            on_probe()
    length = max(len(run) for run in runs)
    curve = np.mean([run + [run[-1]] * (length - len(run)) for run in runs], axis=0)
    at = int(np.argmax(curve >= curve.max() - config.tolerance_db))
    return Stop(min((at + 1) * config.every, fit.steps), tuple(curve.round(3).tolist()))


def folds(scene: SparseScene, num: int) -> list[int]:
    """Which photos to leave out: those with the nearest neighbours, so that what is left still sees their place."""
    gaps = separations(scene.cameras, scene.depth)
    np.fill_diagonal(gaps, np.inf)
    nearest_two = np.sort(gaps, axis=1)[:, :2].mean(1)
    return [int(i) for i in np.argsort(nearest_two, kind="stable")[:num]]


def shrunk(scene: SparseScene, scale: float) -> SparseScene:
    """The scene with smaller photos (area filter)."""

    def smaller(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
        channels = image.reshape(*image.shape[:2], -1).permute(2, 0, 1)[None]
        small = F.interpolate(channels, size=(height, width), mode="area")[0].permute(1, 2, 0)
        return small.reshape(height, width, *image.shape[2:])

    sizes = [(max(round(c.width_px * scale), 16), max(round(c.height_px * scale), 16)) for c in scene.cameras]
    return replace(
        scene,
        cameras=tuple(c.resized(*size) for c, size in zip(scene.cameras, sizes, strict=True)),
        photos=tuple(smaller(photo, *size) for photo, size in zip(scene.photos, sizes, strict=True)),
        masks=tuple(
            None if mask is None else smaller(mask, *size) for mask, size in zip(scene.masks, sizes, strict=True)
        ),
    )


def _probe(
    scene: SparseScene,
    small: SparseScene,
    index: int,
    initial: InitialiseConfig,
    settings: FitConfig,
    config: ChooseConfig,
    seed: int,
) -> list[float]:
    """Scores of a fit without one photo: it starts as at full size, and trains on the small photos."""
    fit = start_fit(scene.without(index), settings, initial, seed=seed)
    rest = small.without(index)
    scores: list[float] = []
    while fit.step < settings.steps:
        count = min(config.every, settings.steps - fit.step)
        advance(fit, rest.views(), count, seed=seed)
        scores.append(_score(fit.splat(), small, index))
        if int(np.argmax(scores)) + config.patience < len(scores):
            break
    return scores


def _score(splat: Splat, scene: SparseScene, index: int) -> float:
    """PSNR at the left-out photo, in dB; in float32 on the fit's device, and finite for equal images."""
    with torch.no_grad():
        rendering = render(splat, [scene.cameras[index]])
    error = (rendering.rgb[0].clamp(0, 1) - scene.photos[index]).square().mean()
    return -10 * float(torch.log10(error.clamp_min(1e-10)))
