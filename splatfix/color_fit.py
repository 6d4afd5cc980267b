"""Color maps between two images of one view: exposure, white balance and their drift, fitted robustly.

Restorers that draw each view afresh change its color and light a little. A map with few parameters, fitted where both
images show the same thing, measures that change and takes it back; detail that only one of them has stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from splatfix.shapes import Bool, Float

ColorForm = Literal["gain_bias", "gain", "identity"]
Channels = tuple[float, float, float]  # red, green, blue

MIN_PIXELS = 64  # reliable pixels below which nothing is fitted
MIN_BRIGHTNESS = 0.02  # mean of a channel below which its gain is 1
SHRINKAGE = 1e-4  # variance of color below which a form gives way to the next simpler one
SATURATION = 1.5 / 255  # distance from 0 or 1 within which a channel counts as clipped
MIN_SCALE = 1 / 255  # least scale of residuals: rounding to 8 bits is no outlier
ITERATIONS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class ColorFit:
    """A color map per channel, ``color -> gain * color + bias``, and what it was fitted to.

    Attributes:
        gain: per channel, without unit.
        bias: per channel, in color from 0 to 1.
        form: what was fitted: ``gain_bias``, ``gain`` (no bias: the colors do not vary), or ``identity`` (too few
            reliable pixels, or a black image).
        num_pixels: number of pixels with weight and no clipped channel.
        inlier_share: share of their weight that the map explains, in [0, 1]; 0 for the identity.
    """

    gain: Channels
    bias: Channels
    form: ColorForm
    num_pixels: int
    inlier_share: float

    def apply(self, image: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
        """Map the colors of an image; values may leave [0, 1]."""
        return image * image.new_tensor(self.gain) + image.new_tensor(self.bias)


def fit_color(
    source: Float[Tensor, "H W 3"],
    target: Float[Tensor, "H W 3"],
    weights: Float[Tensor, "H W"] | None = None,
) -> ColorFit:
    """Fit the color map that takes ``source`` to ``target``, by weighted robust least squares.

    Outliers lose their weight by iterative reweighting with the Geman-McClure function, whose scale follows the
    median residual; clipped pixels are left out. Gain and bias are regularized towards a gain alone, and that towards
    the identity, so that colors which hardly vary do not decide about a slope: with a variance of `SHRINKAGE` it is
    half way between the two.

    Args:
        source: image in [0, 1], ``[H, W, 3]``.
        target: image in [0, 1] of the same size.
        weights: reliability of each pixel, 0 or more; None for all alike.

    Raises:
        ValueError: images or weights whose shapes do not match.
    """
    _check(source, target, weights)
    x, y = (image.detach().double().reshape(-1, 3) for image in (source, target))
    base = torch.ones_like(x[:, 0]) if weights is None else weights.detach().to(x).reshape(-1)
    usable = (base > 0) & is_unclipped(x) & is_unclipped(y)
    x, y, base = x[usable], y[usable], base[usable]
    if len(x) < MIN_PIXELS:
        return _identity(len(x))
    middle = torch.stack([_weighted_median(x[:, c], base) for c in range(3)])
    if bool((middle < MIN_BRIGHTNESS).all()):
        return _identity(len(x))
    gain, bias = _median_gain(x, y, base), torch.zeros_like(middle)
    found: ColorForm = "gain"
    robust = base
    for _ in range(ITERATIONS):
        residual = (x * gain + bias - y).norm(dim=1)
        scale = max(2 * 1.4826 * float(_weighted_median(residual, base)), MIN_SCALE)
        robust = base / (1 + (residual / scale) ** 2) ** 2
        gain, bias, found = _solve(x, y, robust)
    share = float(robust.sum() / base.sum())
    return ColorFit(gain=to_channels(gain), bias=to_channels(bias), form=found, num_pixels=len(x), inlier_share=share)


def is_unclipped(colors: Float[Tensor, "*shape 3"]) -> Bool[Tensor, "*shape"]:
    """Tell which colors have no channel at 0 or 1, where clipping has cut the truth off."""
    return ((colors > SATURATION) & (colors < 1 - SATURATION)).all(dim=-1)


def _solve(
    x: Float[Tensor, "P 3"], y: Float[Tensor, "P 3"], weights: Float[Tensor, " P"]
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"], ColorForm]:
    """Regularized least squares of one iteration: the gain, then gain and bias around it."""
    weights = (weights / weights.sum())[:, None]
    x_mean, y_mean = (weights * x).sum(0), (weights * y).sum(0)
    gain = ((weights * x * y).sum(0) + SHRINKAGE) / ((weights * x * x).sum(0) + SHRINKAGE)
    gain = torch.where(x_mean < MIN_BRIGHTNESS, torch.ones_like(gain), gain)
    dx, dy = x - x_mean, y - y_mean
    variance = (weights * dx * dx).sum(0)
    if bool((variance < SHRINKAGE / 10).all()):
        return gain, torch.zeros_like(gain), "gain"
    slope = ((weights * dx * dy).sum(0) + SHRINKAGE * gain) / (variance + SHRINKAGE)
    return slope, y_mean - slope * x_mean, "gain_bias"


def _median_gain(x: Float[Tensor, "P 3"], y: Float[Tensor, "P 3"], weights: Float[Tensor, " P"]) -> Float[Tensor, "3"]:
    """Where the iteration starts: the weighted median of the ratios of each channel, which few outliers move."""
    gains = []
    for channel in range(3):
        bright = x[:, channel] > MIN_BRIGHTNESS
        ratio = y[bright, channel] / x[bright, channel]
        gains.append(_weighted_median(ratio, weights[bright]) if len(ratio) else torch.ones(()).to(x))
    return torch.stack(gains)


def _weighted_median(values: Float[Tensor, " P"], weights: Float[Tensor, " P"]) -> Float[Tensor, ""]:
    ordered, order = values.sort()
    cumulative = weights[order].cumsum(0)
    return ordered[int(torch.searchsorted(cumulative, cumulative[-1:] / 2).clamp(max=len(ordered) - 1))]


def _identity(num_pixels: int) -> ColorFit:
    return ColorFit(
        gain=(1.0, 1.0, 1.0), bias=(0.0, 0.0, 0.0), form="identity", num_pixels=num_pixels, inlier_share=0.0
    )


def to_channels(values: Float[Tensor, "3"]) -> Channels:
    """A value per channel, as floats."""
    red, green, blue = values.tolist()
    return red, green, blue


def _check(source: Tensor, target: Tensor, weights: Tensor | None) -> None:
    if source.shape != target.shape or source.dim() != 3 or source.shape[-1] != 3:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"color fit of images of shapes {shapes}; wanted two of the same [H, W, 3]")
    if weights is not None and weights.shape != source.shape[:2]:
        shape = tuple(source.shape[:2])
        raise ValueError(f"color fit: weights of shape {tuple(weights.shape)}; wanted {shape} like the images")
