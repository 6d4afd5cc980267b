"""The color drift of a repair is taken back, and nothing else of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splatfix.restoration import Repaired
from splatfix.restoration.color_match import match_color
from tests.restoration.scenery import flawed_view
from tests.test_warping import painted

GAIN = torch.tensor([0.8, 1.0, 0.93])


@pytest.fixture
def view():
    """A covered view of the painted plane, with three photos beside it."""
    view = flawed_view(width_px=96, height_px=72, num_references=3)
    return replace(view, alpha=torch.ones_like(view.alpha))


def test_a_known_gain_is_taken_back(view):
    clean = painted(view.camera)
    matched, fit = match_color(view, Repaired(clean * GAIN))
    assert fit.form == "gain"
    assert fit.gain == pytest.approx((1 / GAIN).tolist(), rel=0.01)
    assert (matched.rgb - clean).abs().mean() < 0.004


def test_what_a_repair_changes_in_places_stays(view):
    clean = painted(view.camera)
    repaired = clean.clone()
    repaired[10:25, 20:40] = torch.tensor([0.9, 0.2, 0.3])
    matched, _ = match_color(view, Repaired(repaired * GAIN))
    assert (matched.rgb - repaired).abs().mean() < 0.006


def test_a_repair_that_no_photo_agrees_with_stays_as_it_is(view):
    noise = torch.rand(view.rgb.shape, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    for case in (replace(view, references=()), view):
        matched, fit = match_color(case, Repaired(noise))
        assert fit.form == "identity"
        assert torch.allclose(matched.rgb, noise)


def test_confidence_and_size_stay(view):
    confidence = torch.rand_like(view.alpha)
    matched, _ = match_color(view, Repaired(view.rgb.clamp(0, 1), confidence))
    assert matched.confidence is confidence
    assert matched.rgb.shape == view.rgb.shape
