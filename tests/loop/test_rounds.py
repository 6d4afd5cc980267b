"""Rounds: which views are repaired, and how repaired views are kept and trained on."""

from __future__ import annotations

import pytest
import torch

from splatfix.evaluation.layout import repair_path
from splatfix.flawed import render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.images import read_image
from splatfix.loop import LoopConfig, RepairConfig
from splatfix.loop.repaired_views import RepairedView, make_training_views, prepare_repairs
from splatfix.loop.rounds import _repair_views, render_novel_views
from splatfix.restoration import Repaired
from splatfix.runs import Run
from splatfix.splats.checkpoints import read_checkpoint, write_checkpoint
from tests.splats.scene import random_gaussians, small_scene


@pytest.fixture(scope="module")
def scene():
    return small_scene()


@pytest.fixture(scope="module")
def flawed(scene):
    """One view of two fits that differ."""
    splats = [Splat(random_gaussians(300, seed=seed)) for seed in (0, 9)]
    references = render_references(splats, scene.cameras, scene.photos)
    return render_flawed(splats, scene.cameras[:1], references, scene.depth)


def test_views_of_nothing_are_dropped(scene):
    config = RepairConfig(views=6, rounds=1, siblings=0)
    assert len(render_novel_views([Splat(random_gaussians(300, seed=0))], scene, config, 0)) == 6
    everywhere = RepairConfig(views=6, rounds=1, min_coverage=1.1)
    assert len(render_novel_views([Splat(random_gaussians(300, seed=0))], scene, everywhere, 0)) < 6


def test_confidence_is_the_restorers_times_the_agreement_of_the_fits(flawed):
    agreement = torch.exp(-flawed[0].spread / 0.1)
    half = Repaired(flawed[0].rgb, torch.full(flawed[0].alpha.shape, 0.5))
    for repair, scale, expected in (
        (half, 0.1, 0.5 * agreement),
        (Repaired(flawed[0].rgb), 0.1, agreement),
        (half, None, torch.full_like(agreement, 0.5)),
    ):
        view = make_training_views(prepare_repairs(flawed, [repair], RepairConfig(spread_scale=scale)), 0.7)[0]
        assert view.weight == 0.7
        torch.testing.assert_close(view.confidence, expected, rtol=0, atol=0.501 / 255)
    sure = make_training_views(prepare_repairs(flawed, [Repaired(flawed[0].rgb)], RepairConfig()), 1.0)[0]
    assert sure.confidence is None
    torch.testing.assert_close(sure.rgb, flawed[0].rgb.clamp(0, 1), rtol=0, atol=0.501 / 255)


def test_the_masks_of_repaired_views_are_written(scene, tmp_path):
    class Half:
        def repair(self, views, *, seed):  # noqa: ARG002
            masks = [torch.arange(view.alpha.shape[1]).expand(view.alpha.shape) < 10 for view in views]
            return [Repaired(view.rgb, None, mask) for view, mask in zip(views, masks, strict=True)]

    splat = Splat(random_gaussians(300, seed=0))
    config = LoopConfig(repair=RepairConfig(views=4, rounds=1, siblings=0))
    views, _ = _repair_views(Run(tmp_path), scene, [splat], Half(), config, 1)
    assert len(views) == 4
    for view in views:
        mask = read_image(repair_path(tmp_path, 1, view.camera.name, "mask"))
        assert mask.shape[:2] == (view.camera.height_px, view.camera.width_px)
        assert (mask[:, :10] == 1).all() and (mask[:, 10:] == 0).all()


def test_a_repaired_view_survives_its_checkpoint(flawed, tmp_path):
    view = prepare_repairs(flawed, [Repaired(flawed[0].rgb * 2)], RepairConfig(spread_scale=0.1))[0]
    write_checkpoint(tmp_path / "a.pt", "identity", view.to_state())
    again = RepairedView.from_state(read_checkpoint(tmp_path / "a.pt", "identity", torch.device("cpu")))
    assert torch.equal(again.rgb, view.rgb) and torch.equal(again.confidence, view.confidence)
    assert (again.camera.name, again.camera.width_px, again.camera.height_px) == (
        *(view.camera.name, view.camera.width_px, view.camera.height_px),
    )
    assert (again.camera.intrinsics == view.camera.intrinsics).all()
    assert (again.camera.camera_from_world == view.camera.camera_from_world).all()
