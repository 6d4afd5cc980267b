"""Ground truth for unseen poses: a dense fit or a reference splat.

A restorer needs more clean views than a capture has photos. A fit of most of the photos provides them at poses where it
covers the image well; the remaining photos measure its quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.captures import Capture, PhotoOptions
from splatfix.captures.options import MaskChoice, OrientationChoice
from splatfix.config import require
from splatfix.flawed import compute_coverage
from splatfix.gaussians import Splat, read_splat
from splatfix.metrics import psnr
from splatfix.pairs.checkpoints import FitCheckpoints
from splatfix.rendering import render
from splatfix.shapes import Float
from splatfix.splats.backdrop import remove_backdrop
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import load_scene, start_fit
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig, find_neighbor_pairs, interpolate_on_arc, make_split

WELL_COVERED = 0.9  # of the typical coverage: the median over cameras of the capture
TRIES_PER_VIEW = 3
MAX_TYPICAL_CAMERAS = 32  # that the median coverage is computed from


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """The settings of a dense fit of a capture.

    Attributes:
        size_px: longest side of the photos, in pixels.
        masks: what masks of the photos mark: an ``object``, which is set on white, or pixels to ``ignore``; ``auto``
            takes alpha for an object if all photos have it, and mask files for pixels to ignore.
        orientation: whether photos are turned by the orientation in their EXIF data: ``apply``, ``ignore``, or
            ``auto``, as the width and height of their cameras tell.
        steps: training steps.
        test_every: the fit is measured on one of every ``test_every`` photos, in order of their names.
        max_gaussians: largest number of Gaussians.
        sh_degree: highest degree of the spherical harmonics.
        min_psnr: least PSNR on the held-out photos, in dB; a worse fit is not used.
    """

    size_px: int = 256
    masks: MaskChoice = "auto"
    orientation: OrientationChoice = "auto"
    steps: int = 3000
    test_every: int = 8
    max_gaussians: int = 40_000
    sh_degree: int = 2
    min_psnr: float = 20.0

    def __post_init__(self) -> None:
        require(self.size_px >= 16, "dense.size_px", self.size_px, "at least 16 pixels")
        require(self.test_every >= 2, "dense.test_every", self.test_every, "at least 2")
        require(0 <= self.sh_degree <= 3, "dense.sh_degree", self.sh_degree, "0 to 3")
        require(self.max_gaussians >= 1, "dense.max_gaussians", self.max_gaussians, "at least 1")
        require(self.steps >= 1, "dense.steps", self.steps, "at least 1 step")

    @property
    def photo_options(self) -> PhotoOptions:
        """How photos are read."""
        return PhotoOptions(masks=self.masks, orientation=self.orientation)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """A splat whose renders are used as clean views.

    Attributes:
        splat: the dense fit or the reference splat.
        psnr: on held-out photos, in dB; None for a reference splat, which is exact.
    """

    splat: Splat
    psnr: float | None


def read_reference_splat(capture: Capture, device: torch.device) -> GroundTruth | None:
    """Read the reference splat of a capture; None for a capture of photos."""
    if capture.splat is None:
        return None
    splat = read_splat(capture.splat, background=capture.background, file_from_world=capture.file_from_world)
    return GroundTruth(splat.to(device), None)


def fit_densely(
    capture: Capture,
    config: DenseConfig,
    *,
    seed: int,
    device: torch.device,
    checkpoints: FitCheckpoints | None = None,
) -> GroundTruth:
    """Fit most of the photos of a capture, and measure the fit on the others.

    ``checkpoints`` resume an interrupted attempt.

    Raises:
        ValueError: the capture has too few photos to hold any out.
    """
    views = ViewsConfig(size_px=config.size_px, test_every=config.test_every, max_test=1000)
    split = make_split(capture, views)
    scene = load_scene(capture, split.train_ids, device)
    densify = DensifyConfig(strategy="default", max_gaussians=config.max_gaussians)
    settings = FitConfig(steps=config.steps, dropout=0.0, opacity_decay=1.0, densify=densify)
    fit = start_fit(scene, settings, InitializationConfig(sh_degree=config.sh_degree), seed=seed)
    splat = (checkpoints or FitCheckpoints()).train(fit, scene.views(), config.steps, seed=seed)
    psnrs = []
    for name in split.test_ids:
        view = capture.view(name)
        image = _render(splat, view.camera)
        photo = view.load()
        validity = None if photo.validity is None else torch.from_numpy(photo.validity).to(device)
        psnrs.append(psnr(image, torch.from_numpy(photo.rgb).to(device), validity))
    return GroundTruth(splat, float(np.mean(psnrs)))


def render_clean_views(
    capture: Capture, ground_truth: GroundTruth, num: int, depth: float, rng: np.random.Generator
) -> list[tuple[Camera, Float[Tensor, "H W 3"]]]:
    """Render the ground truth at up to ``num`` new poses between neighboring cameras where it covers the image well."""
    sample = capture.cameras[:: math.ceil(len(capture.cameras) / MAX_TYPICAL_CAMERAS)]
    typical_coverage = float(np.median([_measure_coverage(ground_truth.splat, camera) for camera in sample]))
    pairs = find_neighbor_pairs(capture.cameras, depth, per_camera=3)
    views: list[tuple[Camera, Tensor]] = []
    for attempt in range(TRIES_PER_VIEW * num):
        i, j = pairs[int(rng.integers(len(pairs)))]
        t = float(rng.uniform(0.2, 0.8))
        camera = interpolate_on_arc(capture.cameras[i], capture.cameras[j], t, depth, f"new_{attempt:03d}")
        if _measure_coverage(ground_truth.splat, camera) >= WELL_COVERED * typical_coverage:
            views.append((camera, _render(ground_truth.splat, camera)))
        if len(views) == num:
            break
    return views


def _render(splat: Splat, camera: Camera) -> Float[Tensor, "H W 3"]:
    with torch.no_grad():
        return render(splat, [camera]).rgb[0].clamp(0, 1)


def _measure_coverage(splat: Splat, camera: Camera) -> float:
    small = camera.with_longest_side(64)
    with torch.no_grad():
        return compute_coverage(render(remove_backdrop(splat), [small]).alpha[0])
