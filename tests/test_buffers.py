"""Buffers say which Gaussians make a pixel, and how well the photos saw it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from splatfix.buffers import (
    DILATION_PX2,
    FOOTPRINT_OCTAVES,
    MAX_ANGLE_RAD,
    NUM_PLANES,
    PLANES,
    SPREAD_SCALE,
    compute_buffers,
    describe_gaussians,
    plane_indices,
)
from splatfix.cameras import Camera
from splatfix.flawed import FlawedView, Reference, render_flawed, render_references
from splatfix.gaussians import Gaussians, Splat
from tests.splats.scene import random_gaussians, small_scene


def camera(angle_rad: float = 0.0, name: str = "view") -> Camera:
    """A camera that looks at a point at a distance of 4, from a side; at 0 rad the world's axes are its own."""
    pose = np.eye(4)
    pose[:3, :3] = [
        [math.cos(angle_rad), 0, math.sin(angle_rad)],
        [0, 1, 0],
        [-math.sin(angle_rad), 0, math.cos(angle_rad)],
    ]
    pose[:3, 3] = [0, 0, 4] - pose[:3, :3] @ [0, 0, 4]
    return Camera(name, 48, 36, np.array([[50.0, 0, 24.5], [0, 50.0, 18.5], [0, 0, 1]]), pose)


def disk(depth: float = 4.0, *, tilt_rad: float = 0.0, opacity: float = 0.95, radii=(0.4, 0.2, 0.01)) -> Gaussians:
    """One flat Gaussian in front of a camera, its long axis along x, turned about that axis."""
    return Gaussians(
        means=torch.tensor([[0.0, 0.0, depth]]),
        log_scales=torch.tensor([radii]).log(),
        quats=torch.tensor([[math.cos(tilt_rad / 2), math.sin(tilt_rad / 2), 0.0, 0.0]]),
        opacity_logits=torch.logit(torch.tensor([opacity])),
        sh0=torch.zeros(1, 1, 3),
        sh_rest=torch.zeros(1, 0, 3),
    )


def view_of(*splats: Gaussians, photos: tuple[Camera, ...] = ()) -> FlawedView:
    fits = [Splat(gaussians) for gaussians in splats]
    references = render_references(fits, photos, [torch.rand(each.height_px, each.width_px, 3) for each in photos])
    return render_flawed(fits, [camera()], references, 4.0)[0]


def center(view: FlawedView, name: str) -> list[float]:
    planes = compute_buffers(view, 0.25)[18, 24]
    return planes[PLANES[name]].tolist()


def test_the_normal_faces_the_camera_and_turns_with_the_gaussian():
    assert center(view_of(disk()), "normal") == pytest.approx([0.5, 0.5, 0.0], abs=0.02)
    for tilt in (0.5, 0.5 + math.pi):  # the other way round it is the same disk
        x, y, z = (2 * value - 1 for value in center(view_of(disk(tilt_rad=tilt)), "normal"))
        assert [x, y, z] == pytest.approx([0.0, math.sin(0.5), -math.cos(0.5)], abs=0.02)


def test_the_footprint_is_in_pixels_of_this_view():
    at = camera()
    focal_px = float(at.intrinsics[0, 0])
    for depth in (4.0, 8.0):
        major, minor = center(view_of(disk(depth)), "footprint")
        for value, radius in ((major, 0.4), (minor, 0.2)):
            expected = math.sqrt((focal_px * radius / depth) ** 2 + DILATION_PX2)
            assert 2 ** (FOOTPRINT_OCTAVES * value - 1) == pytest.approx(expected, rel=0.02)


def test_the_footprint_agrees_with_the_covariance_that_the_rasterizer_draws():
    scene = small_scene()
    gaussians, at = random_gaussians(200, seed=3), scene.cameras[0]
    from splatfix.rendering import render

    info = render(Splat(gaussians), [at]).info
    a, b, c = info["conics"][0].double().unbind(-1)  # of the inverse covariance
    inverse = torch.stack([torch.stack([a, b], -1), torch.stack([b, c], -1)], -2)
    seen = (info["radii"][0] > 0).all(-1)
    sizes = torch.linalg.eigvalsh(torch.linalg.inv(inverse[seen])).sqrt().flip(-1)
    found = describe_gaussians(gaussians, at, 1.0)[seen, 3:5].double()
    expected = ((sizes.log2() + 1) / FOOTPRINT_OCTAVES).clamp(0, 1)
    assert seen.sum() > 100
    assert (found - expected).abs().max() < 2e-3


def test_opacity_and_thickness_tell_a_surface_from_layers():
    surface = view_of(disk())
    depths = np.array([3.0, 3.5, 4.0, 5.0, 6.0, 8.0])
    layers = disk(float(depths[0]), opacity=0.3)
    for depth in depths[1:]:
        layers = layers.concatenate(disk(float(depth), opacity=0.3, radii=(1.0, 1.0, 0.01)))
    layered = view_of(layers)
    weights, nearness = 0.7 ** np.arange(len(depths)), 1 / (1 + 0.25 * depths)
    deviation = np.sqrt(np.cov(nearness, aweights=weights, ddof=0))
    assert center(surface, "opacity")[0] == pytest.approx(0.95, abs=0.01)
    assert center(layered, "opacity")[0] == pytest.approx(0.3, abs=0.01)
    assert center(surface, "thickness")[0] < 0.01
    assert center(layered, "thickness")[0] == pytest.approx(SPREAD_SCALE * deviation, rel=0.02)


def test_an_empty_pixel_is_0_in_all_planes_of_the_fit():
    planes = compute_buffers(view_of(disk()), 0.25)
    corner = planes[0, 0]
    assert corner[: PLANES["spread"].start].tolist() == [0.0] * 7
    assert corner[PLANES["seen"]].item() == 0.0 and corner[PLANES["angle"]].item() == 1.0
    assert planes.min() >= 0 and planes.max() <= 1 and planes.shape == (36, 48, NUM_PLANES)


def test_seen_counts_photos_and_angle_is_that_to_the_nearest():
    wall = disk(radii=(3.0, 3.0, 0.01), opacity=0.999)
    alone, two = view_of(wall, photos=(camera(0.3),)), view_of(wall, photos=(camera(0.3), camera(-0.2)))
    assert center(alone, "seen")[0] == pytest.approx(0.5, abs=0.05)
    assert center(two, "seen")[0] == pytest.approx(0.66, abs=0.05)
    assert center(alone, "angle")[0] == pytest.approx(0.3 / MAX_ANGLE_RAD, abs=0.06)
    assert center(two, "angle")[0] == pytest.approx(0.2 / MAX_ANGLE_RAD, abs=0.06)
    assert center(view_of(wall), "angle")[0] == 1.0


def test_several_fits_are_averaged_by_their_alpha():
    one, other = view_of(disk(opacity=0.9)), view_of(disk(opacity=0.5))
    both = view_of(disk(opacity=0.9), disk(opacity=0.5))
    expected = (0.9 * center(one, "opacity")[0] + 0.5 * center(other, "opacity")[0]) / 1.4
    assert center(both, "opacity")[0] == pytest.approx(expected, abs=0.01)


def test_a_view_without_fits_is_refused():
    depth = torch.ones(36, 48)
    view = FlawedView(camera(name="new"), torch.zeros(36, 48, 3), depth, depth)
    with pytest.raises(ValueError, match=r"^view new: has no fits to compute buffers from"):
        compute_buffers(view, 1.0)


def test_planes_are_selected_in_the_order_of_their_names():
    assert plane_indices(["angle", "normal"]) == [9, 0, 1, 2]
    assert plane_indices(list(PLANES)) == list(range(NUM_PLANES))


def test_ignored_pixels_of_a_photo_do_not_count_as_seen():
    wall = Splat(disk(radii=(3.0, 3.0, 0.01)))
    at = camera()
    [whole] = render_references([wall], [at], [torch.rand(36, 48, 3)])
    ignored = Reference(at, whole.rgb, whole.depth, whole.alpha, torch.zeros(36, 48))
    view = render_flawed([wall], [at], [ignored], 4.0)[0]
    assert compute_buffers(view, 0.25)[..., PLANES["seen"]].max() == 0
