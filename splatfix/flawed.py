"""Flawed views: renders of a sparse fit with the inputs of a restorer (alpha, depth, reference photos, spread).

Pairs (for training) and the loop (for repair) both use this module, so a restorer gets the same inputs in both.
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
from splatfix.splats.backdrop import remove_backdrop


@dataclass(frozen=True, eq=False)
class Reference:
    """A training photo near a flawed view, with the fit's depth and alpha at its camera (for occlusion tests).

    The ``validity`` is 0 where the photo is ignored; None is 1 everywhere. Ignored pixels have made-up colors.
    """

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    depth: Float[Tensor, "H W"]
    alpha: Float[Tensor, "H W"]
    validity: Float[Tensor, "H W"] | None = None


@dataclass(frozen=True, eq=False)
class FlawedView:
    """A novel view, rendered from a sparse fit.

    Attributes:
        camera: its camera.
        rgb: the render over the background, ``[H, W, 3]``.
        alpha: accumulated opacity, without that of the shell behind the scene (`splats.backdrop`), ``[H, W]``.
        depth: expected depth along the axis in world units, also without the shell, 0 where alpha is 0, ``[H, W]``.
        references: the nearest training photos, nearest first.
        spread: standard deviation of the colors over several fits of the same photos, ``[H, W]``; None for one fit.
        fits: the fits that it shows, without their shells; `buffers.compute_buffers` reads them. Empty where they are
            not known.
        photos: all training photos of these fits, nearest first.
    """

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    alpha: Float[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    references: tuple[Reference, ...] = ()
    spread: Float[Tensor, "H W"] | None = None
    fits: tuple[Splat, ...] = ()
    photos: tuple[Reference, ...] = ()


def render_references(
    splats: Sequence[Splat],
    cameras: Sequence[Camera],
    photos: Sequence[Float[Tensor, "_ _ 3"]],
    validities: Sequence[Float[Tensor, "_ _"] | None] | None = None,
) -> list[Reference]:
    """Render depth and alpha at the cameras of training photos, averaged over several fits of them.

    ``validities`` are those of the photos; None if no pixel is ignored.
    """
    scenes = [remove_backdrop(splat) for splat in splats]
    references = []
    for camera, photo, validity in zip(cameras, photos, validities or [None] * len(photos), strict=True):
        view = _render_mean(splats, scenes, camera)
        references.append(Reference(camera, photo, view.depth, view.alpha, validity))
    return references


def render_flawed(
    splats: Sequence[Splat],
    cameras: Sequence[Camera],
    references: Sequence[Reference],
    depth: float,
    num_references: int = 2,
) -> list[FlawedView]:
    """Render novel views, each with its nearest references (by `cameras.separation` at the scene's ``depth``).

    Several fits of the same photos are averaged: structure that only one of them has is an artifact. Their standard
    deviation is the `spread` of the view.
    """
    scenes = [remove_backdrop(splat) for splat in splats]
    views = []
    for camera in cameras:
        nearest = sorted(references, key=lambda reference: separation(reference.camera, camera, depth))
        view = _render_mean(splats, scenes, camera)
        nearby = tuple(nearest)
        views.append(replace(view, references=nearby[:num_references], fits=tuple(scenes), photos=nearby))
    return views


def compute_coverage(alpha: Float[Tensor, "H W"]) -> float:
    """Compute the share of the pixels with alpha above one half."""
    return float((alpha > 0.5).float().mean())


def _render_mean(splats: Sequence[Splat], scenes: Sequence[Splat], camera: Camera) -> FlawedView:
    """Average the renders of several fits: color of the ``splats``, alpha and depth of the same without backdrops."""
    with torch.no_grad():
        renderings = [render(splat, [camera]) for splat in splats]
        scene_renderings = [
            rendering if scene is splat else render(scene, [camera])
            for rendering, scene, splat in zip(renderings, scenes, splats, strict=True)
        ]
    rgb = torch.cat([rendering.rgb for rendering in renderings])  # [F, H, W, 3]
    alpha = torch.cat([rendering.alpha for rendering in scene_renderings])
    depth = torch.cat([rendering.depth for rendering in scene_renderings])
    mean_depth = (alpha * depth).sum(0) / alpha.sum(0).clamp_min(1e-6)
    spread = rgb.clamp(0, 1).std(0, correction=0).mean(-1) if len(splats) > 1 else None
    return FlawedView(camera, rgb.mean(0), alpha.mean(0), mean_depth, (), spread)
