"""The photometric loss of a fit: L1 + SSIM as in 3D Gaussian Splatting (Kerbl et al. 2023, eq. 7)."""

from __future__ import annotations

from torch import Tensor

from splatfix.rendering import l1_and_ssim
from splatfix.shapes import Float


def photometric_loss(
    rgb: Float[Tensor, "H W 3"],
    target: Float[Tensor, "H W 3"],
    ssim_weight: float,
    confidence: Float[Tensor, "H W"] | None = None,
) -> Float[Tensor, ""]:
    """``(1 - w) L1 + w (1 - SSIM)``, a scalar.

    Where ``confidence`` (0 to 1) is below one the target moves towards the render itself, so that an untrusted pixel
    asks for nothing, neither in L1 nor inside the windows of SSIM.
    """
    if confidence is not None:
        trust = confidence[..., None]
        target = trust * target + (1 - trust) * rgb.detach()
    return l1_and_ssim(rgb, target, ssim_weight) if ssim_weight > 0 else (rgb - target).abs().mean()
