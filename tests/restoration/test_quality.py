"""Trust in repaired pixels: photos contradict what was invented."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splatfix.restoration.quality import compute_quality, warp_references
from tests.restoration.scenery import flawed_view
from tests.test_warping import painted

SCALE = 0.1


@pytest.fixture
def view():
    """A view of the painted plane, covered everywhere, with three photos beside it."""
    view = flawed_view(width_px=80, height_px=60, num_references=3)
    return replace(view, alpha=torch.ones_like(view.alpha))


def seen(view):
    return torch.stack([validity for _, validity in warp_references(view, view.references)]).amax(0) > 0.9


def test_a_true_repair_is_trusted_and_an_invented_patch_is_not(view):
    truth = painted(view.camera)
    invented = truth.clone()
    invented[20:35, 30:45] = 1 - truth[20:35, 30:45]
    quality = compute_quality(view, invented, scale=SCALE)
    inside = torch.zeros_like(view.alpha, dtype=torch.bool)
    inside[22:33, 32:43] = True
    near = torch.zeros_like(inside)
    near[18:37, 28:47] = True
    assert quality[inside & seen(view)].mean() < 0.2
    assert quality[~near & seen(view)].mean() > 0.9


def test_a_shift_by_one_pixel_is_forgiven(view):
    truth = painted(view.camera)
    shifted = torch.roll(truth, 1, dims=1)
    where = seen(view)
    where[:, :3] = False
    assert compute_quality(view, shifted, scale=SCALE)[where].mean() > 0.9


def test_one_photo_that_agrees_is_enough(view):
    spoiled = replace(view.references[0], rgb=1 - view.references[0].rgb)
    view = replace(view, references=(spoiled, *view.references[1:]))
    where = seen(replace(view, references=view.references[1:]))
    assert compute_quality(view, painted(view.camera), scale=SCALE)[where].mean() > 0.9


def test_what_no_photo_sees_gets_the_trust_of_the_unseen(view):
    hidden = tuple(replace(reference, depth=reference.depth / 2) for reference in view.references)  # something in front
    view = replace(view, references=hidden)
    assert torch.allclose(
        compute_quality(view, 1 - painted(view.camera), scale=SCALE, unseen=0.3),
        torch.tensor(0.3),
        atol=0.05,
    )
    assert compute_quality(replace(view, references=()), view.rgb, scale=SCALE).min() == pytest.approx(1)
