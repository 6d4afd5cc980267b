"""Camera paths for videos."""

from itertools import pairwise

import numpy as np
import pytest

from splatfix.cameras import Camera, look_at
from splatfix.evaluation.camera_path import path_cameras

INTRINSICS = np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])


def ring(num: int, radius: float = 2.0, arc_rad: float = 2 * np.pi) -> list[Camera]:
    """Cameras on an arc that look at the origin, in an order that is not the tour's."""
    angles = np.arange(num) * arc_rad / num
    cameras = []
    for i in np.random.default_rng(0).permutation(num):
        center = radius * np.array([np.cos(angles[i]), np.sin(angles[i]), 0.3])
        cameras.append(Camera(f"{i}", 64, 48, INTRINSICS, look_at(center, np.zeros(3), np.array([0.0, 0, 1]))))
    return cameras


@pytest.mark.parametrize("num", [2, 3, 6, 30])
def test_path_is_smooth_and_goes_beyond_the_cameras(num):
    cameras = ring(num, arc_rad=np.pi)
    path = path_cameras(cameras, 60)
    assert len(path) == 60 and len({camera.name for camera in path}) == 60
    centers = np.stack([camera.center for camera in path])
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert steps.max() < 3.5 * np.median(steps)
    turns = [np.degrees(np.arccos(np.clip(a.axis @ b.axis, -1, 1))) for a, b in pairwise(path)]
    assert max(turns) < 15
    for camera in path:
        assert np.allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(camera.rotation) == pytest.approx(1)
    training = np.stack([camera.center for camera in cameras])
    gaps = np.linalg.norm(training[:, None] - training[None], axis=-1)
    assert np.linalg.norm(training - centers[0], axis=1).min() > 0.05 * gaps[gaps > 0].min()


def test_path_follows_neighbours_not_the_given_order():
    centers = np.stack([camera.center for camera in path_cameras(ring(8), 200)])
    length = np.linalg.norm(np.diff(centers, axis=0), axis=1).sum()
    assert length < 2 * np.pi * 2.1 * 1.2  # about once around


@pytest.mark.parametrize("num", [3, 4, 6])
def test_path_keeps_what_the_cameras_look_at_in_sight(num):
    for camera in path_cameras(ring(num), 90):
        pixel, depth = camera.project(np.zeros(3))
        assert 1.5 < depth < 3.0
        assert np.abs(pixel - [32, 24]).max() < 20, camera.name


def test_path_of_one_camera_of_copies_and_of_none():
    camera = ring(1)[0]
    assert len(path_cameras([camera], 3)) == 3
    assert all(np.isfinite(c.camera_from_world).all() for c in path_cameras([camera, camera], 5))
    with pytest.raises(ValueError, match="at least one"):
        path_cameras([], 3)


def test_path_has_one_size():
    cameras = ring(5)
    cameras[0] = cameras[0].resize(48, 64)
    assert {(c.width_px, c.height_px) for c in path_cameras(cameras, 4)} == {(64, 48)}
