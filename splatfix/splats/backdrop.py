"""What lies behind everything: a plain background told from the photos, and a far shell of Gaussians.

Where a few photos do not reach, a splat has nothing, and renders show a black hole. A shell far behind the scene, of
the photos' mean colour at first, is the better guess; being Gaussians it is trained, exported and shown like the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.gaussians import SH_C0, Gaussians, Splat
from splatfix.shapes import Float
from splatfix.splats.hull import sampled_colors

BORDER_PX = 2  # the rim of a photo that tells whether its background is plain
TOLERANCE = 10 / 255  # largest difference of a channel from the plain colour
LEAST_PLAIN = 0.9  # share of all rims that must have it
OPACITY = 0.95
GAP = 1.6  # least ratio of the distances on both sides of the space before a shell
LEAST_SHELL = 50  # Gaussians; fewer far ones are strays
OVERLAP = 0.8  # standard deviation of a shell Gaussian over the spacing of its neighbours


def plain_color(photos: Sequence[Float[ndarray, "_ _ 3"]]) -> Float[ndarray, "3"] | None:
    """The one colour that nearly all of the photos' rims have, as behind objects on white; None where they differ."""
    rims = np.concatenate([photo[_rim(photo.shape[:2])] for photo in photos])
    color = np.median(rims, axis=0)
    plain = (np.abs(rims - color).max(-1) <= TOLERANCE).mean()
    return color.astype(np.float32) if plain >= LEAST_PLAIN else None


def plain_mask(photo: Float[ndarray, "H W 3"], color: Float[ndarray, "3"]) -> Float[ndarray, "H W"]:
    """1 on the object: everything but the plain regions that reach the rim."""
    from scipy import ndimage  # here: kernels and fits import with torch, numpy and numba alone

    plain = np.abs(photo - color).max(-1) <= TOLERANCE
    regions, _ = ndimage.label(plain)
    outside = np.unique(regions[_rim(plain.shape) & plain])
    return (~np.isin(regions, outside[outside > 0])).astype(np.float32)


def shell(
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
    """Round, overlapping, nearly opaque Gaussians on a sphere around the cameras (a Fibonacci lattice).

    Its radius is ``distance`` times that of the farthest point or camera, far enough for no camera to stand in it.
    They have ``color``; without one, that of the photos where these look at them, else the photos' mean.
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
        colors = sampled_colors(positions, looked_at, cameras, photos)
        colors = np.where(looked_at.any(axis=1, keepdims=True), colors, mean)
    else:
        colors = np.tile(color, (num, 1))
    spacing = radius * np.sqrt(4 * np.pi / num)

    def tensor(values: ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return Gaussians(
        means=tensor(positions),
        log_scales=torch.full((num, 3), float(np.log(OVERLAP * spacing)), device=device),
        quats=tensor(np.tile([1.0, 0.0, 0.0, 0.0], (num, 1))),
        opacity_logits=torch.full((num,), float(np.log(OPACITY / (1 - OPACITY))), device=device),
        sh0=tensor((colors - 0.5) / SH_C0)[:, None, :],
        sh_rest=torch.zeros(num, (sh_degree + 1) ** 2 - 1, 3, device=device),
    )


def without_shell(gaussians: Gaussians) -> Gaussians:
    """The Gaussians without a `shell` around them, told by the empty space before it; all where there is none."""
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


def without_backdrop(splat: Splat) -> Splat:
    """The splat without the shell that stands in for a background, over black; itself where there is no shell."""
    if splat.background is not None:
        return splat
    gaussians = without_shell(splat.gaussians)
    return splat if gaussians is splat.gaussians else replace(splat, gaussians=gaussians)


def _rim(shape: tuple[int, ...]) -> ndarray:
    rim = np.ones(shape, bool)
    rim[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    return rim
