"""Triangulation against known geometry: exact tracks, rendered photos, and what must be refused."""

import numpy as np
import pytest

from splatfix.splats import triangulate as module
from splatfix.splats.triangulate import (
    TriangulateConfig,
    epipolar_distance_px,
    extract_keypoints,
    link_tracks,
    match_descriptors,
    triangulate,
    triangulate_tracks,
)
from tests.splats.textured import camera, off_surface, photograph

CAMERAS = [camera(-0.6), camera(0.0, 0.2), camera(0.6), camera(0.3, -0.4)]
EXACT = np.random.default_rng(0).uniform([-0.8, -0.6, -1.2], [0.8, 0.6, 0.0], (50, 3))
CONFIG = TriangulateConfig()


def observed(points=EXACT) -> np.ndarray:
    return np.stack([c.project(points)[0] for c in CAMERAS], 1)


def test_exact_pixels_give_exact_points():
    found = triangulate_tracks(CAMERAS, observed(), CONFIG)
    np.testing.assert_allclose(found.positions, EXACT, atol=1e-9)
    assert found.seen.all()
    assert found.errors_px.max() < 1e-6


def test_a_wrong_observation_is_removed_and_a_wrong_pair_is_dropped():
    pixels = observed()
    pixels[7, 2] += [4.0, 9.0]
    pixels[8, 2:] = np.nan
    pixels[8, 1] += [0.0, 12.0]
    found = triangulate_tracks(CAMERAS, pixels, CONFIG)
    assert len(found) == 49
    np.testing.assert_array_equal(found.seen[7], [True, True, False, True])
    np.testing.assert_allclose(found.positions, np.delete(EXACT, 8, axis=0), atol=1e-6)


def test_points_behind_the_cameras_and_under_narrow_angles_are_dropped():
    behind = EXACT * [1, 1, 0] + [0, 0, -9.0]
    local = [(behind @ c.rotation.T + c.camera_from_world[:3, 3]) @ c.intrinsics.T for c in CAMERAS]
    mirrored = np.stack([x[:, :2] / x[:, 2:] for x in local], 1)
    assert len(triangulate_tracks(CAMERAS, mirrored, CONFIG)) == 0
    pair = observed()
    pair[:, 2:] = np.nan
    assert len(triangulate_tracks(CAMERAS, pair, CONFIG)) == 50
    assert len(triangulate_tracks(CAMERAS, pair, TriangulateConfig(min_angle_deg=25.0))) == 0


def test_epipolar_distance_is_zero_for_one_point_and_the_offset_across_the_line():
    a, b = CAMERAS[0], CAMERAS[2]  # nearly horizontal epipolar lines
    x, y = a.project(EXACT)[0], b.project(EXACT)[0]
    np.testing.assert_allclose(epipolar_distance_px(a, b, x, y), 0, atol=1e-9)
    off = epipolar_distance_px(a, b, x, y + np.array([0, 3.0]))
    assert (np.abs(off - 3) < 0.5).all()


def test_matches_are_mutual_and_distinct():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((30, 128)).astype(np.float32)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    order = rng.permutation(30)
    b = a[order].copy()
    b[order == 5] = b[order == 6]  # two alike: neither is distinct
    pairs, _ = match_descriptors(a, b, 0.8)
    assert (order[pairs[:, 1]] == pairs[:, 0]).all()
    assert set(pairs[:, 0]) == set(range(30)) - {5, 6}
    assert len(match_descriptors(a[:1], b, 0.8)[0]) == 0


def test_descriptors_are_matched_with_torch_as_on_the_cpu(monkeypatch):
    """Noisy ones, in which identical descriptors, exact copies and equal distances are mixed."""
    rng = np.random.default_rng(4)
    a = rng.random((400, 128)).astype(np.float32)
    a[50:60] = a[40:50]  # twice in a photo: which one matches is not known
    b = a[rng.permutation(400)[:300]] + rng.normal(0, 0.1, (300, 128)).astype(np.float32) * (rng.random((300, 1)) < 0.8)
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b.astype(np.float32)))
    for ratio in (0.8, 1.2):  # above 1, equal distances pass the test
        pairs, distances = match_descriptors(a, b, ratio)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_find_two_nearest", lambda *both: module._find_two_nearest_with_torch(*both, "cpu"))
            found, found_distances = match_descriptors(a, b, ratio)
        assert len(pairs) > 200
        np.testing.assert_array_equal(found, pairs)
        np.testing.assert_allclose(found_distances, distances, atol=1e-3)


def test_tracks_hold_one_keypoint_per_view_and_prefer_the_better_match():
    view_of = np.array([0, 0, 1, 1, 2])
    edges = np.array([[0, 2], [2, 4], [1, 4], [1, 3]])
    tracks = link_tracks(edges, np.array([0.1, 0.2, 0.3, 0.4]), view_of, 3)
    assert sorted(map(tuple, tracks.tolist())) == [(0, 2, 4), (1, 3, -1)]


def test_keypoint_pixels_have_their_centers_at_one_half():
    x, y = np.meshgrid(np.arange(120) + 0.5, np.arange(100) + 0.5)
    blob = np.exp(-((x - 60.5) ** 2 + (y - 40.5) ** 2) / 32).astype(np.float32)
    pixels, descriptors = extract_keypoints(blob[..., None].repeat(3, -1), None, CONFIG)
    np.testing.assert_allclose(pixels[0], [60.5, 40.5], atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_photos_of_a_known_scene():
    photos, _, boards = zip(*map(photograph, CAMERAS), strict=True)
    found = triangulate(CAMERAS, photos, [None] * 4, CONFIG)
    assert len(found) > 100
    assert (off_surface(found.positions) < 0.02 * 4).mean() > 0.98
    assert np.median(off_surface(found.positions)) < 0.01
    masked = triangulate(CAMERAS, photos, [board.astype(np.float32) for board in boards], CONFIG)
    assert 0 < len(masked) < len(found)
    assert (masked.positions[:, 2] < -0.8).all()


def test_photos_without_texture_give_no_points():
    black = np.zeros((96, 128, 3), np.float32)
    found = triangulate(CAMERAS, [black] * 4, [None] * 4, CONFIG)
    assert len(found) == 0
    assert found.seen.shape == (0, 4)


def test_a_single_photo_is_an_error():
    with pytest.raises(ValueError, match="1 photo"):
        triangulate(CAMERAS[:1], [np.zeros((96, 128, 3), np.float32)], [None], CONFIG)
