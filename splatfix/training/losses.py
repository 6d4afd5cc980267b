"""Losses of repaired images ``[B, 3, H, W]``, with pixel weights ``[B, 1, H, W]`` (0 where the photo is unknown)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from splatfix.shapes import Float

CHARBONNIER_EPS = 1e-3
MIN_ERROR = 1e-3  # added to the target of the error prediction: a quarter of an 8-bit step


def charbonnier(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean of a smooth L1: ``sqrt(difference^2 + eps^2)`` (Charbonnier et al. 1994)."""
    return _mean(((a - b).square() + CHARBONNIER_EPS**2).sqrt(), weight)


def l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference."""
    return _mean((a - b).abs(), weight)


def psnr_loss(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean negative PSNR in dB, as NAFNet was trained; divided by 100 to be about as large as the other losses."""
    squared = (a - b).square().mean(1, keepdim=True) * weight
    mse = squared.sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1)
    return 0.01 * 10 / math.log(10) * (mse + 1e-8).log().mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "psnr": psnr_loss,
}


def edge_loss(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical finite differences."""
    difference = a - b
    across = (difference[..., 1:] - difference[..., :-1]).abs()
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs()
    return _mean(across, weight[..., 1:] * weight[..., :-1]) + _mean(down, weight[..., 1:, :] * weight[..., :-1, :])


def error_loss(rgb: Tensor, log_error: Float[Tensor, "B 1 H W"], clean: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error of the predicted log error. The error itself is the target and gets no gradient."""
    error = (rgb.detach() - clean).abs().mean(1, keepdim=True)
    return _mean((log_error - (error + MIN_ERROR).log()).abs(), weight)


def _mean(values: Float[Tensor, "B C H W"], weight: Float[Tensor, "B 1 H W"]) -> Tensor:
    """Mean over the images of their weighted means, so that a batch may be split in any way."""
    total = (values * weight).sum((1, 2, 3)) / values.shape[1]
    return (total / weight.sum((1, 2, 3)).clamp(min=1)).mean()
