"""Which points a fit starts from: honesty, choice of sources, masks, repeatability; and how points become Gaussians."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splatfix.captures import Capture, Photo, Points, View, open_capture
from splatfix.config import build_config, to_tree
from splatfix.gaussians import SH_C0
from splatfix.splats.hull import depth_ranges, in_hull, random_points
from splatfix.splats.initialise import (
    SOURCES,
    InitialiseConfig,
    InitialPoints,
    baseline_statistics,
    initial_points,
    initialise,
    nearest_distances,
)
from splatfix.views import ViewsConfig, make_split
from tests.splats.textured import camera, off_surface, photographed

CAMERAS = [camera(-0.5), camera(0.0, 0.2), camera(0.5), camera(0.2, -0.3)]
AUTO = InitialiseConfig()


@pytest.fixture(scope="module")
def photos():
    return [photographed(c) for c in CAMERAS]


def start(photos, config=AUTO, *, points=None, seed=0, masks=None) -> InitialPoints:
    images = [p[0] for p in photos]
    return initial_points(CAMERAS, images, masks or [None] * 4, points, config, np.random.default_rng(seed))


def surface_points(photos, num, names) -> Points:
    """Points on the surfaces that the first photo shows, seen by ``names``, with colours that lie."""
    rng = np.random.default_rng(1)
    row, column = rng.integers(96, size=num), rng.integers(128, size=num)
    depth = photos[0][1][row, column]
    world = CAMERAS[0].unproject(np.stack([column, row], 1) + 0.5, depth)
    return Points(world, np.tile(np.float32([1, 0, 1]), (num, 1)), (frozenset(names),) * num)


def test_auto_takes_what_there_is_and_says_so(photos, caplog):
    with caplog.at_level(logging.INFO, logger="splatfix"):
        found = start(photos)
    counts = found.counts()
    assert counts["points"] == 0
    assert counts["triangulated"] > 50
    assert counts["stereo"] > 1000
    assert counts["random"] > 0
    assert found.depth_scale == pytest.approx(3.6, abs=0.6)
    assert found.baselines.stereo_coverage > 0.4
    assert "triangulated from the photos" in caplog.text
    trusted = found.sources != SOURCES.index("random")
    assert (off_surface(found.positions[trusted]) < 0.08).mean() > 0.97


def test_enough_admissible_points_are_not_triangulated_again(photos):
    points = surface_points(photos, 300, [CAMERAS[0].name, CAMERAS[1].name])
    counts = start(photos, points=points).counts()
    assert counts["points"] == 300
    assert counts["triangulated"] == 0


def test_points_that_other_photos_saw_are_left_out_and_colours_are_ours(photos):
    ours = surface_points(photos, 100, [CAMERAS[0].name, CAMERAS[1].name, "other.png"])
    foreign = surface_points(photos, 100, [CAMERAS[0].name, "other.png"])
    both = Points(
        np.concatenate([ours.positions, foreign.positions + 1]),
        np.concatenate([ours.colors, foreign.colors]),
        ours.tracks + foreign.tracks,
    )
    found = start(photos, InitialiseConfig(sources=("points",)), points=both)
    np.testing.assert_array_equal(found.positions, ours.positions)
    pixels = CAMERAS[0].project(found.positions)[0].astype(int)
    assert np.abs(found.colors - photos[0][0][pixels[:, 1], pixels[:, 0]]).mean() < 0.1  # never magenta


def test_points_without_tracks_are_never_used(photos):
    points = replace(surface_points(photos, 300, []), tracks=None)
    assert start(photos, points=points).counts()["points"] == 0


def test_poison_in_the_other_photos_changes_nothing(photos):
    """A capture whose other photos cannot be loaded, and whose other points are far off, gives the same start."""

    def poisoned() -> Photo:
        raise AssertionError("a photo that was not chosen has been loaded")

    def chosen(index):
        return lambda: Photo(photos[index][0])

    views = [View(c, chosen(i)) for i, c in enumerate(CAMERAS)]
    others = [View(camera(x, 0.6), poisoned) for x in (-1.0, 1.0)]
    points = surface_points(photos, 200, [CAMERAS[0].name, CAMERAS[2].name])
    far = Points(points.positions * 50, points.colors, (frozenset(v.name for v in others),) * 200)
    joined = Points(
        np.concatenate([far.positions, points.positions]),
        np.concatenate([far.colors, points.colors]),
        far.tracks + points.tracks,
    )
    capture = Capture("poisoned", Path(), "colmap", (*views, *others), joined)
    names = [c.name for c in CAMERAS]
    images = [capture.view(name).load().rgb for name in names]
    cameras = [capture.view(name).camera for name in names]
    found = initial_points(cameras, images, [None] * 4, capture.points, AUTO, np.random.default_rng(0))
    clean = start(photos, points=points)
    np.testing.assert_array_equal(found.positions, clean.positions)
    np.testing.assert_array_equal(found.colors, clean.colors)


def test_a_seed_decides_everything(photos):
    first, again, other = start(photos), start(photos), start(photos, seed=1)
    np.testing.assert_array_equal(first.positions, again.positions)
    np.testing.assert_array_equal(first.colors, again.colors)
    assert first.positions.shape != other.positions.shape or not np.array_equal(first.positions, other.positions)


def test_black_photos_fall_through_to_random_with_a_message(photos, caplog):
    black = [(np.zeros_like(p[0]), *p[1:]) for p in photos]
    with caplog.at_level(logging.INFO, logger="splatfix"):
        found = start(black)
    few = AUTO.num_random_wide
    assert found.counts() == {"points": 0, "triangulated": 0, "stereo": 0, "random": few}
    assert "0 triangulated" in caplog.text
    assert sum(c.sees(found.positions) for c in CAMERAS).min() >= 2
    assert len(initialise(found, AUTO)) == few


def test_one_photo_starts_from_random_points(photos):
    found = initial_points(CAMERAS[:1], [photos[0][0]], [None], None, AUTO, np.random.default_rng(0))
    assert found.counts()["random"] == len(found) > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (InitialiseConfig(sources=("auto", "random")), "name it alone"),
        (InitialiseConfig(sources=()), "wanted auto or some of points, triangulated, stereo, random"),
        (InitialiseConfig(sources=("points",)), "no initial points from points; add random"),
        (InitialiseConfig(initial_opacity=1.0), "initial_opacity = 1.0"),
    ],
)
def test_what_cannot_be_is_refused(photos, config, message):
    with pytest.raises(ValueError, match=message):
        start(photos, config)


def test_photos_must_fit_their_cameras(photos):
    with pytest.raises(ValueError, match=r"photo of shape \(48, 64, 3\)"):
        start([(np.zeros((48, 64, 3), np.float32),), *photos[1:]])
    with pytest.raises(ValueError, match="no photos"):
        initial_points([], [], [], None, AUTO, np.random.default_rng(0))


def test_masks_confine_every_source(photos):
    masks = [p[2].astype(np.float32) for p in photos]
    points = surface_points(photos, 200, [CAMERAS[0].name, CAMERAS[1].name])
    found = start(photos, points=points, masks=masks)
    assert min(found.counts()[source] for source in ("points", "stereo", "random")) > 0
    assert in_hull(found.positions, CAMERAS, masks, margin_px=1).all()


def test_what_a_mask_keeps_in_view_is_nowhere_else():
    camera = CAMERAS[0]
    width, height = camera.width_px, camera.height_px
    pixels = np.array([[width / 2, height / 2], [1.5, 1.5], [-9, height / 2], [width + 9, height / 2], [-9, -9]])
    points = camera.unproject(pixels, np.full(5, 3.0))
    points = np.concatenate([points, camera.center[None] - 2 * camera.axis])  # and one behind it

    def inside(*parts):
        mask = np.zeros((height, width), np.float32)
        for part in parts:
            mask[part] = 1
        return in_hull(points, [camera], [mask]).tolist()

    middle = np.s_[height // 4 : -height // 4, width // 4 : -width // 4]
    assert inside(middle) == [True, False, False, False, False, False]
    assert inside(middle, np.s_[height // 2, : width // 2]) == [True, False, True, False, True, True]  # leaves left
    assert inside(middle, np.s_[: height // 2, width // 2]) == [True, False, False, False, True, True]  # leaves above
    assert inside() == [False, False, True, True, True, True]
    assert in_hull(points, [camera], [None]).all()


NOWHERE = np.zeros((0, 3))


def test_random_points_lie_in_the_common_volume():
    ranges = [(2.0, 5.0)] * 4
    points = random_points(CAMERAS, [None] * 4, NOWHERE, ranges, 500, 0.15, np.random.default_rng(0))
    assert len(points) == 500
    seeing = sum(c.sees(points).astype(int) for c in CAMERAS)
    assert seeing.min() >= 2
    assert seeing.mean() > 3
    turned = replace(CAMERAS[0], camera_from_world=np.diag([-1.0, 1, -1, 1]) @ CAMERAS[0].camera_from_world)
    apart = [CAMERAS[0], turned]
    assert len(random_points(apart, [None] * 2, NOWHERE, ranges[:2], 50, 0.15, np.random.default_rng(0))) == 0


def test_random_points_keep_to_the_depth_of_known_ones(photos):
    known = surface_points(photos, 300, []).positions
    ranges = [(1.0, 12.0)] * 4

    def typical_distance(spread):
        points = random_points(CAMERAS, [None] * 4, known, ranges, 400, spread, np.random.default_rng(0))
        return np.median(off_surface(points))

    assert typical_distance(0.02) < 0.1 < 0.2 < typical_distance(0.15) < 0.5 < typical_distance(np.inf)


def test_depth_ranges_follow_the_points_else_the_cameras():
    for low, high in depth_ranges(CAMERAS, NOWHERE):
        assert low < 3.5 < high
    near = np.random.default_rng(0).uniform([-0.3, -0.3, -1.0], [0.3, 0.3, -0.9], (100, 3))
    for low, high in depth_ranges(CAMERAS, near):
        assert 2 < low < 3.0 < high < 5
    parallel = [replace(CAMERAS[0], camera_from_world=np.eye(4)), replace(CAMERAS[0], camera_from_world=np.eye(4))]
    parallel[1].camera_from_world[0, 3] = 0.5
    low, high = depth_ranges(parallel, NOWHERE)[0]
    assert 0 < low < high < np.inf


def test_baselines_are_measured_as_angles():
    close = baseline_statistics([camera(-0.1), camera(0.0), camera(0.1)], 3.5).neighbour_angle_deg
    assert close == pytest.approx(np.degrees(np.arctan(0.1 / 3.5)), rel=0.05)
    assert baseline_statistics([camera(0.0)], 3.5).neighbour_angle_deg == 180


def test_nearest_distances_equal_brute_force():
    points = np.random.default_rng(0).standard_normal((200, 3)) * [1, 5, 2]
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=-1), axis=1)[:, 1:4].mean(1)
    np.testing.assert_allclose(nearest_distances(points), distances)
    np.testing.assert_allclose(nearest_distances(np.array([[0.0, 0, 0], [2, 0, 0]])), [2, 2])
    assert np.isnan(nearest_distances(np.zeros((1, 3)))).all()


def test_gaussians_take_place_colour_spacing_and_opacity():
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3)
    colors = np.random.default_rng(0).random((125, 3)).astype(np.float32)
    points = InitialPoints(grid, colors, np.zeros(125, int), 3.0, baseline_statistics(CAMERAS, 3.0))
    gaussians = initialise(points, InitialiseConfig(scale_factor=0.5, initial_opacity=0.2, sh_degree=2))
    torch.testing.assert_close(gaussians.means, torch.tensor(grid, dtype=torch.float32))
    torch.testing.assert_close(gaussians.scales, torch.full((125, 3), 0.5))
    torch.testing.assert_close(gaussians.opacities, torch.full((125,), 0.2))
    torch.testing.assert_close(gaussians.sh0[:, 0] * SH_C0 + 0.5, torch.tensor(colors))
    assert gaussians.sh_degree == 2
    coincident = replace(points, positions=np.zeros((125, 3)))
    assert torch.isfinite(initialise(coincident, AUTO).log_scales).all()


def test_the_config_survives_a_file():
    config = InitialiseConfig(sources=("points", "stereo"), num_random=7)
    assert build_config(InitialiseConfig, to_tree(config), source="test") == config
    with pytest.raises(ValueError, match=r"fit\.yaml: sources.* = 'dense'.*'triangulated'"):
        build_config(InitialiseConfig, {"sources": ["dense"]}, source="fit.yaml")


def test_fits_start_with_torch_numpy_and_numba_alone():
    script = (
        "import sys\n"
        "for name in ('pycolmap', 'scipy', 'pydantic', 'imageio', 'PIL', 'plyfile'): sys.modules[name] = None\n"
        "import splatfix.splats.initialise\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(("scene", "least"), [("flower", 0.3), ("fountain", 0.2)])
def test_real_photos(scenes, scene, least):
    capture = open_capture(scenes / scene, longest_side_px=160)
    views = [capture.view(name) for name in make_split(capture, ViewsConfig()).train_ids]
    loaded = [view.load() for view in views]
    cameras = [view.camera for view in views]
    rng = np.random.default_rng(0)
    found = initial_points(cameras, [p.rgb for p in loaded], [p.mask for p in loaded], capture.points, AUTO, rng)
    assert found.baselines.stereo_coverage > least
    assert found.counts()["stereo"] > 3000
