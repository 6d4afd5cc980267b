"""Quality masks: trust in the pixels of a repair, from their agreement with the photos that see the same points.

A generative model invents what it was not shown. Photos warped into the view by the fit's depth contradict it where
they see the point; where none does, nothing can be said.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.conditioning import MIN_VALIDITY
from splatfix.flawed import FlawedView, Reference
from splatfix.shapes import Float
from splatfix.warping import warp_reference

WINDOW_PX = 3  # differences are means over such windows, and the best of all shifts within one
RADIUS_PX = WINDOW_PX // 2


def compute_quality(
    view: FlawedView, rgb: Float[Tensor, "H W 3"], *, scale: float, unseen: float = 1.0
) -> Float[Tensor, "H W"]:
    """Compute the trust in each pixel of a repaired view, in [0, 1], ``[H, W]``.

    A pixel's agreement with a photo is ``exp(-(difference / scale)^2)``. Among the photos that see a point the one
    that agrees best counts, each as far as its warp is valid (`warping.warp_reference`: inside the photo, opaque, not
    occluded): a highlight or a wrong occlusion spoils one photo, an invention contradicts all. Trust fades to
    ``unseen`` as fewer photos see the point.

    Args:
        view: the render, whose depth carries the photos into the view.
        rgb: its repair.
        scale: mean difference of color at which agreement falls to 1/e.
        unseen: trust in points that no photo sees, in [0, 1].
    """
    supported = torch.zeros_like(rgb[..., 0])  # the best agreement, as far as the photo sees the point
    seen, missed = torch.zeros_like(supported), torch.ones_like(supported)
    for photo, validity in warp_references(view, view.references):
        difference = local_difference(rgb.detach(), photo, validity)
        agreement = torch.exp(-((difference / scale) ** 2))
        supported = torch.maximum(supported, validity * agreement)
        seen = torch.maximum(seen, validity)
        missed = missed * (1 - validity)
    agreement = torch.where(seen > 0, supported / seen.clamp(min=1e-6), 1.0)
    return ((1 - missed) * agreement + missed * unseen).clamp(0, 1)


def warp_references(
    view: FlawedView, references: Sequence[Reference]
) -> list[tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]]:
    """Warp photos into a view by its depth: (color, validity) of each; see `warping.warp_reference`."""
    depth, alpha = view.depth.detach().float(), view.alpha.detach().float()
    warps = []
    for reference in references:
        color, validity = warp_reference(view.camera, depth, alpha, reference)
        warps.append((color, torch.where(validity >= MIN_VALIDITY, validity, 0)))
    return warps


def local_difference(
    rgb: Float[Tensor, "H W 3"], photo: Float[Tensor, "H W 3"], validity: Float[Tensor, "H W"]
) -> Float[Tensor, "H W"]:
    """Compute the difference of an image from a warped photo, tolerant of a small misalignment.

    It is the absolute difference, averaged over the channels and over a window of 3 x 3 pixels (those that the photo
    sees), and of all shifts of the photo by at most one pixel the smallest.
    """
    height, width = validity.shape
    layers = torch.cat([photo, validity[..., None]], dim=-1).permute(2, 0, 1)[None]
    padded = F.pad(layers, (RADIUS_PX,) * 4, mode="replicate")[0].permute(1, 2, 0)
    smallest = torch.full_like(validity, torch.inf)
    for y in range(WINDOW_PX):
        for x in range(WINDOW_PX):
            shifted = padded[y : y + height, x : x + width]
            weight = shifted[..., 3]
            absolute = (rgb - shifted[..., :3]).abs().mean(-1)
            total = _window_mean(weight)
            difference = torch.where(total > 0, _window_mean(weight * absolute) / total.clamp(min=1e-9), torch.inf)
            smallest = torch.minimum(smallest, difference)
    return smallest


def _window_mean(image: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    return F.avg_pool2d(image[None, None], WINDOW_PX, 1, RADIUS_PX, count_include_pad=False)[0, 0]
