"""The background of a scene: a plain color in the photos, or a far shell of Gaussians.

Where no photo sees the scene, a splat is empty and its renders have black holes. A shell far behind the scene, at first
of the mean color of the photos, is a better guess. It consists of Gaussians, so it is trained and exported like others.
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
from splatfix.splats.hull import find_seen_valid, find_valid, sample_colors

BORDER_PX = 2  # width of the border of a photo that decides whether its background is plain
COLOR_TOLERANCE = 10 / 255  # largest difference of a channel from the plain color
MIN_PLAIN_SHARE = 0.9  # of the border pixels of all photos
SHELL_OPACITY = 0.95
MIN_GAP_RATIO = 1.6  # of the distance of the shell to that of the farthest Gaussian in front of it
MIN_SHELL_SIZE = 50  # Gaussians; fewer far ones are floaters
SHELL_OVERLAP = 0.8  # standard deviation of a shell Gaussian over the distance between neighbors


def find_plain_color(
    photos: Sequence[Float[ndarray, "_ _ 3"]], validities: Sequence[Float[ndarray, "_ _"] | None] | None = None
) -> Float[ndarray, "3"] | None:
    """Find the color of a plain background: that of nearly all valid border pixels of all photos.

    None if there is none, or if no border pixel is valid.
    """
    borders = np.concatenate(
        [
            photo[_border_mask(photo.shape[:2]) & find_valid(photo, validity)]
            for photo, validity in zip(photos, validities or [None] * len(photos), strict=True)
        ]
    )
    if not len(borders):
        return None
    color = np.median(borders, axis=0)
    plain_share = (np.abs(borders - color).max(-1) <= COLOR_TOLERANCE).mean()
    return color.astype(np.float32) if plain_share >= MIN_PLAIN_SHARE else None


def mask_plain_background(
    photo: Float[ndarray, "H W 3"], color: Float[ndarray, "3"], validity: Float[ndarray, "H W"] | None = None
) -> Float[ndarray, "H W"]:
    """Compute a mask that is 1 on the object: everywhere but in regions of the plain color that reach the border.

    Ignored pixels may hide the object, so the mask is 1 there too.
    """
    from scipy import ndimage  # here, because kernels and fits must import with torch, numpy and numba alone

    is_plain = np.abs(photo - color).max(-1) <= COLOR_TOLERANCE
    regions, _ = ndimage.label(is_plain)
    outside = np.unique(regions[_border_mask(is_plain.shape) & is_plain])
    return (~np.isin(regions, outside[outside > 0]) | ~find_valid(photo, validity)).astype(np.float32)


def make_shell(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    points: Float[ndarray, "P 3"],
    *,
    distance: float,
    num: int,
    sh_degree: int,
    color: Float[ndarray, "3"] | None = None,
    validities: Sequence[Float[ndarray, "_ _"] | None] | None = None,
    device: torch.device | str = "cpu",
) -> Gaussians:
    """Make round, overlapping, nearly opaque Gaussians on a sphere around the cameras (a Fibonacci lattice).

    The radius is ``distance`` times the distance of the farthest point or camera from the mean camera center, so that
    no camera is outside. Without ``color`` each Gaussian has the color of the photos that see it, or else the
    mean color of all photos, without their ignored pixels.
    """
    k = np.arange(num) + 0.5
    polar, azimuth = np.arccos(1 - 2 * k / num), np.pi * (3 - np.sqrt(5)) * k
    directions = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    centers = np.stack([camera.center for camera in cameras])
    radius = distance * float(np.linalg.norm(np.concatenate([centers, points]) - centers.mean(0), axis=1).max())
    positions = centers.mean(0) + radius * directions
    if color is None:
        validities = validities or [None] * len(photos)
        mean = np.mean([_mean_color(*each) for each in zip(photos, validities, strict=True)], axis=0)
        seen = np.stack([camera.sees(positions) for camera in cameras], axis=1)
        seen &= find_seen_valid(positions, cameras, validities)
        colors = sample_colors(positions, seen, cameras, photos)
        colors = np.where(seen.any(axis=1, keepdims=True), colors, mean)
    else:
        colors = np.tile(color, (num, 1))
    spacing = radius * np.sqrt(4 * np.pi / num)
    log_scales = np.full(num, np.log(SHELL_OVERLAP * spacing))
    return make_isotropic_gaussians(
        positions, colors, log_scales, opacity=SHELL_OPACITY, sh_degree=sh_degree, device=device
    )


def remove_shell(gaussians: Gaussians) -> Gaussians:
    """Remove the shell that `make_shell` made, if there is one: it is recognized by the empty space in front of it."""
    distances = (gaussians.means - gaussians.means.median(0).values).norm(dim=1)
    sorted_distances = distances.sort().values
    first, last = len(sorted_distances) // 4, len(sorted_distances) - MIN_SHELL_SIZE
    if last <= first:
        return gaussians
    ratios = sorted_distances[first + 1 : last + 1] / sorted_distances[first:last].clamp_min(1e-12)
    widest = int(ratios.argmax())
    if float(ratios[widest]) < MIN_GAP_RATIO:
        return gaussians
    return gaussians[distances <= sorted_distances[first + widest]]


def remove_backdrop(splat: Splat) -> Splat:
    """Remove the shell of a splat without a background color. Returns the splat itself if it has no shell."""
    if splat.background is not None:
        return splat
    gaussians = remove_shell(splat.gaussians)
    return splat if gaussians is splat.gaussians else replace(splat, gaussians=gaussians)


def _mean_color(photo: Float[ndarray, "H W 3"], validity: Float[ndarray, "H W"] | None) -> Float[ndarray, "3"]:
    """Compute the mean color of a photo without its ignored pixels."""
    if validity is None:
        return photo.mean((0, 1))
    return np.average(photo.reshape(-1, 3), axis=0, weights=validity.ravel())


def _border_mask(shape: tuple[int, ...]) -> ndarray:
    """Mask of the pixels within ``BORDER_PX`` of the edge, boolean."""
    mask = np.ones(shape, bool)
    mask[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    return mask
