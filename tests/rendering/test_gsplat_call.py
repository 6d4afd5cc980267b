"""How ``cuda.render`` calls gsplat, checked without a GPU: gsplat's function is replaced by one that takes notes."""

from __future__ import annotations

import inspect

import pytest
import torch

from splatfix.rendering import cuda
from tests.rendering.scenes import camera, cloud, leaves

gsplat = pytest.importorskip("gsplat")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The arguments of the last call."""
    signature, notes = inspect.signature(gsplat.rasterization), {}

    def rasterization(*args, **kwargs):
        notes.update(signature.bind(*args, **kwargs).arguments)
        shape = (len(notes["viewmats"]), notes["height"], notes["width"])
        return torch.ones(*shape, 4), torch.ones(*shape, 1), {"means2d": torch.zeros(len(notes["means"]), 2)}

    monkeypatch.setattr(gsplat, "rasterization", rasterization)
    return notes


def test_one_padded_call(noted: dict) -> None:
    keep = torch.arange(30) % 2 == 0
    views = [camera(20, 10), camera(8, 12)]
    rgb, alpha, depth, _ = cuda.render(cloud(30, degree=2), views, torch.rand(3), True, 1, keep, absgrad=True)
    assert rgb.shape == (2, 12, 20, 3)
    for image in (rgb.mean(-1), alpha, depth):
        assert image[0, :10].all()
        assert not image[0, 10:].any()
        assert image[1, :, :8].all()
        assert not image[1, :, 8:].any()
    assert noted["colors"].shape == (30, 9, 3)
    assert noted["sh_degree"] == 1
    assert noted["backgrounds"].shape == (2, 3)
    assert (noted["render_mode"], noted["rasterize_mode"]) == ("RGB+ED", "antialiased")
    assert noted["packed"] is False
    assert noted["absgrad"] is True
    assert not noted["opacities"][~keep].any()
    assert noted["opacities"][keep].all()


def test_no_gaussians_never_reach_gsplat(noted: dict) -> None:
    gaussians = leaves(cloud(0))
    background = torch.tensor([0.1, 0.2, 0.3])
    rgb, alpha, depth, info = cuda.render(gaussians, [camera(6, 5)], background, False, 3, None)
    assert not noted
    assert torch.equal(rgb, background.expand(1, 5, 6, 3))
    assert not alpha.any()
    assert not depth.any()
    info["means2d"].retain_grad()
    assert info["means2d"].shape == info["radii"].shape == (1, 0, 2)
