"""Structural similarity as a loss: fast, and differentiable in the first image.

The definition (window, constants, zero padding) is that of `metrics.ssim_map`. It is computed by a fused kernel on the
CPU and by a grouped convolution on other devices; the loss of a fit on CUDA by kernels of Triton, where that works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from splatfix.metrics import SSIM_C1, SSIM_C2, SSIM_RADIUS_PX, ssim_window

Loss = Callable[[Tensor, Tensor, float], Tensor]
log = logging.getLogger(__name__)


def ssim(a: Tensor, b: Tensor, *, reduce: Literal["mean", "map"] = "mean") -> Tensor:
    """Compute the similarity of two images ``[H, W, 3]`` in [0, 1], differentiable in ``a`` alone.

    Returns the mean over pixels and channels, or with ``reduce="map"`` the mean over channels at each pixel,
    ``[H, W]``. The value is symmetric in ``a`` and ``b``.
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"ssim: images of shape {tuple(a.shape)} and {tuple(b.shape)}; wanted both [H, W, 3]")
    if reduce not in ("mean", "map"):
        raise ValueError(f"ssim: reduce = {reduce!r}; wanted 'mean' or 'map'")
    if a.device.type == "cpu":
        from splatfix.rendering.cpu.ssim import Similarity

        similarity = Similarity.apply(a.float(), b.detach().float())
    else:
        similarity = _convolve(a, b.detach())
    return similarity.mean() if reduce == "mean" else similarity.mean(dim=-1)


def l1_and_ssim(a: Tensor, b: Tensor, ssim_weight: float) -> Tensor:
    """Compute ``(1 - w) mean |a - b| + w (1 - ssim)`` of two images ``[H, W, 3]``, differentiable in ``a`` alone."""
    return choose_loss(a.device)(a.float(), b.detach().float(), ssim_weight)


@lru_cache(maxsize=64)
def choose_loss(device: torch.device) -> Loss:
    """Choose what computes `l1_and_ssim` on a device: our kernels on the CPU, Triton's on CUDA, torch otherwise.

    Triton compiles its kernels at the first call, which is tried here. Where that fails, a warning says so.
    """
    if device.type == "cpu":
        from splatfix.rendering.cpu.ssim import Photometric as OnCpu

        return OnCpu.apply
    if device.type != "cuda" or find_spec("triton") is None:
        return l1_and_ssim_with_torch
    try:
        from splatfix.rendering.triton_ssim import Photometric as OnCuda

        image = torch.zeros(1, 1, 3, device=device, requires_grad=True)
        OnCuda.apply(image, image.detach(), 0.5)
    except Exception as error:  # of many kinds: no C compiler, an unknown GPU, another version of Triton
        reason = " ".join(str(error).split())[:200]
        log.warning("the loss is computed with torch, since Triton fails (%s: %s)", type(error).__name__, reason)
        return l1_and_ssim_with_torch
    return OnCuda.apply


def l1_and_ssim_with_torch(a: Tensor, b: Tensor, ssim_weight: float) -> Tensor:
    """Compute `l1_and_ssim` with the functions of torch, on any device."""
    return (1 - ssim_weight) * (a - b).abs().mean() + ssim_weight * (1 - _convolve(a, b).mean())


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    """Compute the similarity per pixel and channel, ``[H, W, 3]``: five moments in a grouped, separable convolution."""
    h, w, channels = a.shape
    moments = torch.stack([a, b, a * a, b * b, a * b]).permute(0, 3, 1, 2).reshape(1, 5 * channels, h, w)
    weights = ssim_window(a.dtype, a.device).expand(5 * channels, 1, 1, -1)
    moments = functional.conv2d(moments, weights, padding=(0, SSIM_RADIUS_PX), groups=5 * channels)
    moments = functional.conv2d(moments, weights.transpose(2, 3), padding=(SSIM_RADIUS_PX, 0), groups=5 * channels)
    mean_a, mean_b, aa, bb, ab = moments.reshape(5, channels, h, w).permute(0, 2, 3, 1)
    numerator = (2 * mean_a * mean_b + SSIM_C1) * (2 * (ab - mean_a * mean_b) + SSIM_C2)
    return numerator / ((mean_a**2 + mean_b**2 + SSIM_C1) * (aa - mean_a**2 + bb - mean_b**2 + SSIM_C2))
