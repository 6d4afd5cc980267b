"""The training loop: it fits, resumes exactly, keeps control and after on one schedule, and stops at NaN."""

from dataclasses import replace

import pytest
import torch

from splatfix.rendering import render
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.losses import TrainingView, photometric_loss
from splatfix.splats.regularization import decay_opacities
from splatfix.splats.train import Fit, FitConfig, advance
from tests.splats.scene import photos_of, random_gaussians, ring_cameras

CONFIG = FitConfig(steps=60, densify=DensifyConfig(strategy="none"), exposure_lr=1e-3)


@pytest.fixture(scope="module")
def photos() -> list[TrainingView]:
    return photos_of(random_gaussians(300, seed=0), ring_cameras(4))


def new_fit(config=CONFIG, num=200) -> Fit:
    return Fit(random_gaussians(num, seed=1, sh_rest=3), config, scene_scale=4.0, num_photos=4)


def error(fit: Fit, photos: list[TrainingView]) -> float:
    with torch.no_grad():
        renders = [render(fit.splat(), [photo.camera]).rgb[0] for photo in photos]
    return sum(float((image - photo.rgb).abs().mean()) for image, photo in zip(renders, photos, strict=True))


def test_a_fit_lowers_its_error_and_records_its_losses(photos):
    fit, seen = new_fit(), []
    before = error(fit, photos)
    advance(fit, photos, 60, seed=0, on_step=lambda fit: seen.append(fit.step))
    assert seen == list(range(1, 61))
    assert error(fit, photos) < 0.9 * before
    assert [step for step, _ in fit.losses] == [25, 50]
    assert all(0 < loss < 1 for _, loss in fit.losses)


@pytest.mark.parametrize(("strategy", "decay"), [("none", 1.0), ("default", 0.99), ("mcmc", 1.0)])
def test_a_resumed_fit_equals_an_uninterrupted_one(photos, tmp_path, strategy, decay):
    densify = DensifyConfig(strategy=strategy, every=10, start=0.1, stop=0.9, noise=0.1)
    config = replace(CONFIG, densify=densify, opacity_decay=decay, flat_radius=0.3, flat_start=0.3)
    whole = new_fit(config)
    advance(whole, photos, 60, seed=3)
    first = new_fit(config)
    advance(first, photos, 33, seed=3)
    first.save(tmp_path / "a.pt", "identity")
    second = new_fit(config)
    second.load(tmp_path / "a.pt", "identity")
    torch.rand(17)  # other draws of the process must not matter
    advance(second, photos, 27, seed=3)
    for name, value in whole.params.items():
        assert torch.equal(value, second.params[name]), name
    assert torch.equal(whole.exposure, second.exposure)
    assert whole.losses == second.losses and whole.repaired_steps == second.repaired_steps


def test_repaired_views_of_weight_0_only_skip_steps_of_the_control(photos):
    """With repaired views of weight 0, `after` uses the photos of `control` except in the steps of those views."""
    shown: dict[str, list[int]] = {"control": [], "after": []}
    wrong = replace(photos[0], rgb=torch.zeros_like(photos[0].rgb), weight=0.0)

    def watch(arm):
        return [_WatchedView(photo.camera, photo.rgb, shown[arm], index) for index, photo in enumerate(photos)]

    for arm, repaired in (("control", ()), ("after", (wrong,))):
        advance(
            new_fit(replace(CONFIG, exposure_lr=0.0)),
            watch(arm),
            40,
            seed=5,
            repaired=repaired,
            repaired_probability=0.5,
        )
    # every photo that `after` uses is the one that `control` uses at that step
    assert 8 < len(shown["after"]) < 32
    assert len(shown["control"]) == 40
    remaining = iter(shown["control"])
    assert all(index in remaining for index in shown["after"])


class _WatchedView(TrainingView):
    """A training view that records each use of its photo."""

    def __init__(self, camera, rgb, seen, index):
        super().__init__(camera, rgb)
        object.__setattr__(self, "_seen", (seen, index))

    def __getattribute__(self, name):
        if name == "rgb":
            seen, index = object.__getattribute__(self, "_seen")
            seen.append(index)
        return object.__getattribute__(self, name)


def test_opacities_decay_by_a_factor_and_stay_finite():
    opacities = torch.tensor([1e-9, 1e-3, 0.1, 0.5, 0.9, 0.999], dtype=torch.float64)
    logits = torch.logit(opacities)
    decay_opacities(logits, 0.9)
    torch.testing.assert_close(logits.sigmoid(), 0.9 * opacities, rtol=1e-9, atol=0)
    extreme = torch.tensor([-200.0, -80.0, 80.0, 200.0])
    decay_opacities(extreme, 0.9)
    assert torch.isfinite(extreme).all()
    torch.testing.assert_close(extreme[2:].sigmoid(), torch.tensor([0.9, 0.9]))


def test_what_no_photo_keeps_up_fades(photos):
    """A Gaussian behind all cameras has no gradient: only the decay changes its opacity."""
    fits = []
    for decay in (1.0, 0.99):
        fit = new_fit(replace(CONFIG, opacity_decay=decay))
        fit.params["means"].data[0] = torch.tensor([0.0, 500.0, 0.0])
        fit.params["opacities"].data[0] = 0.0
        advance(fit, photos, 20, seed=0)
        fits.append(fit)
    opacities = [float(fit.splat().gaussians.opacities[0]) for fit in fits]
    assert opacities == [0.5, pytest.approx(0.5 * 0.99**20, rel=1e-4)]
    assert error(fits[1], photos) < 1.1 * error(fits[0], photos)


@pytest.mark.parametrize("decay", [0.0, 1.001, float("nan")])
def test_a_decay_that_is_no_factor_is_refused(decay):
    with pytest.raises(ValueError, match=r"opacity_decay = .*: wanted a factor above 0, 1 at most"):
        FitConfig(opacity_decay=decay)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0])
def test_pixels_of_confidence_0_have_no_gradient(photos, confidence):
    rgb = photos[0].rgb.clone().requires_grad_()
    loss = photometric_loss(rgb, photos[1].rgb, 0.2, torch.full(rgb.shape[:2], confidence))
    loss.backward()
    assert float(rgb.grad.abs().max()) < 1e-8 if confidence == 0 else float(rgb.grad.abs().max()) > 1e-5


def test_nan_is_an_error_that_names_the_step_and_the_parameter(photos):
    fit = new_fit()
    with torch.no_grad():
        fit.params["scales"][7, 1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"step \d+: parameter 'scales'"):
        advance(fit, photos, 50, seed=0)


def test_nan_is_noticed_before_gaussians_are_drawn_by_their_opacities(photos):
    """On CUDA it would end the process there, and losses are looked at every 25th step alone."""
    fit = new_fit(replace(CONFIG, densify=DensifyConfig(strategy="mcmc", start=0.0, every=1)))
    advance(fit, photos, 1, seed=0)

    def spoil(*_: object) -> None:  # as an infinite gradient does
        with torch.no_grad():
            fit.params["opacities"][3] = float("nan")

    fit.optimizer.register_step_post_hook(spoil)
    with pytest.raises(FloatingPointError, match=r"step 1: parameter 'opacities' is no longer finite"):
        advance(fit, photos, 1, seed=0)


def test_copies_are_independent(photos):
    fit = new_fit(replace(CONFIG, densify=DensifyConfig(strategy="default", every=10)))
    advance(fit, photos, 20, seed=0)
    twin = fit.copy()
    kept = twin.params["means"].detach().clone()
    advance(fit, photos, 20, seed=0)
    assert torch.equal(twin.params["means"], kept)
    advance(twin, photos, 20, seed=0)
    assert torch.equal(twin.params["means"], fit.params["means"])
