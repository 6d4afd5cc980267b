"""Structural similarity (Wang et al. 2004), as the 3DGS training code computes it, differentiable in the first image.

An 11x11 Gaussian window of sigma 1.5 with zero padding, per channel, constants (0.01)^2 and (0.03)^2 for images in
[0, 1]. On the CPU one fused kernel, elsewhere one grouped convolution.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

RADIUS, SIGMA = 5, 1.5  # px
K1, K2 = 0.01**2, 0.03**2


@cache
def window(dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
    """The normalised one-dimensional window, ``[11]``; made once for each device."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return (weights / weights.sum()).to(device, dtype)


def ssim(a: Tensor, b: Tensor, *, reduce: Literal["mean", "map"] = "mean") -> Tensor:
    """Similarity of two images ``[H, W, 3]`` in [0, 1]; gradients flow to ``a`` alone.

    Returns the mean over pixels and channels, or with ``reduce="map"`` the mean over channels at each pixel,
    ``[H, W]``. The window is symmetric in ``a`` and ``b``; which one is differentiated is the only difference.
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"ssim: images of shape {tuple(a.shape)} and {tuple(b.shape)}; wanted both [H, W, 3]")
    if reduce not in ("mean", "map"):
        raise ValueError(f"ssim: reduce = {reduce!r}; wanted 'mean' or 'map'")
    if a.device.type == "cpu":
        from splatfix.rendering.cpu.ssim import Similarity

        similarity = Similarity.apply(a.float(), b.detach().float())
    else:
        similarity = _by_convolution(a, b.detach())
    return similarity.mean() if reduce == "mean" else similarity.mean(dim=-1)


def l1_and_ssim(a: Tensor, b: Tensor, ssim_weight: float) -> Tensor:
    """``(1 - w) mean |a - b| + w (1 - ssim)`` of two images ``[H, W, 3]``, a scalar; gradients flow to ``a`` alone."""
    if a.device.type == "cpu":
        from splatfix.rendering.cpu.ssim import Photometric

        return Photometric.apply(a.float(), b.detach().float(), ssim_weight)
    return (1 - ssim_weight) * (a - b.detach()).abs().mean() + ssim_weight * (1 - ssim(a, b))


def _by_convolution(a: Tensor, b: Tensor) -> Tensor:
    """The similarity of every pixel and channel, ``[H, W, 3]``: five moments in one grouped, separable convolution."""
    h, w, channels = a.shape
    moments = torch.stack([a, b, a * a, b * b, a * b]).permute(0, 3, 1, 2).reshape(1, 5 * channels, h, w)
    weights = window(a.dtype, a.device).expand(5 * channels, 1, 1, -1)
    moments = functional.conv2d(moments, weights, padding=(0, RADIUS), groups=5 * channels)
    moments = functional.conv2d(moments, weights.transpose(2, 3), padding=(RADIUS, 0), groups=5 * channels)
    mean_a, mean_b, aa, bb, ab = moments.reshape(5, channels, h, w).permute(0, 2, 3, 1)
    numerator = (2 * mean_a * mean_b + K1) * (2 * (ab - mean_a * mean_b) + K2)
    return numerator / ((mean_a**2 + mean_b**2 + K1) * (aa - mean_a**2 + bb - mean_b**2 + K2))
