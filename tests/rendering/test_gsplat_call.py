"""How ``cuda.render`` calls gsplat, checked without a GPU: gsplat's function is replaced by one that takes notes."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import pytest
import torch

from splatfix.gaussians import Splat
from splatfix.rendering import cuda
from tests.rendering.scenes import camera, cloud, leaves

gsplat = pytest.importorskip("gsplat")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The arguments of the last call, and all sizes that were asked for. Images of the n-th call have the value n."""
    signature, notes = inspect.signature(gsplat.rasterization), {}

    def rasterization(*args, **kwargs):
        notes.update(signature.bind(*args, **kwargs).arguments)
        num, *size = len(notes["viewmats"]), notes["height"], notes["width"]
        notes.setdefault("sizes", []).append((num, *size))
        value = len(notes["sizes"])
        means2d = torch.full((num, len(notes["means"]), 2), value)
        info = {"means2d": means2d.float(), "radii": means2d.int(), "conics": means2d}
        return torch.full((num, *size, 4), float(value)), torch.full((num, *size, 1), float(value)), info

    def spherical_harmonics(degree, directions, coefficients, masks):
        notes["degree"], notes["coefficients"], notes["masks"] = degree, coefficients, masks
        return directions - 0.5

    monkeypatch.setattr(gsplat, "rasterization", rasterization)
    monkeypatch.setattr(gsplat, "spherical_harmonics", spherical_harmonics)
    return notes


def test_cameras_of_each_size_are_drawn_in_one_call_and_padded(noted: dict) -> None:
    keep = torch.arange(30) % 2 == 0
    views = [camera(20, 10), camera(8, 12), camera(20, 10, angle_rad=1.0), camera(8, 12, angle_rad=2.0)]
    rgb, alpha, depth, info = cuda.render(cloud(30, degree=2), views, torch.rand(3), True, 1, keep, absgrad=True)
    assert noted["sizes"] == [(2, 10, 20), (2, 12, 8)]
    assert rgb.shape == (4, 12, 20, 3)
    for image in (rgb.mean(-1), alpha, depth):
        for wide in (0, 2):
            assert (image[wide, :10] == 1).all()
            assert not image[wide, 10:].any()
        for tall in (1, 3):
            assert (image[tall, :, :8] == 2).all()
            assert not image[tall, :, 8:].any()
    assert info["means2d"][:, 0, 0].tolist() == info["radii"][:, 0, 0].tolist() == [1, 2, 1, 2]
    poses = torch.stack([torch.as_tensor(view.camera_from_world).float() for view in (views[1], views[3])])
    torch.testing.assert_close(noted["viewmats"], poses)
    _, _, _, info = cuda.render(cloud(30, degree=2), views[:1], torch.rand(3), True, 1, keep, absgrad=True)
    assert "conics" in info
    assert noted["coefficients"].shape == (1, 30, 9, 3)
    assert noted["degree"] == 1
    directions = cloud(30, degree=2).means - torch.as_tensor(views[0].center).float()
    torch.testing.assert_close(noted["colors"], directions.clamp_min(0)[None])
    assert "sh_degree" not in noted  # the colors are final
    assert noted["backgrounds"].shape == (1, 3)
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


@pytest.mark.parametrize(
    ("mode", "length", "is_warned"), [("antialiased", 700, True), ("antialiased", 300, False), ("classic", 700, False)]
)
def test_needles_that_gsplat_draws_inexactly_are_announced(mode: str, length: float, is_warned: bool, caplog) -> None:
    gaussians = cloud(200)
    log_scales = torch.zeros(200, 3)
    log_scales[:5, 1] = math.log(length)
    cuda.warn_of_needles(Splat(replace(gaussians, log_scales=log_scales), mode, None))
    assert ("2.5 % of the Gaussians are more than 500 times as long as thin" in caplog.text) == is_warned
