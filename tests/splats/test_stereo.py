"""Plane-sweep stereo against known depth, masks, unequal photos, and photos with nothing to match."""

from dataclasses import replace

import numpy as np
import pytest

from splatfix.splats.stereo.config import StereoConfig
from splatfix.splats.stereo.cpu import compare_depths, remove_specks, sweep_planes
from splatfix.splats.stereo.plane_sweep import StereoPoints, find_stereo_points, select_neighbors, thin_points
from tests.splats.textured import camera, off_surface, photograph

CAMERAS = [camera(-0.5), camera(0.0, 0.2), camera(0.5), camera(0.2, -0.3)]
RANGES = [(1.5, 8.0)] * 4
CONFIG = StereoConfig()


@pytest.fixture(scope="module")
def photos():
    return [photograph(c) for c in CAMERAS]


@pytest.fixture(scope="module")
def points(photos) -> StereoPoints:
    return find_stereo_points(CAMERAS, [p[0] for p in photos], [None] * 4, RANGES, CONFIG)


def test_depth_is_that_of_the_scene(photos, points):
    assert points.coverage > 0.4
    for index, view in enumerate(CAMERAS):
        own = points.view == index
        depth = view.project(points.positions[own])[1]
        column, row = points.pixels[own].T
        relative = np.abs(depth / photos[index][1][row, column] - 1)
        assert np.median(relative) < 0.005
        assert (relative < 0.02).mean() > 0.97


def test_both_surfaces_are_found(points):
    on_board = points.positions[:, 2] < -0.8
    assert 0.05 < on_board.mean() < 0.6
    assert (off_surface(points.positions) < 0.08).mean() > 0.97


def test_masks_are_respected(photos):
    masks = [p[2].astype(np.float32) for p in photos]
    points = find_stereo_points(CAMERAS, [p[0] for p in photos], masks, RANGES, CONFIG)
    assert len(points) > 200
    for index in range(4):
        column, row = points.pixels[points.view == index].T
        assert (masks[index][row, column] == 1).all()
    assert (points.positions[:, 2] < -0.8).all()


def test_photos_of_unequal_size(photos):
    small = CAMERAS[1].resize(64, 48)
    cameras = [CAMERAS[0], small, CAMERAS[2]]
    images = [photos[0][0], photograph(small)[0], photos[2][0]]
    points = find_stereo_points(cameras, images, [None] * 3, RANGES[:3], CONFIG)
    assert (off_surface(points.positions) < 0.08).mean() > 0.95


def test_black_photos_give_no_points():
    black = np.zeros((96, 128, 3), np.float32)
    points = find_stereo_points(CAMERAS, [black] * 4, [None] * 4, RANGES, CONFIG)
    assert len(points) == 0
    assert points.coverage == 0


def test_invalid_arguments_are_errors():
    black = np.zeros((96, 128, 3), np.float32)
    with pytest.raises(ValueError, match="1 photo"):
        find_stereo_points(CAMERAS[:1], [black], [None], RANGES[:1], CONFIG)
    with pytest.raises(ValueError, match="depth range 2 to 1"):
        find_stereo_points(CAMERAS[:2], [black] * 2, [None] * 2, [(1, 2), (2, 1)], CONFIG)


def test_neighbors_are_the_nearest_that_differ():
    ring = [CAMERAS[0], CAMERAS[0], camera(3.0), camera(0.0), camera(-0.9)]
    assert select_neighbors(ring, 0, 3.5, replace(CONFIG, num_neighbours=2)) == [4, 3]
    assert select_neighbors(ring, 0, 3.5, replace(CONFIG, max_neighbour_angle_deg=5.0)) == []


def test_correlation_is_one_at_the_true_plane():
    rng = np.random.default_rng(0)
    image = rng.random((20, 30)).astype(np.float32)
    warp = np.concatenate([np.eye(3), [[10.0], [0], [0]]], 1)[None]  # inverse depth 0.3 shifts by 3 px
    shifted = np.roll(image, 3, axis=1) * 0.5 + 0.2  # brightness and contrast do not matter
    ones = np.ones(image.shape, bool)
    volume = sweep_planes(image, ones, shifted[None], ones[None], warp, np.array([0.0, 0.3]), np.array([2, 3]), 1e-6)
    middle = np.s_[5:15, 8:20]
    np.testing.assert_allclose(volume[1][middle], 1, atol=1e-4)
    assert volume[0][middle].mean() < 0.3


def test_correlation_equals_its_definition():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 16, 18)).astype(np.float32)
    warp = np.concatenate([np.eye(3), np.zeros((3, 1))], 1)[None]
    ones = np.ones(a.shape, bool)
    volume = sweep_planes(a, ones, b[None], ones[None], warp, np.array([0.5]), np.array([2]), 1e-6)
    for y, x in [(5, 6), (9, 12)]:
        window = np.s_[y - 2 : y + 3, x - 2 : x + 3]
        assert volume[0, y, x] == pytest.approx(np.corrcoef(a[window].ravel(), b[window].ravel())[0, 1], abs=1e-4)


def test_comparing_depths_and_removing_specks():
    depth_map = np.zeros((6, 6), np.float32)
    depth_map[2:4, 2:4] = 2.0
    pixels = np.array([[3.0, 3.0], [3.0, 3.0], [3.0, 3.0], [0.5, 0.5], [-9.0, 99.0]])
    votes = compare_depths(pixels, np.array([2.01, 1.5, 3.0, 2.0, 2.0]), depth_map, 0.015)
    np.testing.assert_array_equal(votes, [1, -1, 0, 0, 0])
    assert (remove_specks(depth_map, 0.03, 3) > 0).sum() == 4
    assert (remove_specks(depth_map, 0.03, 4) > 0).sum() == 0


def test_thinning_is_even_and_repeatable():
    column, row = np.meshgrid(np.arange(64), np.arange(64))
    pixels = np.stack([column.ravel(), row.ravel()], 1)
    n = len(pixels)
    points = StereoPoints(np.zeros((n, 3)), np.zeros(n, int), pixels, np.ones(n, int), 1.0)
    kept = thin_points(points, 256, np.random.default_rng(3))
    assert len(kept) == 256
    np.testing.assert_array_equal(kept, thin_points(points, 256, np.random.default_rng(3)))
    blocks = np.bincount((pixels[kept] // 16) @ [1, 4], minlength=16)
    assert blocks.min() >= 15
    assert blocks.max() <= 17
    np.testing.assert_array_equal(thin_points(points, n, np.random.default_rng(0)), np.arange(n))
