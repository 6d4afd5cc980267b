"""Small flawed views and pairs without a renderer: a painted plane with synthetic flaws, and photos from beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from splatfix.flawed import FlawedView, Reference, render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.pairs import Pair, build_pair
from splatfix.views import interpolate_on_arc
from tests.splats.scene import random_gaussians, small_scene
from tests.test_warping import camera, painted, plane_depth, posed


def flawed_view(seed: int = 0, width_px: int = 40, height_px: int = 30, num_references: int = 2) -> FlawedView:
    """A view of the painted plane with grey blotches where its fit is thin, and references beside it."""
    generator = torch.Generator().manual_seed(seed)
    at = replace(camera(0.1 * (seed % 5) - 0.2, width_px=width_px, height_px=height_px), name=f"photos/{seed:03d}.png")
    coarse = torch.rand(1, 1, 6, 8, generator=generator)
    blotches = F.interpolate(coarse, size=(height_px, width_px), mode="bilinear")[0, 0]
    alpha = (1.4 - blotches).clamp(0, 1)
    rgb = alpha[..., None] * painted(at) + (1 - alpha[..., None]) * 0.2
    rgb = rgb + 0.03 * torch.randn(rgb.shape, generator=generator)
    others = [posed(camera(x, width_px=width_px, height_px=height_px)) for x in (-0.4, 0.4, 0.8)]
    references = [Reference(other.camera, other.rgb, other.depth, other.alpha) for other in others]
    return FlawedView(at, rgb, alpha, plane_depth(at), tuple(references[:num_references]))


def pair(seed: int = 0, scene: str = "plane", width_px: int = 40, height_px: int = 30, **more) -> Pair:
    """The pair of `flawed_view`."""
    view = flawed_view(seed, width_px, height_px)
    band = ("near", "mid", "far")[seed % 3]
    return build_pair(view, painted(view.camera), scene=scene, fit="f0", band=band, **more)


def random_mask(seed: int = 0, width_px: int = 40, height_px: int = 30) -> torch.Tensor:
    """A mask of zeros and ones."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (height_px, width_px)).astype(np.float32))


def rendered_view(seed: int = 0) -> FlawedView:
    """A view of random Gaussians, rendered, so that it knows its fits."""
    scene, splats = small_scene(), [Splat(random_gaussians(300, seed=seed + k)) for k in range(2)]
    references = render_references(splats, scene.cameras, scene.photos)
    camera = interpolate_on_arc(scene.cameras[1], scene.cameras[2], 0.3, scene.depth, "new")
    return render_flawed(splats, [camera], references, scene.depth)[0]
