"""The choice of recipe and last step looks at training photos alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.splats.choose import ChooseConfig, Recipe, choose_recipe, folds, shrunk
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.recipes import recipes_for
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import FitConfig
from splatfix.views import scene_depth
from tests.splats.scene import photos_of, random_gaussians, ring_cameras

FIT = FitConfig(steps=40, densify=DensifyConfig(strategy="none"))
RANDOM = InitialiseConfig(sources=("random",), num_random=200, sh_degree=0)


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    cameras = tuple(ring_cameras(5))
    photos = tuple(view.rgb for view in photos_of(random_gaussians(300, seed=0), cameras))
    return SparseScene(cameras, photos, (None,) * 5, None, None, scene_depth(cameras))


def test_the_better_recipe_wins_and_stops_where_it_is_best(scene):
    bad = Recipe(initial=RANDOM, fit=replace(FIT, sh0_lr=3.0, opacities_lr=2.0))
    good = Recipe(initial=RANDOM, fit=FIT)
    choice = choose_recipe(scene, {"bad": bad, "good": good}, ChooseConfig(folds=2, every=10), seed=0)
    assert choice.name == "good"
    curve = choice.curves["good"]
    assert curve[choice.steps // 10 - 1] >= max(curve) - 0.05
    assert max(choice.curves["good"]) > max(choice.curves["bad"])


def test_a_fit_that_overfits_is_stopped_early(scene):
    overfits = Recipe(initial=replace(RANDOM, num_random=1500), fit=replace(FIT, steps=400, dropout=0.0))
    choice = choose_recipe(scene, {"only": overfits}, ChooseConfig(folds=1, every=20, patience=3), seed=0)
    assert len(choice.curves["only"]) <= 20
    assert choice.steps <= 20 * (int(np.argmax(choice.curves["only"])) + 1)


def test_without_enough_photos_the_schedule_is_kept(scene):
    two = scene.without(0).without(0).without(0)
    recipe = Recipe(initial=RANDOM, fit=FIT)
    assert choose_recipe(two, {"a": recipe}, ChooseConfig(), seed=0).steps == 40
    assert choose_recipe(scene, {"a": recipe}, ChooseConfig(enabled=False), seed=0).curves == {}


def test_left_out_photos_are_those_with_near_neighbours(scene):
    assert len(set(folds(scene, 3))) == 3
    assert folds(scene, 3) == folds(scene, 3)


def test_a_photo_that_is_left_out_is_gone(scene):
    rest = scene.without(2)
    assert [camera.name for camera in rest.cameras] == ["v00.png", "v01.png", "v03.png", "v04.png"]
    assert not any(photo is scene.photos[2] for photo in rest.photos)


def test_shrinking_averages_and_keeps_rays(scene):
    small = shrunk(scene, 0.5)
    assert small.photos[0].shape == (18, 24, 3)
    expected = scene.photos[0].reshape(18, 2, 24, 2, 3).mean((1, 3))
    assert torch.allclose(small.photos[0], expected, atol=1e-6)
    point = np.array([[0.2, 0.1, -0.3]])
    np.testing.assert_allclose(small.cameras[0].project(point)[0] * 2, scene.cameras[0].project(point)[0])


def test_recipes_compete_only_where_the_sources_are_left_open(scene):
    assert len(recipes_for(scene, InitialiseConfig(), FIT)) > 1
    assert list(recipes_for(scene, RANDOM, FIT)) == ["as configured"]
