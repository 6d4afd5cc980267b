"""The choice of the last step looks at training photos alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.splats.densify import DensifyConfig
from splatfix.splats.early_stopping import ChooseConfig, choose_stop, folds, shrunk
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import FitConfig
from tests.splats.scene import small_scene

FIT = FitConfig(steps=40, densify=DensifyConfig(strategy="none"))
RANDOM = InitialiseConfig(sources=("random",), num_random=200, sh_degree=0)


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    return small_scene()


def test_a_fit_stops_where_left_out_photos_are_seen_best(scene):
    seen = []
    stop = choose_stop(
        scene, RANDOM, FIT, ChooseConfig(enabled=True, folds=2, every=10), seed=0, on_probe=lambda: seen.append(1)
    )
    assert len(seen) == 2
    assert len(stop.curve) == 4
    assert stop.curve[stop.steps // 10 - 1] >= max(stop.curve) - 0.05


def test_a_fit_that_gets_worse_is_stopped_early(scene):
    spoiling = replace(FIT, steps=400, sh0_lr=0.5, opacities_lr=0.5)
    stop = choose_stop(scene, RANDOM, spoiling, ChooseConfig(enabled=True, folds=1, every=5, patience=3), seed=0)
    assert stop.steps < 200
    best = int(np.argmax(stop.curve))
    assert len(stop.curve) == best + 1 + 3
    assert stop.steps <= 5 * (best + 1) and stop.curve[stop.steps // 5 - 1] >= stop.curve[best] - 0.05


def test_without_enough_photos_the_schedule_is_kept(scene):
    two = scene.without(0).without(0).without(0)
    assert choose_stop(two, RANDOM, FIT, ChooseConfig(enabled=True), seed=0).steps == 40
    assert choose_stop(scene, RANDOM, FIT, ChooseConfig(enabled=False), seed=0).curve == ()


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
