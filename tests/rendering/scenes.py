"""Small made-up scenes and cameras for the rendering tests."""

from __future__ import annotations

import numpy as np
import torch

from splatfix.cameras import Camera, look_at
from splatfix.gaussians import Gaussians


def camera(width_px: int, height_px: int, *, focal: float = 1.1, angle_rad: float = 0.3, name: str = "view") -> Camera:
    """A camera four units from the origin, looking at it; ``focal`` is in image widths, the center a bit off."""
    k = np.array([[focal * width_px, 0, 0.48 * width_px], [0, 1.05 * focal * width_px, 0.53 * height_px], [0, 0, 1.0]])
    center = 4 * np.array([np.sin(angle_rad), 0.2, -np.cos(angle_rad)])
    return Camera(name, width_px, height_px, k, look_at(center, np.zeros(3), np.array([0.0, -1.0, 0.0])))


def cloud(
    count: int, *, seed: int = 0, degree: int = 3, log_scale: float = -2.0, spread: float = 1.0, opacity: float = 0.0
) -> Gaussians:
    """Random Gaussians around the origin; ``log_scale`` and ``opacity`` (a logit) are means."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    return Gaussians(
        means=spread * normal(count, 3),
        log_scales=log_scale + 0.5 * normal(count, 3),
        quats=normal(count, 4),
        opacity_logits=opacity + normal(count),
        sh0=normal(count, 1, 3),
        sh_rest=0.2 * normal(count, (degree + 1) ** 2 - 1, 3),
    )


def leaves(gaussians: Gaussians, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Gaussians:
    """A copy whose parameters require gradients."""
    return Gaussians(
        **{name: t.detach().to(device, dtype).clone().requires_grad_() for name, t in vars(gaussians).items()}
    )
