"""Flawed views: the nearest photos go along, several fits are averaged."""

from dataclasses import replace

import pytest
import torch

from splatfix.flawed import render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.loop import RepairConfig
from splatfix.loop.rounds import flawed_views, trusted
from splatfix.rendering import render
from splatfix.restoration import Repaired
from splatfix.splats.scene import SparseScene
from splatfix.views import between
from tests.splats.scene import random_gaussians, small_scene


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    return small_scene()


def test_the_nearest_photos_go_along(scene):
    splat = Splat(random_gaussians(300, seed=0))
    references = render_references([splat], scene.cameras, scene.photos)
    camera = between(scene.cameras[1], scene.cameras[2], 0.3, scene.depth, "new")
    view = render_flawed([splat], [camera], references, scene.depth, num_references=2)[0]
    assert [reference.camera.name for reference in view.references] == ["v01.png", "v02.png"]
    assert torch.equal(view.rgb, render(splat, [camera]).rgb[0])
    assert view.spread is None


def test_several_fits_are_averaged_and_disagree_where_they_differ(scene):
    one, other = (Splat(random_gaussians(300, seed=seed)) for seed in (0, 9))
    references = render_references([one, other], scene.cameras, scene.photos)
    view = render_flawed([one, other], scene.cameras[:1], references, scene.depth)[0]
    renders = [render(splat, scene.cameras[:1]).rgb[0] for splat in (one, other)]
    assert torch.allclose(view.rgb, (renders[0] + renders[1]) / 2, atol=1e-6)
    assert float(view.spread.max()) > 0.1
    same = render_flawed([one, one], scene.cameras[:1], references, scene.depth)[0]
    assert float(same.spread.max()) < 1e-6


def test_views_are_drawn_in_the_mode_of_the_splat_over_its_background(scene):
    tiny = replace(random_gaussians(300, seed=0), log_scales=torch.full((300, 3), -6.0))  # dimmed by antialiasing
    splat, camera = Splat(tiny, "antialiased", (1.0, 0.5, 0.0)), scene.cameras[0]
    expected, classic = (render(replace(splat, mode=mode), [camera]) for mode in ("antialiased", "classic"))
    assert float((expected.alpha - classic.alpha).abs().max()) > 0.1
    references = render_references([splat], scene.cameras, scene.photos)
    view = render_flawed([splat], [camera], references, scene.depth)[0]
    assert torch.equal(view.rgb, expected.rgb[0])
    assert torch.equal(view.alpha, expected.alpha[0]) and torch.equal(references[0].alpha, expected.alpha[0])


def test_views_of_nothing_are_dropped(scene):
    config = RepairConfig(views=6, rounds=1, siblings=0)
    assert len(flawed_views([Splat(random_gaussians(300, seed=0))], scene, config, 0)) == 6
    everywhere = RepairConfig(views=6, rounds=1, min_coverage=1.1)
    assert len(flawed_views([Splat(random_gaussians(300, seed=0))], scene, everywhere, 0)) < 6


def test_trust_is_confidence_times_agreement(scene):
    one, other = (Splat(random_gaussians(300, seed=seed)) for seed in (0, 9))
    references = render_references([one, other], scene.cameras, scene.photos)
    views = render_flawed([one, other], scene.cameras[:1], references, scene.depth)
    confidence = torch.full(views[0].alpha.shape, 0.5)
    config = RepairConfig(weight=0.7, spread_scale=0.1)
    view = trusted(views, [Repaired(views[0].rgb, confidence)], config)[0]
    assert view.weight == 0.7
    assert torch.allclose(view.confidence, 0.5 * torch.exp(-views[0].spread / 0.1))
    alone = trusted(views, [Repaired(views[0].rgb)], config)[0]
    assert torch.allclose(alone.confidence, 2 * view.confidence)
