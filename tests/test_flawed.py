"""Flawed views have the nearest photos as references; several fits are averaged."""

from dataclasses import replace

import pytest
import torch

from splatfix.flawed import render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.rendering import render
from splatfix.splats.scene import SparseScene
from splatfix.views import interpolate_on_arc
from tests.splats.scene import random_gaussians, small_scene


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    return small_scene()


def test_references_are_the_nearest_photos(scene):
    splat = Splat(random_gaussians(300, seed=0))
    references = render_references([splat], scene.cameras, scene.photos)
    camera = interpolate_on_arc(scene.cameras[1], scene.cameras[2], 0.3, scene.depth, "new")
    view = render_flawed([splat], [camera], references, scene.depth, num_references=2)[0]
    assert [reference.camera.name for reference in view.references] == ["v01.png", "v02.png"]
    assert torch.equal(view.rgb, render(splat, [camera]).rgb[0])
    assert view.spread is None


def test_several_fits_are_averaged_and_their_deviation_is_the_spread(scene):
    one, other = (Splat(random_gaussians(300, seed=seed)) for seed in (0, 9))
    references = render_references([one, other], scene.cameras, scene.photos)
    view = render_flawed([one, other], scene.cameras[:1], references, scene.depth)[0]
    renders = [render(splat, scene.cameras[:1]).rgb[0] for splat in (one, other)]
    assert torch.allclose(view.rgb, (renders[0] + renders[1]) / 2, atol=1e-6)
    assert float(view.spread.max()) > 0.1
    same = render_flawed([one, one], scene.cameras[:1], references, scene.depth)[0]
    assert float(same.spread.max()) < 1e-6


def test_views_are_rendered_in_the_mode_of_the_splat_over_its_background(scene):
    tiny = replace(random_gaussians(300, seed=0), log_scales=torch.full((300, 3), -6.0))  # dimmed by antialiasing
    splat, camera = Splat(tiny, "antialiased", (1.0, 0.5, 0.0)), scene.cameras[0]
    expected, classic = (render(replace(splat, mode=mode), [camera]) for mode in ("antialiased", "classic"))
    assert float((expected.alpha - classic.alpha).abs().max()) > 0.1
    references = render_references([splat], scene.cameras, scene.photos)
    view = render_flawed([splat], [camera], references, scene.depth)[0]
    assert torch.equal(view.rgb, expected.rgb[0])
    assert torch.equal(view.alpha, expected.alpha[0]) and torch.equal(references[0].alpha, expected.alpha[0])
