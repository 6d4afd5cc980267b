"""Rendering on CUDA with gsplat, which is imported on the first call."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from splatfix.cameras import Camera, stack_cameras
from splatfix.gaussians import Gaussians, Splat

log = logging.getLogger(__name__)

NEEDLE_RATIO = 500.0  # of the longest to the shortest axis, above which gsplat's compensation is inexact
MAX_NEEDLE_SHARE = 0.001
MAX_PLACED = 1024  # groups of cameras that are kept on the device, of 2 kB each
DROPPED_LOGIT = -1e4  # opacity 0: gsplat skips Gaussians that cannot reach alpha 1/255


def render(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Tensor,  # [3]
    antialiased: bool,
    sh_degree: int,
    keep: Tensor | None,  # [N] bool
    absgrad: bool = False,
    with_depth: bool = True,
) -> tuple[Tensor, Tensor, Tensor, dict]:
    """Render like ``cpu.render``: in one call for the cameras of each size.

    gsplat derives the limits of its Jacobian from the size of the image, so each camera needs its own. Where there are
    several sizes, ``info`` has ``means2d`` and ``radii`` alone, and no gradient reaches that ``means2d``.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, camera in enumerate(cameras):
        groups[camera.width_px, camera.height_px].append(index)
    if len(groups) > 1:
        settings = (background, antialiased, sh_degree, keep, absgrad, with_depth)
        return _join([render(gaussians, [cameras[i] for i in same], *settings) for same in groups.values()], groups)
    from gsplat import rasterization

    g = gaussians
    width, height = cameras[0].width_px, cameras[0].height_px
    if len(g) == 0:  # gsplat divides by the number of Gaussians
        rgb, alpha, depth = (torch.zeros(len(cameras), height, width, k, device=g.device) for k in (3, 1, 1))
        empty = g.means[None, :, :2].expand(len(cameras), 0, 2)
        info = {"means2d": empty, "radii": torch.zeros(empty.shape, dtype=torch.int32, device=g.device)}
        return rgb + background, alpha[..., 0], depth[..., 0], info
    poses, intrinsics, centers = _place_cameras(tuple(cameras), g.device)
    logits = g.opacity_logits if keep is None else torch.where(keep, g.opacity_logits, DROPPED_LOGIT)
    images, alpha, info = rasterization(
        means=g.means,
        quats=g.quats,
        scales=g.scales,
        opacities=logits.sigmoid(),
        colors=_evaluate_colors(g, centers, sh_degree),
        viewmats=poses,
        Ks=intrinsics,
        width=width,
        height=height,
        backgrounds=background.expand(len(cameras), 3),
        render_mode="RGB+ED" if with_depth else "RGB",
        rasterize_mode="antialiased" if antialiased else "classic",
        packed=False,
        absgrad=absgrad,
    )
    alpha = alpha[..., 0]
    depth = images[..., 3] if with_depth else alpha.new_full((), math.nan).expand_as(alpha)
    return images[..., :3], alpha, depth, info


@lru_cache(maxsize=MAX_PLACED)
def _place_cameras(cameras: tuple[Camera, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Copy the poses, intrinsics and centers ``[C, 3]`` of cameras to a device: once for all steps of a fit."""
    with torch.inference_mode(False):  # a training may use them after code that is not
        poses, intrinsics = stack_cameras(cameras, device=device)
        centers = torch.tensor(np.stack([camera.center for camera in cameras]), dtype=torch.float32)
        if device.type == "cuda":
            centers = centers.pin_memory()
        return poses, intrinsics, centers.to(device, non_blocking=True)


def _evaluate_colors(gaussians: Gaussians, centers: Tensor, sh_degree: int) -> Tensor:
    """Evaluate the colors towards cameras, ``[C, N, 3]``. gsplat would do the same, but wait to invert the poses."""
    from gsplat import spherical_harmonics

    directions = gaussians.means - centers[:, None]
    is_elsewhere = directions.detach().norm(dim=-1) > 0  # at a camera's center, which cannot see it, gradients are NaN
    coefficients = torch.cat([gaussians.sh0, gaussians.sh_rest], dim=1).expand(len(centers), -1, -1, -1)
    colors = spherical_harmonics(sh_degree, directions, coefficients, masks=is_elsewhere)
    return (colors + 0.5).clamp_min(0.0)


def _join(
    parts: Sequence[tuple[Tensor, Tensor, Tensor, dict]], groups: Mapping[tuple[int, int], Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor, dict]:
    """Join the images of groups of cameras, in the order of the cameras, padded to the largest size.

    ``groups``: the indices of the cameras by their size, (width, height).
    """
    width, height = (max(size[axis] for size in groups) for axis in (0, 1))
    order = torch.tensor([i for same in groups.values() for i in same]).argsort().to(parts[0][0].device)
    rgb, alpha, depth = (
        torch.cat([_pad(images, width, height) for images in kind])[order]
        for kind in zip(*((rgb.movedim(-1, 1), alpha, depth) for rgb, alpha, depth, _ in parts), strict=True)
    )
    info = {name: torch.cat([part[-1][name] for part in parts])[order] for name in ("means2d", "radii")}
    return rgb.movedim(1, -1), alpha, depth, info


def _pad(images: Tensor, width: int, height: int) -> Tensor:
    """Pad images ``[..., H, W]`` with zeros on the right and at the bottom."""
    return functional.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))


def warn_of_needles(splat: Splat) -> None:
    """Log a warning if an antialiased splat has Gaussians that gsplat draws inexactly.

    Its compensation (Yu et al. 2024, eq. 9) divides determinants of covariances in float32: at an axis ratio of 665,
    colors are off by 0.004, at 13,000 by 0.14. The kernels for CPUs do this in float64.
    """
    if splat.mode != "antialiased" or len(splat.gaussians) == 0:
        return
    log_scales = splat.gaussians.log_scales.detach()
    is_needle = (log_scales.amax(dim=1) - log_scales.amin(dim=1)) > math.log(NEEDLE_RATIO)
    share = float(is_needle.float().mean())
    if share > MAX_NEEDLE_SHARE:
        log.warning(
            "%.1f %% of the Gaussians are more than %g times as long as thin: gsplat draws them inexactly in the mode "
            "antialiased; fit.mode classic is exact",
            100 * share,
            NEEDLE_RATIO,
        )
