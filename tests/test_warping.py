"""Warped references match the geometry, and validity is low where a warp cannot be trusted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from splatfix.cameras import Camera, look_at
from splatfix.warping import reproject, sample_bilinear, warp_reference

WIDTH_PX, HEIGHT_PX = 40, 30


def camera(x: float, z: float = -4.0, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> Camera:
    pose = look_at(np.array([x, 0.0, z]), np.array([0.1 * x, 0.0, 0.0]), np.array([0.0, -1.0, 0.0]))
    intrinsics = np.array([[50.0, 0, WIDTH_PX / 2], [0, 50.0, HEIGHT_PX / 2], [0, 0, 1]])
    return Camera(f"x{x}", WIDTH_PX, HEIGHT_PX, intrinsics, pose).resize(width_px, height_px)


def plane_depth(of: Camera, offset: float = 0.0) -> torch.Tensor:
    """Depth along the axis of the world plane z = offset."""
    y, x = np.mgrid[0 : of.height_px, 0 : of.width_px] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(of.intrinsics).T @ of.rotation
    return torch.tensor((offset - of.center[2]) / rays[..., 2], dtype=torch.float32)


def painted(of: Camera) -> torch.Tensor:
    """A smooth texture on the plane z = 0, as seen by the camera."""
    y, x = np.mgrid[0 : of.height_px, 0 : of.width_px] + 0.5
    points = of.unproject(np.stack([x, y], -1), plane_depth(of).double().numpy())
    colors = 0.5 + 0.4 * np.stack([np.sin(points[..., 0]), np.cos(points[..., 1]), np.sin(points.sum(-1))], -1)
    return torch.tensor(colors, dtype=torch.float32)


def posed(of: Camera, depth: torch.Tensor | None = None) -> SimpleNamespace:
    depth = plane_depth(of) if depth is None else depth
    return SimpleNamespace(camera=of, rgb=painted(of), depth=depth, alpha=torch.ones_like(depth), validity=None)


def test_reproject_agrees_with_the_cameras_in_float64():
    a, b = camera(0.3), camera(-0.5)
    depth = plane_depth(a).double()
    pixels, z = reproject(a, depth, b)
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX] + 0.5
    wanted_pixels, wanted_z = b.project(a.unproject(np.stack([x, y], -1), depth.numpy()))
    np.testing.assert_allclose(pixels.numpy(), wanted_pixels, atol=1e-9)
    np.testing.assert_allclose(z.numpy(), wanted_z, atol=1e-9)


def test_warping_a_view_into_itself_changes_nothing():
    a = camera(0.2)
    rgb, validity = warp_reference(a, plane_depth(a), torch.ones(HEIGHT_PX, WIDTH_PX), posed(a))
    torch.testing.assert_close(rgb, painted(a), atol=1e-4, rtol=0)
    assert validity.min() > 0.99


@pytest.mark.parametrize("size", [(WIDTH_PX, HEIGHT_PX), (73, 51)])
def test_a_textured_plane_is_warped_exactly(size):
    view, reference = camera(0.3), camera(-0.3, width_px=size[0], height_px=size[1])
    rgb, validity = warp_reference(view, plane_depth(view), torch.ones(HEIGHT_PX, WIDTH_PX), posed(reference))
    seen = validity > 0.5
    assert 0.6 < seen.float().mean() < 1
    assert (rgb - painted(view)).abs()[seen].max() < 0.02  # half a pixel at the border is repeated
    assert (rgb[validity == 0] == 0).all()


def test_surfaces_occluded_in_the_reference_are_not_valid():
    view, reference = camera(0.3), camera(-0.3)
    occluded = posed(reference, plane_depth(reference, offset=-1.5))
    _, validity = warp_reference(view, plane_depth(view), torch.ones(HEIGHT_PX, WIDTH_PX), occluded)
    assert validity.max() < 0.01


def test_validity_follows_alpha_and_needs_depth():
    a = camera(0.0)
    alpha = torch.full((HEIGHT_PX, WIDTH_PX), 0.5)
    depth = plane_depth(a)
    depth[:5] = 0
    rgb, validity = warp_reference(a, depth, alpha, posed(a))
    assert (validity[:5] == 0).all()
    assert (rgb[:5] == 0).all()
    torch.testing.assert_close(validity[8:], alpha[8:], atol=0.01, rtol=0)


def test_ignored_pixels_of_a_photo_are_not_warped_into_a_view():
    view, reference = camera(0.3), posed(camera(-0.3))
    reference.validity = torch.ones(HEIGHT_PX, WIDTH_PX)
    reference.validity[8:20, 10:25] = 0
    given = (view, plane_depth(view), torch.ones(HEIGHT_PX, WIDTH_PX))
    red = torch.tensor([1.0, 0.0, 0.0])
    reference.rgb = torch.where(reference.validity[..., None] > 0, reference.rgb, red)
    rgb, validity = warp_reference(*given, reference)
    _, hidden = warp_reference(*given, SimpleNamespace(**{**vars(reference), "validity": 1 - reference.validity}))
    reference.validity, reference.rgb = None, painted(reference.camera)
    plain, everywhere = warp_reference(*given, reference)
    assert validity[hidden > 0.99].max() < 0.01 and int((hidden > 0.99).sum()) > 50
    torch.testing.assert_close(validity + hidden, everywhere, atol=1e-5, rtol=0)
    torch.testing.assert_close(rgb[validity > 0], plain[validity > 0], atol=0.05, rtol=0)


def test_large_world_coordinates_keep_their_precision():
    shift = np.eye(4)
    shift[:3, 3] = [4e6, -5e6, 1e5]
    cameras = [camera(0.3), camera(-0.3)]
    far = [Camera(c.name, c.width_px, c.height_px, c.intrinsics, c.camera_from_world @ shift) for c in cameras]
    near_pixels, _ = reproject(cameras[0], plane_depth(cameras[0]), cameras[1])
    far_pixels, _ = reproject(far[0], plane_depth(cameras[0]), far[1])
    assert (near_pixels - far_pixels).abs().max() < 1e-3


def test_points_behind_the_reference_have_no_pixels():
    view, behind = camera(0.0), camera(0.0, z=1.0)
    pixels, z = reproject(view, plane_depth(view), behind)
    assert (z[torch.isfinite(pixels).all(-1)] > 0).all()
    _, validity = warp_reference(view, plane_depth(view), torch.ones(HEIGHT_PX, WIDTH_PX), posed(behind))
    assert torch.isfinite(validity).all()
    assert (validity[z <= 0] == 0).all()


def test_sample_hits_pixel_centers_exactly():
    image = torch.rand(4, 6, 2)
    y, x = torch.meshgrid(torch.arange(4) + 0.5, torch.arange(6) + 0.5, indexing="ij")
    torch.testing.assert_close(sample_bilinear(image, torch.stack([x, y], -1)), image)
