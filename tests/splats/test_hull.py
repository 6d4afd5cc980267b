"""Visual hull, depth ranges and random points in the space that photos share."""

from dataclasses import replace

import numpy as np

from splatfix.splats.hull import depth_ranges, draw_random_points, is_in_hull
from tests.splats.textured import camera, off_surface, photograph

CAMERAS = [camera(-0.5), camera(0.0, 0.2), camera(0.5), camera(0.2, -0.3)]
NO_POINTS = np.zeros((0, 3))


def test_the_hull_excludes_points_off_the_object_in_any_mask():
    camera = CAMERAS[0]
    width, height = camera.width_px, camera.height_px
    pixels = np.array([[width / 2, height / 2], [1.5, 1.5], [-9, height / 2], [width + 9, height / 2], [-9, -9]])
    points = camera.unproject(pixels, np.full(5, 3.0))
    points = np.concatenate([points, camera.center[None] - 2 * camera.axis])  # and one behind it

    def inside(*parts):
        mask = np.zeros((height, width), np.float32)
        for part in parts:
            mask[part] = 1
        return is_in_hull(points, [camera], [mask]).tolist()

    middle = np.s_[height // 4 : -height // 4, width // 4 : -width // 4]
    assert inside(middle) == [True, False, False, False, False, False]
    assert inside(middle, np.s_[height // 2, : width // 2]) == [True, False, True, False, True, True]  # leaves left
    assert inside(middle, np.s_[: height // 2, width // 2]) == [True, False, False, False, True, True]  # leaves above
    assert inside() == [False, False, True, True, True, True]
    assert is_in_hull(points, [camera], [None]).all()


def test_random_points_are_in_the_common_volume():
    ranges = [(2.0, 5.0)] * 4
    points = draw_random_points(CAMERAS, [None] * 4, NO_POINTS, ranges, 500, 0.15, np.random.default_rng(0))
    assert len(points) == 500
    seeing = sum(c.sees(points).astype(int) for c in CAMERAS)
    assert seeing.min() >= 2
    assert seeing.mean() > 3
    turned = replace(CAMERAS[0], camera_from_world=np.diag([-1.0, 1, -1, 1]) @ CAMERAS[0].camera_from_world)
    apart = [CAMERAS[0], turned]
    assert len(draw_random_points(apart, [None] * 2, NO_POINTS, ranges[:2], 50, 0.15, np.random.default_rng(0))) == 0


def test_random_points_have_depths_near_those_of_known_points():
    rng = np.random.default_rng(1)
    row, column = rng.integers(96, size=300), rng.integers(128, size=300)
    depth = photograph(CAMERAS[0])[1][row, column]
    known = CAMERAS[0].unproject(np.stack([column, row], 1) + 0.5, depth)
    ranges = [(1.0, 12.0)] * 4

    def typical_distance(spread):
        points = draw_random_points(CAMERAS, [None] * 4, known, ranges, 400, spread, np.random.default_rng(0))
        return np.median(off_surface(points))

    assert typical_distance(0.02) < 0.1 < 0.2 < typical_distance(0.15) < 0.5 < typical_distance(np.inf)


def test_depth_ranges_are_from_the_points_else_from_the_cameras():
    for low, high in depth_ranges(CAMERAS, NO_POINTS):
        assert low < 3.5 < high
    near = np.random.default_rng(0).uniform([-0.3, -0.3, -1.0], [0.3, 0.3, -0.9], (100, 3))
    for low, high in depth_ranges(CAMERAS, near):
        assert 2 < low < 3.0 < high < 5
    parallel = [replace(CAMERAS[0], camera_from_world=np.eye(4)), replace(CAMERAS[0], camera_from_world=np.eye(4))]
    parallel[1].camera_from_world[0, 3] = 0.5
    low, high = depth_ranges(parallel, NO_POINTS)[0]
    assert 0 < low < high < np.inf
