"""The points that a fit starts from: chosen photos only, choice of sources, masks, repeatability."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatfix.captures import Capture, Photo, Points, View, open_capture
from splatfix.config import build_config, to_tree
from splatfix.splats.hull import is_in_hull
from splatfix.splats.initial_points import (
    SOURCES,
    InitializationConfig,
    InitialPoints,
    compute_baselines,
    find_initial_points,
)
from splatfix.splats.initialization import initialize_gaussians
from splatfix.views import ViewsConfig, make_split
from tests.splats.textured import camera, off_surface, photograph

CAMERAS = [camera(-0.5), camera(0.0, 0.2), camera(0.5), camera(0.2, -0.3)]
AUTO = InitializationConfig()


@pytest.fixture(scope="module")
def photos():
    return [photograph(c) for c in CAMERAS]


def start(photos, config=AUTO, *, points=None, seed=0, masks=None) -> InitialPoints:
    images = [p[0] for p in photos]
    return find_initial_points(CAMERAS, images, masks or [None] * 4, points, config, np.random.default_rng(seed))


def surface_points(photos, num, names) -> Points:
    """Points on the surfaces that the first photo shows, seen by ``names``, in a color that no photo shows."""
    rng = np.random.default_rng(1)
    row, column = rng.integers(96, size=num), rng.integers(128, size=num)
    depth = photos[0][1][row, column]
    world = CAMERAS[0].unproject(np.stack([column, row], 1) + 0.5, depth)
    return Points(world, np.tile(np.float32([1, 0, 1]), (num, 1)), (frozenset(names),) * num)


def test_auto_uses_every_source_and_reports_it(photos, caplog):
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


def test_points_that_other_photos_saw_are_ignored_and_colors_come_from_the_chosen_photos(photos):
    ours = surface_points(photos, 100, [CAMERAS[0].name, CAMERAS[1].name, "other.png"])
    foreign = surface_points(photos, 100, [CAMERAS[0].name, "other.png"])
    both = Points(
        np.concatenate([ours.positions, foreign.positions + 1]),
        np.concatenate([ours.colors, foreign.colors]),
        ours.tracks + foreign.tracks,
    )
    found = start(photos, InitializationConfig(sources=("points",)), points=both)
    np.testing.assert_array_equal(found.positions, ours.positions)
    pixels = CAMERAS[0].project(found.positions)[0].astype(int)
    assert np.abs(found.colors - photos[0][0][pixels[:, 1], pixels[:, 0]]).mean() < 0.1  # never magenta


def test_points_without_tracks_are_never_used(photos):
    points = replace(surface_points(photos, 300, []), tracks=None)
    assert start(photos, points=points).counts()["points"] == 0


def test_other_photos_have_no_influence(photos):
    """A capture whose other photos cannot be loaded, and whose other points are far away, gives the same points."""

    def fail() -> Photo:
        raise AssertionError("a photo that was not chosen has been loaded")

    def chosen(index):
        return lambda: Photo(photos[index][0])

    views = [View(c, chosen(i)) for i, c in enumerate(CAMERAS)]
    others = [View(camera(x, 0.6), fail) for x in (-1.0, 1.0)]
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
    found = find_initial_points(cameras, images, [None] * 4, capture.points, AUTO, np.random.default_rng(0))
    clean = start(photos, points=points)
    np.testing.assert_array_equal(found.positions, clean.positions)
    np.testing.assert_array_equal(found.colors, clean.colors)


@pytest.mark.slow
def test_the_seed_determines_the_points(photos):
    first, again, other = start(photos), start(photos), start(photos, seed=1)
    np.testing.assert_array_equal(first.positions, again.positions)
    np.testing.assert_array_equal(first.colors, again.colors)
    assert first.positions.shape != other.positions.shape or not np.array_equal(first.positions, other.positions)


def test_black_photos_give_only_random_points_with_a_message(photos, caplog):
    black = [(np.zeros_like(p[0]), *p[1:]) for p in photos]
    with caplog.at_level(logging.INFO, logger="splatfix"):
        found = start(black)
    few = AUTO.num_random_wide
    assert found.counts() == {"points": 0, "triangulated": 0, "stereo": 0, "random": few, "given": 0, "estimated": 0}
    assert "0 triangulated" in caplog.text
    assert sum(c.sees(found.positions) for c in CAMERAS).min() >= 2
    assert len(initialize_gaussians(found, AUTO)) == few


def test_a_single_photo_gives_only_random_points(photos):
    found = find_initial_points(CAMERAS[:1], [photos[0][0]], [None], None, AUTO, np.random.default_rng(0))
    assert found.counts()["random"] == len(found) > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (InitializationConfig(sources=("auto", "random")), "name it alone"),
        (InitializationConfig(sources=()), "wanted auto or some of points, triangulated, stereo, random"),
        (InitializationConfig(sources=("points",)), "no initial points from points; add random"),
        (InitializationConfig(initial_opacity=1.0), "initial_opacity = 1.0"),
    ],
)
def test_invalid_sources_and_values_are_errors(photos, config, message):
    with pytest.raises(ValueError, match=message):
        start(photos, config)


def test_photos_must_have_the_size_of_their_cameras(photos):
    with pytest.raises(ValueError, match=r"photo of shape \(48, 64, 3\)"):
        start([(np.zeros((48, 64, 3), np.float32),), *photos[1:]])
    with pytest.raises(ValueError, match="no photos"):
        find_initial_points([], [], [], None, AUTO, np.random.default_rng(0))


@pytest.mark.slow
def test_masks_confine_every_source(photos):
    masks = [p[2].astype(np.float32) for p in photos]
    points = surface_points(photos, 200, [CAMERAS[0].name, CAMERAS[1].name])
    found = start(photos, points=points, masks=masks)
    assert min(found.counts()[source] for source in ("points", "stereo", "random")) > 0
    assert is_in_hull(found.positions, CAMERAS, masks, margin_px=1).all()


def test_baselines_are_measured_as_angles():
    close = compute_baselines([camera(-0.1), camera(0.0), camera(0.1)], 3.5).neighbor_angle_deg
    assert close == pytest.approx(np.degrees(np.arctan(0.1 / 3.5)), rel=0.05)
    assert compute_baselines([camera(0.0)], 3.5).neighbor_angle_deg == 180


def test_the_config_round_trips_through_a_file():
    config = InitializationConfig(sources=("points", "stereo"), num_random=7)
    assert build_config(InitializationConfig, to_tree(config), source="test") == config
    with pytest.raises(ValueError, match=r"fit\.yaml: sources.* = 'dense': wanted .*triangulated"):
        build_config(InitializationConfig, {"sources": ["dense"]}, source="fit.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "least"), [("flower", 0.3), ("fountain", 0.2)])
def test_real_photos(scenes, scene, least):
    capture = open_capture(scenes / scene, longest_side_px=160)
    views = [capture.view(name) for name in make_split(capture, ViewsConfig()).train_ids]
    loaded = [view.load() for view in views]
    cameras = [view.camera for view in views]
    rng = np.random.default_rng(0)
    found = find_initial_points(cameras, [p.rgb for p in loaded], [p.mask for p in loaded], capture.points, AUTO, rng)
    assert found.baselines.stereo_coverage > least
    assert found.counts()["stereo"] > 3000
