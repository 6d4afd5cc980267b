"""A flawed view: all that a restorer is given of a render, and how it is made from a fit.

Pairs (for training) and the loop (for repair) build their views here, so that a restorer meets the same inputs in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splatfix.cameras import Camera, angle_between_rad
from splatfix.gaussians import Gaussians
from splatfix.rendering import render
from splatfix.shapes import Float


@dataclass(frozen=True, eq=False)
class Reference:
    """A training photo near a flawed view, with the fit's depth at its camera (for occlusion tests)."""

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    depth: Float[Tensor, "H W"]
    alpha: Float[Tensor, "H W"]


@dataclass(frozen=True, eq=False)
class FlawedView:
    """A novel view as a sparse fit renders it.

    Attributes:
        camera: where it was rendered.
        rgb: the render over the background, ``[H, W, 3]``.
        alpha: accumulated opacity, ``[H, W]``.
        depth: expected depth along the axis in world units, 0 where alpha is 0, ``[H, W]``.
        references: the nearest training photos, nearest first.
    """

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    alpha: Float[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    references: tuple[Reference, ...] = ()


def render_references(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    photos: Sequence[Float[Tensor, "H W 3"]],
    background: Sequence[float] | None,
) -> list[Reference]:
    """Training photos with the fit's depth and alpha at their cameras."""
    with torch.no_grad():
        renders = [render(gaussians, [camera], background=background) for camera in cameras]
    return [
        Reference(camera, photo, made.depth[0], made.alpha[0])
        for camera, photo, made in zip(cameras, photos, renders, strict=True)
    ]


def render_flawed(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    references: Sequence[Reference],
    background: Sequence[float] | None,
    num_references: int = 2,
) -> list[FlawedView]:
    """Render novel views of a fit and attach the nearest references (position and direction) to each."""
    scale = typical_distance([reference.camera for reference in references])
    views = []
    for camera in cameras:
        with torch.no_grad():
            made = render(gaussians, [camera], background=background)
        nearest = sorted(references, key=lambda reference: _separation(reference.camera, camera, scale))
        views.append(FlawedView(camera, made.rgb[0], made.alpha[0], made.depth[0], tuple(nearest[:num_references])))
    return views


def typical_distance(cameras: Sequence[Camera]) -> float:
    """Median distance between distinct cameras: a length to compare positions with angles (1 for a single camera)."""
    centres = np.stack([camera.centre for camera in cameras])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(len(cameras), 1)]
    return float(np.median(gaps)) if len(gaps) and np.median(gaps) > 0 else 1.0


def _separation(a: Camera, b: Camera, scale: float) -> float:
    return float(np.hypot(np.linalg.norm(a.centre - b.centre) / scale, angle_between_rad(a, b)))
