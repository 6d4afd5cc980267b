"""Take the color drift of a repair back: a gain per channel, by the photos that see the same points.

The photos are the only evidence of the true colors of a novel view. Warped into it by the depth of a sparse fit they
are never quite in place, so a regression against them (and even more so against the flawed render) finds too small a
gain and too large an offset, and does more harm than the drift. The median ratio of the pixels that agree does not.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from splatfix.color_fit import ColorFit, is_unclipped, to_channels
from splatfix.flawed import FlawedView
from splatfix.restoration.quality import warp_references
from splatfix.restoration.restorer import Repaired
from splatfix.shapes import Float

MIN_SEEN = 0.5  # validity of a warped photo's pixel
MIN_BRIGHTNESS = 0.03  # of a channel, below which a ratio says little
MAX_DIFFERENCE = 0.06  # of a channel, up to which two pixels show the same point
MIN_PIXELS = 64
MIN_INLIER_SHARE = 0.25  # below this the photos do not see what the repair shows
ITERATIONS = 6


def match_color(view: FlawedView, repaired: Repaired) -> tuple[Repaired, ColorFit]:
    """Scale the channels of a repair so that they agree with the photos; also the map.

    The map is the same for the whole image, so what the repair changes in places stays. It is the identity where too
    few pixels agree with a photo.
    """
    source, target = _paired_colors(view, repaired.rgb.detach().float())
    num = len(source)
    gain, inlier_share = torch.ones(3), 0.0
    if num >= MIN_PIXELS:
        gain, inlier_share = _median_gain(source, target)
        if inlier_share < MIN_INLIER_SHARE:
            gain = torch.ones(3)
    is_identity = bool((gain == 1).all())
    fit = ColorFit(
        gain=to_channels(gain),
        bias=(0.0, 0.0, 0.0),
        form="identity" if is_identity else "gain",
        num_pixels=num,
        inlier_share=inlier_share,
    )
    return replace(repaired, rgb=fit.apply(repaired.rgb).clamp(0, 1)), fit


def _paired_colors(view: FlawedView, rgb: Float[Tensor, "H W 3"]) -> tuple[Float[Tensor, "P 3"], Float[Tensor, "P 3"]]:
    """The colors of the repair and of the photos at pixels that a photo sees, neither clipped nor dark."""
    sources, targets = [rgb.new_zeros(0, 3)], [rgb.new_zeros(0, 3)]
    for photo, validity in warp_references(view, view.references):
        bright = (rgb.amin(-1) > MIN_BRIGHTNESS) & (photo.amin(-1) > MIN_BRIGHTNESS)
        usable = (validity > MIN_SEEN) & bright & is_unclipped(rgb) & is_unclipped(photo)
        sources.append(rgb[usable])
        targets.append(photo[usable])
    return torch.cat(sources), torch.cat(targets)


def _median_gain(source: Float[Tensor, "P 3"], target: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, "3"], float]:
    """The gain of each channel, on the CPU, and the share of the pixels that it explains."""
    ratio = torch.log(target) - torch.log(source)
    gain = torch.exp(ratio.median(dim=0).values)
    agrees = torch.ones_like(source[:, 0], dtype=torch.bool)
    for _ in range(ITERATIONS):
        agrees = (source * gain - target).abs().amax(-1) < MAX_DIFFERENCE
        if int(agrees.sum()) < MIN_PIXELS:
            break
        gain = torch.exp(ratio[agrees].median(dim=0).values)
    return gain.cpu(), float(agrees.float().mean())
