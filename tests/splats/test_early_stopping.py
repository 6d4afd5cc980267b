"""Early stopping, decided on training photos alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.splats.densify import DensifyConfig
from splatfix.splats.early_stopping import EarlyStoppingConfig, choose_folds, choose_stop, shrink_scene
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import FitConfig
from tests.splats.scene import small_scene

FIT = FitConfig(steps=40, densify=DensifyConfig(strategy="none"))
RANDOM = InitializationConfig(sources=("random",), num_random=200, sh_degree=0)


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    return small_scene()


def test_a_fit_stops_where_held_out_photos_score_best(scene):
    probes = []
    config = EarlyStoppingConfig(enabled=True, folds=2, every=10)
    stop = choose_stop(scene, RANDOM, FIT, config, seed=0, on_probe=lambda: probes.append(1))
    assert len(probes) == 2
    assert len(stop.curve) == 4
    assert stop.curve[stop.steps // 10 - 1] >= max(stop.curve) - 0.05


def test_a_fit_that_gets_worse_is_stopped_early(scene):
    worsening = replace(FIT, steps=400, sh0_lr=0.5, opacities_lr=0.5)
    stop = choose_stop(
        scene, RANDOM, worsening, EarlyStoppingConfig(enabled=True, folds=1, every=5, patience=3), seed=0
    )
    assert stop.steps < 200
    best = int(np.argmax(stop.curve))
    assert len(stop.curve) == best + 1 + 3
    assert stop.steps <= 5 * (best + 1) and stop.curve[stop.steps // 5 - 1] >= stop.curve[best] - 0.05


def test_with_few_photos_or_disabled_the_full_schedule_is_used(scene):
    two = scene.leave_out(0).leave_out(0).leave_out(0)
    assert choose_stop(two, RANDOM, FIT, EarlyStoppingConfig(enabled=True), seed=0).steps == 40
    assert choose_stop(scene, RANDOM, FIT, EarlyStoppingConfig(enabled=False), seed=0).curve == ()


def test_held_out_photos_are_those_with_near_neighbors(scene):
    assert len(set(choose_folds(scene, 3))) == 3
    assert choose_folds(scene, 3) == choose_folds(scene, 3)


def test_leave_out_removes_one_photo(scene):
    others = scene.leave_out(2)
    assert [camera.name for camera in others.cameras] == ["v00.png", "v01.png", "v03.png", "v04.png"]
    assert not any(photo is scene.photos[2] for photo in others.photos)


def test_shrinking_averages_and_keeps_rays(scene):
    small = shrink_scene(scene, 0.5)
    assert small.photos[0].shape == (18, 24, 3)
    expected = scene.photos[0].reshape(18, 2, 24, 2, 3).mean((1, 3))
    assert torch.allclose(small.photos[0], expected, atol=1e-6)
    point = np.array([[0.2, 0.1, -0.3]])
    np.testing.assert_allclose(small.cameras[0].project(point)[0] * 2, scene.cameras[0].project(point)[0])
