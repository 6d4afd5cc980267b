"""Cameras: conventions, round trips, interpolation."""

import json

import numpy as np
import pytest

from splatfix.cameras import (
    Camera,
    angle_between_rad,
    estimate_depth,
    focus_point,
    interpolate_linearly,
    look_at,
    quaternion_from_rotation,
    rotation_from_quaternion,
    slerp,
)


def camera_at(center, target=(0, 0, 0), name="c", width=64, height=48) -> Camera:
    intrinsics = np.array([[60.0, 0, width / 2], [0, 55.0, height / 2], [0, 0, 1]])
    pose = look_at(np.array(center, float), np.array(target, float), np.array([0.0, -1, 0]))
    return Camera(name, width, height, intrinsics, pose)


def random_rotation(rng):
    q = rng.normal(size=4)
    return rotation_from_quaternion(q / np.linalg.norm(q))


def test_quaternion_round_trip():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rotation = random_rotation(rng)
        np.testing.assert_allclose(rotation_from_quaternion(quaternion_from_rotation(rotation)), rotation, atol=1e-12)


def test_half_turns_have_quaternions():
    for axis in np.eye(3):
        rotation = 2 * np.outer(axis, axis) - np.eye(3)
        np.testing.assert_allclose(rotation_from_quaternion(quaternion_from_rotation(rotation)), rotation, atol=1e-12)


def test_a_camera_that_looks_at_the_origin_sees_it_in_the_middle_with_y_down():
    camera = camera_at((3, 2, -4))
    pixel, depth = camera.project(np.zeros((1, 3)))
    np.testing.assert_allclose(pixel[0], [32, 24], atol=1e-9)
    assert depth[0] == pytest.approx(np.sqrt(29))
    above, _ = camera.project(np.array([[0.0, -0.1, 0]]))  # world up is -y here
    assert above[0, 1] < 24


def test_unproject_inverts_project():
    camera = camera_at((1, 2, -5))
    points = np.random.default_rng(1).uniform(-1, 1, (20, 3))
    pixels, depth = camera.project(points)
    np.testing.assert_allclose(camera.unproject(pixels, depth), points, atol=1e-12)


def test_points_behind_the_camera_are_not_seen():
    camera = camera_at((0, 0, -5))
    behind = np.array([[0.0, 0, -6]])
    assert not camera.sees(behind)[0]
    assert np.isnan(camera.project(behind)[0]).all()


def test_resize_keeps_rays():
    camera = camera_at((0, 1, -5))
    small = camera.with_longest_side(32)
    assert (small.width_px, small.height_px) == (32, 24)
    points = np.random.default_rng(2).uniform(-1, 1, (5, 3))
    np.testing.assert_allclose(small.project(points)[0] * 2, camera.project(points)[0])
    assert camera.with_longest_side(1000) is not None
    assert camera.with_longest_side(1000).width_px == 64  # never larger


def test_interpolation_starts_and_ends_at_the_cameras():
    a, b = camera_at((0, 0, -5), name="a"), camera_at((3, 0, -4), name="b")
    for t, end in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(
            interpolate_linearly(a, b, t, "m").camera_from_world, end.camera_from_world, atol=1e-9
        )
    middle = interpolate_linearly(a, b, 0.5, "m")
    assert angle_between_rad(a, middle) == pytest.approx(angle_between_rad(middle, b), abs=1e-6)


def test_slerp_takes_the_short_way():
    q = np.array([1.0, 0, 0, 0])
    np.testing.assert_allclose(np.abs(slerp(q, -q, 0.3)), q, atol=1e-12)


def test_focus_point_is_where_the_optical_axes_meet():
    cameras = [camera_at((4 * np.sin(a), 1, 4 * np.cos(a)), target=(0.5, 0, 0.2)) for a in (0, 1, 2, 4)]
    np.testing.assert_allclose(focus_point(cameras), [0.5, 0, 0.2], atol=1e-9)


def test_a_camera_survives_json():
    pose = np.eye(4)
    pose[:3, 3] = 0.1, -2, 3
    before = Camera("a/b.jpg", 40, 30, np.array([[50.5, 0, 20], [0, 51, 15], [0, 0, 1]]), pose)
    after = Camera.from_json(json.loads(json.dumps(before.to_json())))
    assert (after.name, after.width_px, after.height_px) == ("a/b.jpg", 40, 30)
    assert (after.intrinsics == before.intrinsics).all() and (after.camera_from_world == pose).all()


def rail(origin: float) -> list[Camera]:
    """Cameras on a line with parallel axes, ``origin`` units behind the origin of the world."""
    cameras = []
    for index in range(4):
        pose = np.eye(4)
        pose[:3, 3] = [-0.5 * index, 0, origin]
        cameras.append(Camera(f"{index}", 32, 24, np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]), pose))
    return cameras


@pytest.mark.parametrize("origin", [0.0, 40.0])
def test_the_depth_of_parallel_cameras_does_not_depend_on_the_origin(origin):
    cameras = rail(origin)
    assert estimate_depth(cameras, None) == pytest.approx(5 * 1.5)
    np.testing.assert_allclose(focus_point(cameras), [0.75, 0, -origin])
