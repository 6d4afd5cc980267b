"""Flawed views: renders of a sparse fit with all that a restorer is given of them.

Pairs (for training) and the loop (for repair) both render here, so that a restorer meets the same inputs in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatfix.cameras import Camera, separation
from splatfix.gaussians import Splat
from splatfix.rendering import render
from splatfix.shapes import Float
from splatfix.splats.backdrop import without_backdrop


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
        camera: its camera.
        rgb: the render over the background, ``[H, W, 3]``.
        alpha: accumulated opacity of the scene, without a shell behind it (`splats.backdrop`), ``[H, W]``.
        depth: expected depth of the same along the axis in world units, 0 where alpha is 0, ``[H, W]``.
        references: the nearest training photos, nearest first.
        spread: standard deviation of the colors over several fits of the same photos, ``[H, W]``; None for one fit.
    """

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    alpha: Float[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    references: tuple[Reference, ...] = ()
    spread: Float[Tensor, "H W"] | None = None


def render_references(
    splats: Sequence[Splat], cameras: Sequence[Camera], photos: Sequence[Float[Tensor, "_ _ 3"]]
) -> list[Reference]:
    """Attach the fit's depth and alpha to training photos (the mean over several fits)."""
    without = [without_backdrop(splat) for splat in splats]
    references = []
    for camera, photo in zip(cameras, photos, strict=True):
        view = _render_mean(splats, without, camera)
        references.append(Reference(camera, photo, view.depth, view.alpha))
    return references


def render_flawed(
    splats: Sequence[Splat],
    cameras: Sequence[Camera],
    references: Sequence[Reference],
    depth: float,
    num_references: int = 2,
) -> list[FlawedView]:
    """Render novel views and attach the nearest references to each (by `cameras.separation`, at the scene's ``depth``).

    Several fits of the same photos are averaged: what only one of them shows is an artifact, and where they differ
    their `spread` says so.
    """
    without = [without_backdrop(splat) for splat in splats]
    views = []
    for camera in cameras:
        nearest = sorted(references, key=lambda reference: separation(reference.camera, camera, depth))
        view = _render_mean(splats, without, camera)
        views.append(replace(view, references=tuple(nearest[:num_references])))
    return views


def coverage(alpha: Float[Tensor, "H W"]) -> float:
    """Share of the pixels with alpha above one half."""
    return float((alpha > 0.5).float().mean())


def _render_mean(splats: Sequence[Splat], without_backdrops: Sequence[Splat], camera: Camera) -> FlawedView:
    """Average the renders of several fits: colors of the whole splats, alpha and depth without their backdrops."""
    with torch.no_grad():
        whole = [render(splat, [camera]) for splat in splats]
        scene = [
            rendering if without is splat else render(without, [camera])
            for rendering, without, splat in zip(whole, without_backdrops, splats, strict=True)
        ]
    rgb = torch.cat([rendering.rgb for rendering in whole])  # [F, H, W, 3]
    alpha = torch.cat([rendering.alpha for rendering in scene])
    depth = torch.cat([rendering.depth for rendering in scene])
    mean_depth = (alpha * depth).sum(0) / alpha.sum(0).clamp_min(1e-6)
    spread = rgb.clamp(0, 1).std(0, correction=0).mean(-1) if len(splats) > 1 else None
    return FlawedView(camera, rgb.mean(0), alpha.mean(0), mean_depth, (), spread)
