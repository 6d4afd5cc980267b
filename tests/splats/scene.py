"""A small synthetic scene whose photos are renders of known Gaussians."""

import numpy as np
import torch

from splatfix.gaussians import Gaussians, Splat
from splatfix.rendering import render
from splatfix.splats.losses import TrainingView
from splatfix.splats.scene import SparseScene
from splatfix.views import scene_depth
from tests.test_cameras import camera_at


def random_gaussians(num: int, seed: int, sh_rest: int = 0) -> Gaussians:
    """Gaussians in a unit ball or so."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    return Gaussians(
        means=0.5 * normal(num, 3),
        log_scales=-2.5 + 0.3 * normal(num, 3),
        quats=normal(num, 4),
        opacity_logits=torch.zeros(num),
        sh0=normal(num, 1, 3),
        sh_rest=0.1 * normal(num, sh_rest, 3),
    )


def ring_cameras(num: int, width: int = 48, height: int = 36):
    """Cameras around the origin."""
    return [
        camera_at((4 * np.sin(a), -1, -4 * np.cos(a)), name=f"v{i:02d}.png", width=width, height=height)
        for i, a in enumerate(np.linspace(0, 2 * np.pi, num, endpoint=False))
    ]


def photos_of(gaussians: Gaussians, cameras) -> list[TrainingView]:
    """Training views whose photos are renders."""
    with torch.no_grad():
        return [TrainingView(camera, render(Splat(gaussians), [camera]).rgb[0].clamp(0, 1)) for camera in cameras]


def small_scene() -> SparseScene:
    """Five photos of random Gaussians, without points or masks."""
    cameras = tuple(ring_cameras(5))
    photos = tuple(view.rgb for view in photos_of(random_gaussians(300, seed=0), cameras))
    return SparseScene(cameras, photos, (None,) * 5, (None,) * 5, None, None, scene_depth(cameras))
