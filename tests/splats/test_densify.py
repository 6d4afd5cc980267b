"""The CPU's stand-ins for gsplat's CUDA helpers follow their formulas (growth and its cap: ``tests/gpu_checks.py``)."""

import math

import pytest
import torch

from splatfix.splats.densify import _covariances, relocated
from tests.splats.scene import random_gaussians


def test_relocation_follows_the_paper():
    """Kheradmand et al. 2024, eq. 9: opacity 1 - (1 - o)^(1/N), and the scale that keeps the integral."""
    binoms = torch.tensor([[float(math.comb(n, k)) for k in range(51)] for n in range(51)])
    opacity, scale = 0.7, torch.tensor([[0.1, 0.2, 0.3]])
    for copies in (1, 2, 3, 7):
        new_opacity, new_scale = relocated(torch.tensor([opacity]), scale, torch.tensor([copies]), binoms)
        assert float(new_opacity) == pytest.approx(1 - (1 - opacity) ** (1 / copies), rel=1e-6)
        # along a line through the center the copies together let the same total through as the original
        x = torch.linspace(-4, 4, 20001, dtype=torch.float64)
        original = opacity * torch.exp(-0.5 * (x / 0.1) ** 2)
        one = float(new_opacity) * torch.exp(-0.5 * (x / float(new_scale[0, 0])) ** 2)
        together = 1 - (1 - one) ** copies
        assert float(torch.trapezoid(together, x)) == pytest.approx(float(torch.trapezoid(original, x)), rel=1e-4)
        assert torch.allclose(new_scale / new_scale[0, 0], scale / scale[0, 0])


def test_covariances_have_the_scales_as_axes():
    gaussians = random_gaussians(5, seed=3)
    covariance, _ = _covariances(gaussians.quats, gaussians.scales)
    values = torch.linalg.eigvalsh(covariance.double()).sqrt()
    assert torch.allclose(values.float(), gaussians.scales.sort(1).values, rtol=1e-3)
