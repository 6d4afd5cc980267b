"""Growth with a cap, the replacements of gsplat's CUDA helpers, and the internals of gsplat that both rely on."""

import hashlib
import inspect
import math

import gsplat
import pytest
import torch
from gsplat.relocation import compute_relocation
from gsplat.strategy import DefaultStrategy, ops

from splatfix.splats.densify import DensifyConfig, relocate
from splatfix.splats.train import Fit, FitConfig
from tests.splats.scene import random_gaussians

# Of the source of what splats/densify.py overrides or replaces, as in gsplat 1.5.3.
DIGESTS = {
    DefaultStrategy._grow_gs: "0265844edac3fc3d",
    compute_relocation: "ccee8480bcb7ce5e",
    gsplat.quat_scale_to_covar_preci: "14c005a82ea77b35",
}


@pytest.mark.parametrize("function", DIGESTS, ids=lambda function: function.__name__)
def test_the_replaced_internals_of_gsplat_have_not_changed(function):
    digest = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    assert digest == DIGESTS[function], (
        f"gsplat {gsplat.__version__}: {function.__qualname__}{inspect.signature(function)} has changed. Compare it "
        "with its replacement in splatfix/splats/densify.py and adapt that; then run this file and `make gpu-check`, "
        f"set the digest here to {digest!r}, and change the range of gsplat in pyproject.toml and constraints.txt."
    )


def test_gsplat_looks_up_its_helpers_where_they_are_replaced():
    missing = [name for name in ("compute_relocation", "quat_scale_to_covar_preci") if not hasattr(ops, name)]
    assert not missing, f"gsplat {gsplat.__version__}: no {missing} in gsplat.strategy.ops; adapt _patch_mcmc_helpers"


@pytest.mark.parametrize("room", [0, 3, 50])
def test_growth_stops_at_the_cap_and_the_highest_gradients_grow_first(room):
    num = 20
    config = FitConfig(densify=DensifyConfig(strategy="default", max_gaussians=num + room, grow_gradient=0.5))
    fit = Fit(random_gaussians(num, seed=0), config, scene_scale=1e3, num_photos=1)  # all are small: they are cloned
    means, gradients = fit.params["means"].detach().clone(), torch.linspace(0.0, 1.0, num)
    fit.densifier.state |= {"grad2d": 2 * gradients, "count": torch.full((num,), 2.0)}
    fit.densifier.strategy._grow_gs(fit.params, fit.optimizers, fit.densifier.state, step=100)
    clones = fit.params["means"].detach()[num:]
    expected = means[-min(room, int((gradients > 0.5).sum())) :] if room else means[:0]
    assert torch.equal(clones, expected)
    assert fit.densifier.strategy.grow_grad2d == 0.5


def test_relocation_follows_the_paper():
    """Kheradmand et al. 2024, eq. 9: opacity 1 - (1 - o)^(1/N), and the scale that keeps the integral."""
    binoms = torch.tensor([[float(math.comb(n, k)) for k in range(51)] for n in range(51)])
    opacity, scale = 0.7, torch.tensor([[0.1, 0.2, 0.3]])
    for copies in (1, 2, 3, 7):
        new_opacity, new_scale = relocate(torch.tensor([opacity]), scale, torch.tensor([copies]), binoms)
        assert float(new_opacity) == pytest.approx(1 - (1 - opacity) ** (1 / copies), rel=1e-6)
        # along a line through the center the copies together are as opaque as the original
        x = torch.linspace(-4, 4, 20001, dtype=torch.float64)
        original = opacity * torch.exp(-0.5 * (x / 0.1) ** 2)
        one = float(new_opacity) * torch.exp(-0.5 * (x / float(new_scale[0, 0])) ** 2)
        together = 1 - (1 - one) ** copies
        assert float(torch.trapezoid(together, x)) == pytest.approx(float(torch.trapezoid(original, x)), rel=1e-4)
        assert torch.allclose(new_scale / new_scale[0, 0], scale / scale[0, 0])
