"""Restorers without learned parameters: shapes, ranges, gains, and options."""

from __future__ import annotations

import pytest
import torch

from splatfix.metrics import psnr
from splatfix.restoration import open_restorer
from splatfix.restoration.baselines import Bilateral, Warp
from tests.restoration.scenery import flawed_view
from tests.test_warping import painted


@pytest.mark.parametrize("name", ["identity", "classical", "warp"])
def test_results_have_the_size_and_range_of_images(name):
    views = [flawed_view(i) for i in range(3)] + [flawed_view(0, 37, 51), flawed_view(1, num_references=0)]
    results = open_restorer(name, device="cpu").repair(views, seed=0)
    assert len(results) == len(views)
    for view, repaired in zip(views, results, strict=True):
        assert repaired.rgb.shape == view.rgb.shape
        assert repaired.rgb.min() >= 0
        assert repaired.rgb.max() <= 1
        if repaired.confidence is not None:
            assert repaired.confidence.shape == view.alpha.shape
            assert repaired.confidence.min() >= 0
            assert repaired.confidence.max() <= 1


@pytest.mark.parametrize(("name", "least_gain"), [("identity", -1e-6), ("classical", 0.5), ("warp", 3.0)])
def test_baselines_raise_the_psnr(name, least_gain):
    views = [flawed_view(i) for i in range(4)]
    for view, repaired in zip(views, open_restorer(name, "cpu").repair(views, seed=0), strict=True):
        clean = painted(view.camera)
        assert psnr(repaired.rgb, clean) - psnr(view.rgb.clamp(0, 1), clean) >= least_gain


def test_warp_leaves_the_render_alone_without_agreeing_photos():
    view = flawed_view(1, num_references=0)
    (repaired,) = open_restorer("warp", "cpu").repair([view], seed=0)
    torch.testing.assert_close(repaired.rgb, view.rgb.clamp(0, 1))
    assert repaired.confidence.max() == 0


def test_options_change_the_filter():
    view = flawed_view(0)
    (narrow,), (wide,) = (Bilateral(sigma_color=sigma).repair([view], seed=0) for sigma in (1e-4, 0.5))
    assert (narrow.rgb - view.rgb.clamp(0, 1)).abs().mean() < (wide.rgb - view.rgb.clamp(0, 1)).abs().mean()
    (one,), (two,) = (Warp(num_references=num).repair([view], seed=0) for num in (1, 2))
    assert not torch.equal(one.rgb, two.rgb)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Bilateral, "radius_px", 0),
        (Bilateral, "sigma_px", 0.0),
        (Bilateral, "sigma_color", float("nan")),
        (Warp, "num_references", 0),
        (Warp, "sigma_color", -0.1),
    ],
)
def test_options_out_of_range_are_refused(kind, field, value):
    with pytest.raises(ValueError, match=f"^{field} = {value}: wanted "):
        kind(**{field: value})
