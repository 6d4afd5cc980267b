"""Render splats, and compute SSIM as a loss. Only this module chooses the rasterizer.

``render`` uses gsplat on CUDA and the kernels of `rendering.cpu` on the CPU. Both use the same constants, so that a
splat fitted on one looks the same on the other. ``ssim`` and its loss are here because they have CPU kernels, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.gaussians import RenderMode, Splat
from splatfix.rendering.ssim import l1_and_ssim, ssim

__all__ = ["Rendering", "is_repeatable", "l1_and_ssim", "render", "ssim"]


@dataclass(frozen=True, eq=False)
class Rendering:
    """Images of ``C`` cameras. Smaller images are padded with 0 on the right and at the bottom.

    Attributes:
        rgb: colors over the background, ``[C, H, W, 3]``; not clamped to 1.
        alpha: accumulated opacity, ``[C, H, W]``.
        depth: expected depth along the optical axis where alpha > 0, else 0, in world units, ``[C, H, W]``; NaN if it
            was not asked for.
        sizes: (width, height) of each camera, in px.
        info: input of gsplat's strategies: ``means2d [C, N, 2]`` (in the graph), ``radii [C, N, 2]`` (int32 px, 0 for
            unseen Gaussians), ``width``, ``height``, ``n_cameras``, ``gaussian_ids``; also depths, conics, opacities.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    sizes: tuple[tuple[int, int], ...]
    info: dict

    def view(self, i: int) -> Rendering:
        """Select the images of camera ``i`` (C = 1), without padding. ``info`` stays that of all cameras."""
        i = range(len(self.sizes))[i]
        w, h = self.sizes[i]
        one = slice(i, i + 1)
        return Rendering(
            self.rgb[one, :h, :w], self.alpha[one, :h, :w], self.depth[one, :h, :w], (self.sizes[i],), self.info
        )


def render(
    splat: Splat,
    cameras: Sequence[Camera],
    *,
    sh_degree: int | None = None,
    keep: Tensor | None = None,
    absgrad: bool = False,
    with_depth: bool = True,
    backend: Literal["auto", "cuda", "cpu"] = "auto",
) -> Rendering:
    """Render a splat from each camera, over its background and in its mode (Kerbl et al. 2023).

    Differentiable in all parameters of the Gaussians and in the background.

    Args:
        splat: N Gaussians, float32, with mode and background.
        cameras: at least one, of any sizes.
        sh_degree: highest degree of spherical harmonics to use; None uses all that are stored.
        keep: boolean ``[N]``; False makes a Gaussian invisible in this call (dropout).
        absgrad: also give ``info["means2d"]`` an ``absgrad`` in the backward pass, summed absolute values of its
            per-pixel gradients (AbsGS, Ye et al. 2024), for gsplat's DefaultStrategy. CUDA only.
        with_depth: False leaves the depth out, which gsplat then does not compute; it is NaN everywhere.
        backend: ``auto`` chooses by the device of the Gaussians.

    Raises:
        ValueError: no camera, an unknown mode or backend, or an argument that does not fit the Gaussians.
    """
    if not cameras:
        raise ValueError("render: no cameras; wanted at least one")
    if splat.mode not in get_args(RenderMode):
        raise ValueError(f"render: mode = {splat.mode!r}; wanted 'classic' or 'antialiased'")
    gaussians = splat.gaussians
    degree = gaussians.sh_degree if sh_degree is None else sh_degree
    if not 0 <= degree <= gaussians.sh_degree:
        raise ValueError(f"render: sh_degree = {degree}; the Gaussians store degree 0 to {gaussians.sh_degree}")
    if keep is not None and (keep.dtype != torch.bool or keep.shape != (len(gaussians),)):
        raise ValueError(f"render: keep is {keep.dtype} {tuple(keep.shape)}; wanted torch.bool ({len(gaussians)},)")
    if splat.background is None:
        background = torch.zeros(3, device=gaussians.device)  # made there: a copy of it would wait for the device
    else:
        background = torch.as_tensor(splat.background)
    if background.shape != (3,):
        raise ValueError(f"render: background has shape {tuple(background.shape)}; wanted three numbers, (3,)")
    background = background.to(gaussians.device, torch.float32)

    arguments = (gaussians, cameras, background, splat.mode == "antialiased", degree, keep)
    if _choose_backend(gaussians.device, backend) == "cuda":
        from splatfix.rendering import cuda

        rgb, alpha, depth, info = cuda.render(*arguments, absgrad=absgrad, with_depth=with_depth)
    else:
        from splatfix.rendering import cpu

        if absgrad:
            raise ValueError("render: absgrad = True is only supported on CUDA; use absgrad = False on the CPU")
        rgb, alpha, depth, info = cpu.render(*arguments)
        if not with_depth:
            depth = torch.full((), math.nan).expand_as(depth)
    info = info | {
        "width": rgb.shape[2],
        "height": rgb.shape[1],
        "n_cameras": len(cameras),
        "gaussian_ids": None,  # only gsplat's packed mode has any
    }
    return Rendering(rgb, alpha, depth, tuple((c.width_px, c.height_px) for c in cameras), info)


def is_repeatable(device: torch.device) -> bool:
    """Whether a fit that is run again on a device gives the same bytes.

    On CUDA it does not: gsplat adds up gradients with atomics, in an order that changes from run to run.
    """
    return device.type == "cpu"


def _choose_backend(device: torch.device, wanted: str) -> Literal["cuda", "cpu"]:
    """Choose the rasterizer by the device of the Gaussians."""
    if wanted not in ("auto", "cuda", "cpu"):
        raise ValueError(f"render: backend = {wanted!r}; wanted 'auto', 'cuda' or 'cpu'")
    if device.type not in ("cuda", "cpu"):
        raise ValueError(f"render: the Gaussians are on {device}; wanted cuda or cpu (move them with .to)")
    if wanted not in ("auto", device.type):
        raise ValueError(f"render: backend = {wanted!r} but the Gaussians are on {device}; move them with .to")
    return "cuda" if device.type == "cuda" else "cpu"
