"""Training views and their losses: L1 + SSIM as in 3D Gaussian Splatting (Kerbl et al. 2023, eq. 7), and depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.rendering import Rendering, l1_and_ssim
from splatfix.shapes import Float


@dataclass(frozen=True, eq=False)
class TrainingView:
    """An image with its camera that training steps compare renders with.

    Attributes:
        camera: camera of the render.
        rgb: a photo or a repaired view, ``[H, W, 3]``, on the device of the fit.
        weight: factor of its loss.
        confidence: of each pixel in [0, 1], ``[H, W]``; None is 1 everywhere.
        validity: of each pixel in [0, 1], ``[H, W]``, 0 where it is ignored; None is 1 everywhere.
        nearness: inverse depth up to scale and shift, ``[H, W]``, as a model estimated it; None if none did.
    """

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    weight: float = 1.0
    confidence: Float[Tensor, "H W"] | None = None
    validity: Float[Tensor, "H W"] | None = None
    nearness: Float[Tensor, "H W"] | None = None


def photometric_loss(
    rgb: Float[Tensor, "H W 3"],
    target: Float[Tensor, "H W 3"],
    ssim_weight: float,
    confidence: Float[Tensor, "H W"] | None = None,
    validity: Float[Tensor, "H W"] | None = None,
) -> Float[Tensor, ""]:
    """Compute ``(1 - w) L1 + w (1 - SSIM)``, a scalar, with ``w = ssim_weight``.

    The ``confidence`` of each pixel (0 to 1) blends the target with the render itself, so that pixels of confidence 0
    have no gradient, neither from L1 nor through the windows of SSIM. Pixels of ``validity`` 0 are ignored: they never
    have a gradient, and windows of SSIM that reach them see the render in their place.
    """
    if validity is not None:
        share = validity[..., None]
        target = share * target + (1 - share) * rgb.detach()
        rgb = share * rgb + (1 - share) * rgb.detach()
    if confidence is not None:
        weight = confidence[..., None]
        target = weight * target + (1 - weight) * rgb.detach()
    return l1_and_ssim(rgb, target, ssim_weight) if ssim_weight > 0 else (rgb - target).abs().mean()


def depth_loss(
    rendering: Rendering, nearness: Float[Tensor, "H W"], validity: Float[Tensor, "H W"] | None = None
) -> Float[Tensor, ""]:
    """Compute 1 minus the Pearson correlation of rendered inverse depth with an estimate of it, a scalar in [0, 2].

    The correlation knows neither the scale nor the shift, which are unknown in the estimate (FSGS, Zhu et al. 2024;
    SparseNeRF, Wang et al. 2023, uses the order alone). Pixels count by their opacity and their ``validity``. Nothing
    waits for the device.

    Args:
        rendering: of one camera, with depth.
        nearness: larger where nearer.
        validity: 0 where a pixel is ignored; None is 1 everywhere.
    """
    depth, weight = rendering.depth[0], rendering.alpha[0].detach()
    covered = depth > 0
    weight = torch.where(covered, weight if validity is None else weight * validity, 0)
    weight = weight / weight.sum().clamp(min=1e-9)
    inverse = 1 / torch.where(covered, depth, 1)
    inverse = inverse / (weight * inverse).sum().detach().clamp(min=1e-9)  # the unit of the world must not matter
    a, b = (values - (weight * values).sum() for values in (inverse, nearness))
    covariance, variances = (weight * a * b).sum(), (weight * a * a).sum() * (weight * b * b).sum()
    return 1 - covariance / (variances + 1e-9).sqrt()
