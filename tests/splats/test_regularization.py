"""Steps towards flat minima follow their equation, leave positions alone, and begin when they should."""

import logging
from dataclasses import replace

import pytest
import torch

from splatfix.gaussians import covariances
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.regularization import backpropagate_at_worst, find_worst_offsets
from splatfix.splats.scene import start_fit
from splatfix.splats.train import Fit, FitConfig, advance
from tests.splats.scene import photos_of, random_gaussians, ring_cameras, small_scene

GROWING = DensifyConfig(strategy="default", start=1.0)  # which may grow, but has no time to


@pytest.fixture(scope="module")
def photos():
    return photos_of(random_gaussians(100, seed=0), ring_cameras(3))


def make_fit(**settings) -> Fit:
    config = FitConfig(**{"steps": 20, "densify": DensifyConfig(strategy="none"), **settings})
    return Fit(random_gaussians(80, seed=1, sh_rest=3), config, scene_scale=4.0, num_photos=3)


def test_the_worst_offset_is_the_steepest_within_the_radius():
    gaussians = random_gaussians(50, seed=2)
    gradient = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    offsets = find_worst_offsets(gaussians, gradient, 0.3)
    spread = covariances(gaussians.quats, gaussians.log_scales.exp()).double()
    root = torch.linalg.cholesky(spread)
    deviations = torch.linalg.solve_triangular(root, offsets.double()[..., None], upper=False).norm(dim=(1, 2))
    torch.testing.assert_close(deviations, torch.full_like(deviations, 0.3), rtol=1e-3, atol=0)
    directions = torch.nn.functional.normalize(torch.randn(200, 50, 3, dtype=torch.float64), dim=-1)
    others = torch.einsum("nij,dnj->dni", 0.3 * root, directions)
    rise, rises = (offsets * gradient).sum(-1), (others * gradient).sum(-1)
    assert (rises <= rise * (1 + 1e-4)).all() and (rises.max(0).values > 0.8 * rise).float().mean() > 0.9


def test_gaussians_without_a_gradient_stay_where_they_are():
    gradient = torch.ones(4, 3)
    gradient[1] = 0
    gradient[2] = 1e-30  # whose square no float32 holds
    offsets = find_worst_offsets(random_gaussians(4, seed=2), gradient, 0.3)
    assert torch.isfinite(offsets).all()
    assert (offsets[1] == 0).all() and (offsets[0] != 0).any()


def test_gradients_are_those_at_the_displaced_positions():
    gaussians = random_gaussians(20, seed=3)
    means = torch.nn.Parameter(gaussians.means.clone())
    color = torch.nn.Parameter(torch.tensor(2.0))
    targets = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))

    def compute_loss():
        return color * ((means - targets) ** 2).sum(), "info"

    before = means.detach().clone()
    gradient = 4.0 * (before - targets)
    loss, info = backpropagate_at_worst(means, lambda: replace(gaussians, means=means), compute_loss, 0.5)
    moved = before + find_worst_offsets(gaussians, gradient, 0.5)
    assert torch.equal(means.detach(), before) and info == "info"
    torch.testing.assert_close(means.grad, 4.0 * (moved - targets))
    torch.testing.assert_close(color.grad, ((moved - targets) ** 2).sum())
    assert bool(loss > 2.0 * ((before - targets) ** 2).sum())


@pytest.mark.parametrize("densify", [DensifyConfig(strategy="none"), GROWING])
def test_steps_are_flat_from_their_start_on_and_not_where_gaussians_grow(photos, densify):
    flat = make_fit(densify=densify, flat_radius=0.3, flat_start=0.5)
    plain = make_fit(densify=densify, flat_radius=0.0)
    for fit in (flat, plain):
        advance(fit, photos, 10, seed=0)
    assert torch.equal(flat.params["means"], plain.params["means"])
    for fit in (flat, plain):
        advance(fit, photos, 1, seed=0)
    assert torch.equal(flat.params["means"], plain.params["means"]) == (densify is GROWING)


@pytest.mark.parametrize("densify", [DensifyConfig(strategy="none"), GROWING])
def test_a_fit_that_grows_says_that_it_takes_no_flat_steps(densify, caplog):
    initial = InitializationConfig(sources=("random",), num_random=50, num_backdrop=0)
    with caplog.at_level(logging.INFO, "splatfix"):
        start_fit(small_scene(), FitConfig(densify=densify, flat_radius=0.3), initial, seed=0)
    assert ("fit.flat_radius = 0.3 has no effect on this fit" in caplog.text) == (densify is GROWING)


def test_steps_after_the_schedule_are_flat_too(photos):
    fits = [make_fit(flat_radius=radius, flat_start=1.0) for radius in (0.3, 0.0)]
    for fit in fits:
        advance(fit, photos, 20, seed=0)
    assert torch.equal(fits[0].params["means"], fits[1].params["means"])
    for fit in fits:
        advance(fit, photos, 1, seed=0)
    assert not torch.equal(fits[0].params["means"], fits[1].params["means"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flat_radius": -0.1}, "fit.flat_radius = -0.1: wanted 0 to 3 standard deviations"),
        ({"flat_radius": float("nan")}, "fit.flat_radius = nan"),
        ({"flat_start": 1.5}, "fit.flat_start = 1.5: wanted a share of the schedule, from 0 to 1"),
    ],
)
def test_values_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        FitConfig(**settings)
