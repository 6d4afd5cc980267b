"""A flawed view: all that a restorer is given of a render, and how it is made from a fit.

Pairs (for training) and the loop (for repair) build their views here, so that a restorer meets the same inputs in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatfix.cameras import Camera, separation
from splatfix.gaussians import Gaussians
from splatfix.rendering import render
from splatfix.shapes import Float
from splatfix.splats.backdrop import without_shell


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
        alpha: accumulated opacity of the scene, without a shell behind it (`splats.backdrop`), ``[H, W]``.
        depth: expected depth of the same along the axis in world units, 0 where alpha is 0, ``[H, W]``.
        references: the nearest training photos, nearest first.
        spread: standard deviation of the colours over several fits of the same photos, ``[H, W]``; None for one fit.
    """

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    alpha: Float[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    references: tuple[Reference, ...] = ()
    spread: Float[Tensor, "H W"] | None = None


def render_references(
    fits: Sequence[Gaussians],
    cameras: Sequence[Camera],
    photos: Sequence[Float[Tensor, "_ _ 3"]],
    background: Sequence[float] | None,
) -> list[Reference]:
    """Training photos with the fit's depth and alpha at their cameras (the mean over several fits)."""
    references, scenery = [], _scenery(fits, background)
    for camera, photo in zip(cameras, photos, strict=True):
        view = _render_mean(fits, scenery, camera, background)
        references.append(Reference(camera, photo, view.depth, view.alpha))
    return references


def render_flawed(
    fits: Sequence[Gaussians],
    cameras: Sequence[Camera],
    references: Sequence[Reference],
    background: Sequence[float] | None,
    depth: float,
    num_references: int = 2,
) -> list[FlawedView]:
    """Render novel views and attach the nearest references to each (by `cameras.separation`, at the scene's ``depth``).

    Several fits of the same photos are averaged: what only one of them shows is an artifact, and where they differ
    their `spread` says so.
    """
    views, scenery = [], _scenery(fits, background)
    for camera in cameras:
        nearest = sorted(references, key=lambda reference: separation(reference.camera, camera, depth))
        view = _render_mean(fits, scenery, camera, background)
        views.append(replace(view, references=tuple(nearest[:num_references])))
    return views


def coverage(alpha: Float[Tensor, "H W"]) -> float:
    """Share of the pixels with alpha above one half."""
    return float((alpha > 0.5).float().mean())


def _scenery(fits: Sequence[Gaussians], background: Sequence[float] | None) -> list[Gaussians]:
    """The fits without the shell that stands in for a background."""
    return [without_shell(gaussians) if background is None else gaussians for gaussians in fits]


def _render_mean(
    fits: Sequence[Gaussians], scenery: Sequence[Gaussians], camera: Camera, background: Sequence[float] | None
) -> FlawedView:
    with torch.no_grad():
        made = [render(gaussians, [camera], background=background) for gaussians in fits]
        there = [
            one if alone is gaussians else render(alone, [camera])
            for one, alone, gaussians in zip(made, scenery, fits, strict=True)
        ]
    rgb = torch.cat([one.rgb for one in made])  # [F, H, W, 3]
    alpha = torch.cat([one.alpha for one in there])
    depth = torch.cat([one.depth for one in there])
    mean_depth = (alpha * depth).sum(0) / alpha.sum(0).clamp_min(1e-6)
    spread = rgb.clamp(0, 1).std(0, correction=0).mean(-1) if len(fits) > 1 else None
    return FlawedView(camera, rgb.mean(0), alpha.mean(0), mean_depth, (), spread)
