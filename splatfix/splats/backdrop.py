"""The background of a scene: a plain one that the photos show, or a far shell of Gaussians.

Where few photos leave gaps, a splat is empty and renders show black holes. A shell far behind the scene, initially of
the photos' mean color, is a better guess; it consists of Gaussians, so it is trained, exported and shown like the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.gaussians import Gaussians, Splat, make_isotropic_gaussians
from splatfix.shapes import Float
from splatfix.splats.hull import sample_colors

BORDER_PX = 2  # width of the rim of a photo that decides whether its background is plain
TOLERANCE = 10 / 255  # largest difference of a channel from the plain color
LEAST_PLAIN = 0.9  # share of all rims that must have it
OPACITY = 0.95
GAP = 1.6  # least ratio of the distances on both sides of the space before a shell
LEAST_SHELL = 50  # Gaussians; fewer far ones are strays
OVERLAP = 0.8  # standard deviation of a shell Gaussian over the spacing of its neighbours


def find_plain_color(photos: Sequence[Float[ndarray, "_ _ 3"]]) -> Float[ndarray, "3"] | None:
    """Find the one color that nearly all of the photos' rims have, as for objects on white; None where they differ."""
    rims = np.concatenate([photo[_rim(photo.shape[:2])] for photo in photos])
    color = np.median(rims, axis=0)
    plain = (np.abs(rims - color).max(-1) <= TOLERANCE).mean()
    return color.astype(np.float32) if plain >= LEAST_PLAIN else None


def mask_plain_background(photo: Float[ndarray, "H W 3"], color: Float[ndarray, "3"]) -> Float[ndarray, "H W"]:
    """Mask that is 1 on the object: everywhere but in plain regions that reach the rim."""
    from scipy import ndimage  # here: kernels and fits import with torch, numpy and numba alone

    plain = np.abs(photo - color).max(-1) <= TOLERANCE
    regions, _ = ndimage.label(plain)
    outside = np.unique(regions[_rim(plain.shape) & plain])
    return (~np.isin(regions, outside[outside > 0])).astype(np.float32)


def make_shell(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    points: Float[ndarray, "P 3"],
    *,
    distance: float,
    num: int,
    sh_degree: int,
    color: Float[ndarray, "3"] | None = None,
    device: torch.device | str = "cpu",
) -> Gaussians:
    """Make round, overlapping, nearly opaque Gaussians on a sphere around the cameras (a Fibonacci lattice).

    The radius is ``distance`` times the distance of the farthest point or camera, so that no camera is outside. Their
    color is ``color``, or without one that of the photos that show them, else the photos' mean.
    """
    k = np.arange(num) + 0.5
    polar, azimuth = np.arccos(1 - 2 * k / num), np.pi * (3 - np.sqrt(5)) * k
    directions = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    centers = np.stack([camera.center for camera in cameras])
    radius = distance * float(np.linalg.norm(np.concatenate([centers, points]) - centers.mean(0), axis=1).max())
    positions = centers.mean(0) + radius * directions
    if color is None:
        mean = np.mean([photo.mean((0, 1)) for photo in photos], axis=0)
        looked_at = np.stack([camera.sees(positions) for camera in cameras], axis=1)
        colors = sample_colors(positions, looked_at, cameras, photos)
        colors = np.where(looked_at.any(axis=1, keepdims=True), colors, mean)
    else:
        colors = np.tile(color, (num, 1))
    spacing = radius * np.sqrt(4 * np.pi / num)
    log_scales = np.full(num, np.log(OVERLAP * spacing))
    return make_isotropic_gaussians(positions, colors, log_scales, opacity=OPACITY, sh_degree=sh_degree, device=device)


def remove_shell(gaussians: Gaussians) -> Gaussians:
    """Remove the shell (`make_shell`), recognized by the empty space in front of it, if there is one."""
    distances = (gaussians.means - gaussians.means.median(0).values).norm(dim=1)
    ordered = distances.sort().values
    first, last = len(ordered) // 4, len(ordered) - LEAST_SHELL
    if last <= first:
        return gaussians
    ratios = ordered[first + 1 : last + 1] / ordered[first:last].clamp_min(1e-12)
    widest = int(ratios.argmax())
    if float(ratios[widest]) < GAP:
        return gaussians
    return gaussians[distances <= ordered[first + widest]]


def remove_backdrop(splat: Splat) -> Splat:
    """The splat without the shell that stands in for a background, over black; itself where there is no shell."""
    if splat.background is not None:
        return splat
    gaussians = remove_shell(splat.gaussians)
    return splat if gaussians is splat.gaussians else replace(splat, gaussians=gaussians)


def _rim(shape: tuple[int, ...]) -> ndarray:
    rim = np.ones(shape, bool)
    rim[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    return rim
