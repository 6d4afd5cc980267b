"""Whether Gaussians are added is decided by the overlap of the photos."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.splats.densify import Densifier, DensifyConfig, choose_strategy
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import SparseScene, load_fit, resolve_strategy, start_fit
from splatfix.splats.stereo.plane_sweep import StereoPoints
from splatfix.splats.train import FitConfig, advance
from tests.splats.textured import camera, photograph

AUTO = DensifyConfig()


@pytest.fixture(scope="module")
def near() -> SparseScene:
    """Three photos from nearly the same place."""
    return make_scene([camera(-0.4), camera(0.0), camera(0.4)])


@pytest.fixture(scope="module")
def far() -> SparseScene:
    """Two photos of which each shows another texture, so that no depth agrees."""
    scene = make_scene([camera(-0.4), camera(0.4)])
    noise = torch.from_numpy(np.random.default_rng(0).random((96, 128, 3), np.float32))
    return replace(scene, photos=(scene.photos[0], noise))


def make_scene(cameras) -> SparseScene:
    photos = tuple(torch.from_numpy(photograph(each)[0]) for each in cameras)
    nothing = (None,) * len(cameras)
    return SparseScene(tuple(cameras), photos, nothing, nothing, None, None, 4.0)


@pytest.mark.parametrize(
    ("overlap", "strategy", "words"),
    [
        (None, "none", None),
        (0.0, "none", "overlap little (two agree on the depth of 0%"),
        (0.34, "none", "of 34%"),
        (0.35, "default", "the photos overlap (two agree on the depth of 35%"),
    ],
)
def test_auto_grows_where_photos_overlap(overlap, strategy, words):
    chosen, note = choose_strategy(AUTO, overlap)
    assert chosen == strategy
    assert note is None if words is None else words in str(note)


@pytest.mark.parametrize("strategy", ["none", "default", "mcmc"])
def test_a_strategy_by_name_is_kept(strategy):
    config = DensifyConfig(strategy=strategy)
    assert choose_strategy(config, 1.0) == choose_strategy(config, 0.0) == (strategy, None)
    fit = FitConfig(densify=config)
    assert resolve_strategy(fit, strategy) is fit


def test_gaussians_that_auto_adds_learn_faster():
    fit = FitConfig(densify=DensifyConfig(rates_growing=3.0))
    grown = resolve_strategy(fit, "default")
    assert grown.densify.strategy == "default"
    for name in ("means_lr", "scales_lr", "quats_lr", "sh0_lr", "shN_lr"):
        assert getattr(grown, name) == pytest.approx(3 * getattr(fit, name))
    assert resolve_strategy(grown, "default") is grown  # once
    others = {name: getattr(grown, name) for name in ("means_lr_end", "opacities_lr", "dropout", "steps")}
    assert others == {name: getattr(fit, name) for name in others}
    assert resolve_strategy(fit, "none") == replace(fit, densify=replace(fit.densify, strategy="none"))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_of_the_learning_rates_is_above_0(factor):
    with pytest.raises(ValueError, match=r"^fit.densify.rates_growing = .*wanted a factor above 0"):
        DensifyConfig(rates_growing=factor)


def test_auto_has_to_be_resolved():
    with pytest.raises(ValueError, match=r"^densify.strategy = 'auto': the overlap of the photos is not known"):
        Densifier(AUTO, 100, 1.0)


def test_depths_that_no_other_photo_agrees_on_are_no_overlap():
    agreeing = np.array([0, 0, 1, 2])
    points = StereoPoints(np.zeros((4, 3)), np.zeros(4, int), np.zeros((4, 2), int), agreeing, coverage=0.8)
    assert points.overlap == pytest.approx(0.4)
    none = StereoPoints(np.zeros((0, 3)), np.zeros(0, int), np.zeros((0, 2), int), np.zeros(0, int), coverage=0.0)
    assert none.overlap == 0.0


@pytest.mark.slow
def test_a_fit_of_near_photos_grows_from_few_points_and_one_of_far_photos_does_not(near, far):
    initial = InitializationConfig(num_stereo=900, num_stereo_growing=300, num_random=50, num_backdrop=0)
    config = FitConfig(steps=60, densify=DensifyConfig(every=5, grow_gradient=1e-6))
    fits = {name: start_fit(scene, config, initial, seed=0) for name, scene in (("near", near), ("far", far))}
    assert [fit.config.densify.strategy for fit in fits.values()] == ["default", "none"]
    assert "the photos overlap (two" in fits["near"].notes[0] and "overlap little" in fits["far"].notes[0]
    num_before = {name: len(fit.params["means"]) for name, fit in fits.items()}
    for fit, scene in zip(fits.values(), (near, far), strict=True):
        advance(fit, scene.views(), 30, seed=0)
    assert len(fits["near"].params["means"]) > num_before["near"]
    assert len(fits["far"].params["means"]) == num_before["far"]
    by_name = start_fit(near, replace(config, densify=DensifyConfig(strategy="none")), initial, seed=0)
    assert len(by_name.params["means"]) == num_before["near"] + 600  # stereo points
    assert by_name.notes == ()


def test_a_fit_that_is_read_again_goes_on_growing(near, tmp_path):
    initial = InitializationConfig(num_stereo_growing=300, num_random=50, num_backdrop=0)
    config = FitConfig(steps=60, densify=DensifyConfig(every=5, grow_gradient=1e-6))
    fit = start_fit(near, config, initial, seed=0)
    advance(fit, near.views(), 20, seed=0)
    fit.save(tmp_path / "fit.pt", "identity")
    more = {"scene_scale": fit.scene_scale, "background": None, "device": torch.device("cpu")}
    again = load_fit(tmp_path / "fit.pt", "identity", config, **more)
    assert again.config == fit.config == resolve_strategy(config, "default")
    for each in (fit, again):
        advance(each, near.views(), 15, seed=0)
    assert len(again.params["means"]) > 350
    for name, value in fit.params.items():
        assert torch.equal(value, again.params[name]), name


def test_no_gaussian_that_learns_fast_grows_beyond_the_largest_at_the_start(near, tmp_path):
    initial = InitializationConfig(num_stereo_growing=300, num_random=50, num_backdrop=20)
    fit = start_fit(near, FitConfig(steps=60, densify=DensifyConfig(rates_growing=400.0)), initial, seed=0)
    limit = fit.max_log_scale
    assert limit == float(fit.params["scales"].detach().max())
    fit.save(tmp_path / "fit.pt", "identity")
    more = {"scene_scale": fit.scene_scale, "background": None, "device": torch.device("cpu")}
    free = load_fit(tmp_path / "fit.pt", "identity", fit.config, **more)
    assert free.max_log_scale == limit
    free.max_log_scale = math.inf
    for each in (fit, free):
        advance(each, near.views(), 5, seed=0)
    assert float(fit.params["scales"].detach().max()) == limit < float(free.params["scales"].detach().max())
    slow = start_fit(near, FitConfig(densify=DensifyConfig(strategy="none")), initial, seed=0)
    assert slow.max_log_scale == math.inf
