"""Growth: the cap holds, and the CPU's stand-ins for gsplat's CUDA helpers follow their formulas."""

import math
from dataclasses import replace

import pytest
import torch

from splatfix.splats.densify import DensifyConfig, _covariances, relocated
from splatfix.splats.train import Fit, FitConfig, advance
from tests.splats.scene import photos_of, random_gaussians, ring_cameras


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_growth_reaches_the_cap_and_stops_there(strategy):
    photos = photos_of(random_gaussians(300, seed=0), ring_cameras(4))
    densify = DensifyConfig(strategy=strategy, max_gaussians=230, every=5, start=0.0, stop=1.0, grow_gradient=1e-9)
    fit = Fit(random_gaussians(200, seed=1), FitConfig(steps=40, densify=densify), scene_scale=4.0, num_photos=4)
    advance(fit, photos, 40, seed=0, background=None)
    assert len(fit.params["means"]) == 230
    untouched = replace(densify, strategy="none")
    fit = Fit(random_gaussians(200, seed=1), FitConfig(steps=40, densify=untouched), scene_scale=4.0, num_photos=4)
    advance(fit, photos, 10, seed=0, background=None)
    assert len(fit.params["means"]) == 200


def test_relocation_follows_the_paper():
    """Kheradmand et al. 2024, eq. 9: opacity 1 - (1 - o)^(1/N), and the scale that keeps the integral."""
    binoms = torch.tensor([[float(math.comb(n, k)) for k in range(51)] for n in range(51)])
    opacity, scale = 0.7, torch.tensor([[0.1, 0.2, 0.3]])
    for copies in (1, 2, 3, 7):
        new_opacity, new_scale = relocated(torch.tensor([opacity]), scale, torch.tensor([copies]), binoms)
        assert float(new_opacity) == pytest.approx(1 - (1 - opacity) ** (1 / copies), rel=1e-6)
        # along a line through the centre the copies together let the same total through as the original
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
