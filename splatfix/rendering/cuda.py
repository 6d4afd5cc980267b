"""Rendering on CUDA with gsplat, which is imported on the first call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splatfix.cameras import Camera, stack_cameras
from splatfix.gaussians import Gaussians

DROPPED_LOGIT = -1e4  # opacity 0: gsplat skips Gaussians that cannot reach alpha 1/255


def render(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Tensor,  # [3]
    antialiased: bool,
    sh_degree: int,
    keep: Tensor | None,  # [N] bool
    absgrad: bool = False,
) -> tuple[Tensor, Tensor, Tensor, dict]:
    """Render like ``cpu.render``: all cameras in one call at the largest size, with the padding set to zero.

    gsplat derives the limits of its Jacobian from that common size. So the image of a smaller camera can differ
    slightly, near its right and lower border, from the same camera rendered alone.
    """
    from gsplat import rasterization

    g = gaussians
    width = max(camera.width_px for camera in cameras)
    height = max(camera.height_px for camera in cameras)
    if len(g) == 0:  # gsplat divides by the number of Gaussians
        rgb, alpha, depth = (torch.zeros(len(cameras), height, width, k, device=g.device) for k in (3, 1, 1))
        empty = g.means[None, :, :2].expand(len(cameras), 0, 2)
        info = {"means2d": empty, "radii": torch.zeros(empty.shape, dtype=torch.int32, device=g.device)}
        return *_clear_padding(rgb + background, alpha[..., 0], depth[..., 0], cameras), info
    poses, intrinsics = stack_cameras(cameras, device=g.device)
    logits = g.opacity_logits if keep is None else torch.where(keep, g.opacity_logits, DROPPED_LOGIT)
    images, alpha, info = rasterization(
        means=g.means,
        quats=g.quats,
        scales=g.scales,
        opacities=logits.sigmoid(),
        colors=torch.cat([g.sh0, g.sh_rest], dim=1),
        viewmats=poses,
        Ks=intrinsics,
        width=width,
        height=height,
        sh_degree=sh_degree,
        backgrounds=background.expand(len(cameras), 3),
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if antialiased else "classic",
        packed=False,
        absgrad=absgrad,
    )
    return *_clear_padding(images[..., :3], alpha[..., 0], images[..., 3], cameras), info


def _clear_padding(
    rgb: Tensor,  # [C, H, W, 3]
    alpha: Tensor,  # [C, H, W]
    depth: Tensor,  # [C, H, W]
    cameras: Sequence[Camera],
) -> tuple[Tensor, Tensor, Tensor]:
    """Set pixels outside of cameras that are smaller than the largest one to zero."""
    if len({(camera.width_px, camera.height_px) for camera in cameras}) == 1:
        return rgb, alpha, depth
    columns = torch.arange(rgb.shape[2], device=rgb.device)
    rows = torch.arange(rgb.shape[1], device=rgb.device)[:, None]
    inside = torch.stack([(columns < c.width_px) & (rows < c.height_px) for c in cameras])
    return rgb * inside[..., None], alpha * inside, depth * inside
