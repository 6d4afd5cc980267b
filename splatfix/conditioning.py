"""The conditioning of a restorer's network: a render, and the evidence of where it can be trusted.

Shards store it (quantized) for training, and the loop computes it for repair. Both use this module, so that a network
gets the same inputs in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splatfix.buffers import compute_buffers
from splatfix.flawed import FlawedView
from splatfix.shapes import Float
from splatfix.warping import warp_reference

MIN_VALIDITY = 0.5 / 255  # warped pixels below this count as missing: they round to 0 in the 8 bits of a shard


@dataclass(frozen=True, eq=False)
class Conditioning:
    """A render with the evidence for its repair.

    Attributes:
        rgb: the render, ``[H, W, 3]``.
        alpha: accumulated opacity in [0, 1], ``[H, W]``.
        nearness: normalized inverse depth in [0, 1], ``[H, W]``: 0 infinitely far or empty, 0.5 at the view's median
            inverse depth, towards 1 close to the camera. See `compute_nearness`.
        inverse_depth_scale: the view's median inverse depth, in one over world units.
        warps: references warped into the view, nearest first: rgb (0 where missing) and validity, ``[R, H, W, 4]``.
        buffers: of the fits (`buffers.compute_buffers`), ``[H, W, 10]``; None for a network that is given none.
    """

    rgb: Float[Tensor, "H W 3"]
    alpha: Float[Tensor, "H W"]
    nearness: Float[Tensor, "H W"]
    inverse_depth_scale: float
    warps: Float[Tensor, "R H W 4"]
    buffers: Float[Tensor, "H W 10"] | None = None


def compute_conditioning(view: FlawedView, num_references: int = 2, *, with_buffers: bool = False) -> Conditioning:
    """Compute the conditioning of a flawed view, with at most ``num_references`` of its references warped in.

    Raises:
        ValueError: buffers are wanted of a view that does not know its fits.
    """
    rgb, alpha, depth = (image.detach().float() for image in (view.rgb, view.alpha, view.depth))
    nearness, scale = compute_nearness(depth)
    warps = [torch.zeros(0, *rgb.shape[:2], 4, device=rgb.device)]
    for reference in view.references[:num_references]:
        color, validity = warp_reference(view.camera, depth, alpha, reference)
        validity = validity[..., None]
        warps.append(torch.where(validity >= MIN_VALIDITY, torch.cat([color, validity], -1), 0)[None])
    buffers = compute_buffers(view, scale) if with_buffers else None
    return Conditioning(rgb.clamp(0, 1), alpha.clamp(0, 1), nearness, scale, torch.cat(warps), buffers)


def compute_nearness(depth: Float[Tensor, "H W"]) -> tuple[Float[Tensor, "H W"], float]:
    """Compute nearness, a bounded inverse depth: ``q / (q + scale)`` with ``q = 1 / depth``; ``scale`` is its median.

    Nearness does not depend on the unit of the scene, resolves a far background and compresses floaters near the
    camera. It is 0 where the depth is 0 (empty); the scale of a view without any depth is 1.
    """
    has_depth = depth > 0
    scale = float(1 / depth[has_depth].median()) if bool(has_depth.any()) else 1.0
    return torch.where(has_depth, 1 / (1 + scale * depth), 0), scale


def depth_from_nearness(nearness: Float[Tensor, "H W"], inverse_depth_scale: float) -> Float[Tensor, "H W"]:
    """Invert `compute_nearness`: depth along the axis in world units, 0 where the nearness is 0."""
    return torch.where(nearness > 0, (1 / nearness.clamp(min=1e-9) - 1) / inverse_depth_scale, 0)
