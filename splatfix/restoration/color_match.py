"""Take the color drift of a repair back: fit its colors to those of the render, where the render can be relied on."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.color_fit import ColorFit, fit_color, is_unclipped
from splatfix.flawed import FlawedView
from splatfix.restoration.restorer import Repaired
from splatfix.shapes import Float

BLOCK_PX = 4  # colors are compared as means of blocks, since a repair is sharper than its render
MIN_ALPHA = 0.8  # a pixel's weight rises from 0 at this alpha to 1 at full opacity
SPREAD_SCALE = 0.05  # standard deviation between the fits at which a pixel's weight falls to 1/e


def match_color(
    view: FlawedView, repaired: Repaired, form: Literal["affine", "gain_bias"]
) -> tuple[Repaired, ColorFit]:
    """Map a repair's colors to those of its render; also the map.

    The map is the same for the whole image, so what the repair changes in places stays. It is fitted where alpha is
    high and the fits agree (`measure_reliability`), and where both images show the same: other pixels are outliers of
    the fit, which `splatfix.color_fit.fit_color` does not follow.
    """
    source, target = repaired.rgb.detach(), view.rgb.detach().clamp(0, 1)
    usable = is_unclipped(source) & is_unclipped(target)
    weights = measure_reliability(view) * usable
    source, target, weights = _block_means(source, target, weights)
    fit = fit_color(source, target, weights, form=form)
    return replace(repaired, rgb=fit.apply(repaired.rgb).clamp(0, 1)), fit


def measure_reliability(view: FlawedView) -> Float[Tensor, "H W"]:
    """How far the colors of a render can be relied on, in [0, 1]: opaque, and alike in all fits."""
    opaque = ((view.alpha.detach() - MIN_ALPHA) / (1 - MIN_ALPHA)).clamp(0, 1)
    return opaque if view.spread is None else opaque * torch.exp(-view.spread / SPREAD_SCALE)


def _block_means(
    source: Float[Tensor, "H W 3"], target: Float[Tensor, "H W 3"], weights: Float[Tensor, "H W"]
) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "h w 3"], Float[Tensor, "h w"]]:
    """Weighted means of both images over square blocks, and the mean weight of each block."""
    layers = torch.cat([source, target, torch.ones_like(source[..., :1])], dim=-1) * weights[..., None]
    planes = F.avg_pool2d(layers.permute(2, 0, 1)[None], BLOCK_PX, ceil_mode=True)[0].permute(1, 2, 0)
    total = planes[..., 6]
    means = planes[..., :6] / total.clamp(min=1e-9)[..., None]
    return means[..., :3], means[..., 3:], total
