"""Every format, written from the same cameras, is read back to the same cameras."""

import json
import pickle

import numpy as np
import pytest

from splatfix.captures import open_capture
from tests.captures import writers
from tests.captures.writers import HEIGHT, WIDTH, WRITERS


@pytest.mark.parametrize("kind", WRITERS)
def test_cameras_are_those_that_were_written(kind, tmp_path):
    capture = open_capture(WRITERS[kind](tmp_path / "thing"))
    assert capture.format == kind.removesuffix("_text")
    assert capture.name == "thing"
    assert capture.names == tuple(sorted(capture.names))
    assert len(capture.views) == 4
    for wanted in writers.cameras():
        seen = capture.view(wanted.name).camera
        assert (seen.width_px, seen.height_px) == (WIDTH, HEIGHT)
        np.testing.assert_allclose(seen.camera_from_world, wanted.camera_from_world, atol=1e-9)
        np.testing.assert_allclose(seen.intrinsics, wanted.intrinsics, rtol=1e-9)


@pytest.mark.parametrize("kind", WRITERS)
def test_smaller_cameras_and_their_photos(kind, tmp_path):
    root = WRITERS[kind](tmp_path)
    full, small = open_capture(root, longest_side_px=None), open_capture(root, longest_side_px=24)
    for a, b in zip(full.cameras, small.cameras, strict=True):
        assert (b.width_px, b.height_px) == (24, 16)
        np.testing.assert_allclose(b.intrinsics[:2], a.intrinsics[:2] / 2)
    photo = small.views[1].load()
    assert photo.rgb.shape == (16, 24, 3)
    assert photo.rgb.dtype == np.float32
    assert photo.rgb.flags.c_contiguous
    blocks = full.views[1].load().rgb.reshape(16, 2, 24, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(photo.rgb, blocks, atol=1e-5)


@pytest.mark.parametrize("kind", WRITERS)
def test_photos_are_never_enlarged_and_views_can_be_pickled(kind, tmp_path):
    capture = open_capture(WRITERS[kind](tmp_path), longest_side_px=1000)
    assert capture.cameras[0].width_px == WIDTH
    copy = pickle.loads(pickle.dumps(capture.views[0]))
    np.testing.assert_array_equal(copy.load().rgb, capture.views[0].load().rgb)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("transforms", "transforms.json"),
        ("blender", "transforms_test.json"),
        ("llff", "poses_bounds.npy"),
        ("splat", "point_cloud.ply"),
        ("colmap", "sparse/0"),
    ],
)
def test_the_file_that_identifies_a_capture_opens_it(kind, file, tmp_path):
    root = WRITERS[kind](tmp_path / "thing")
    capture = open_capture(root / file)
    assert (capture.name, capture.path, len(capture.views)) == ("thing", root / file, 4)
    assert open_capture(str(capture.path)).names == open_capture(root).names


@pytest.mark.parametrize("kind", ["colmap", "colmap_text"])
def test_points_have_the_views_that_saw_them(kind, tmp_path):
    points = open_capture(WRITERS[kind](tmp_path)).points
    np.testing.assert_allclose(points.positions, writers.points(), atol=1e-9)
    np.testing.assert_allclose(points.colors[0], [1, 0, 0.2])
    assert points.tracks[0] == {"a.png", "b.png", "d.png"}
    assert len(points.admissible(["a.png", "b.png"])) == 12
    assert len(points.admissible(["a.png", "d.png"])) == 6
    assert len(points.admissible(["c.png", "d.png"])) == 0


def test_blender_alpha_is_the_mask_over_white(tmp_path):
    capture = open_capture(WRITERS["blender"](tmp_path))
    assert capture.background == (1, 1, 1)
    assert capture.names == ("test/d", "train/a", "train/b", "train/c")
    photo = capture.view("train/b").load()
    wanted = writers.picture(1, channels=4)
    np.testing.assert_array_equal(photo.mask, wanted[..., 3])
    np.testing.assert_allclose(photo.rgb, np.where(wanted[..., 3:] > 0, wanted[..., :3], 1), atol=0.003)


def test_blender_splits_may_repeat_a_frame(tmp_path):
    root = WRITERS["blender"](tmp_path)
    (root / "transforms_val.json").write_bytes((root / "transforms_test.json").read_bytes())
    capture = open_capture(root)
    assert len(capture.views) == 4
    assert capture.notes[0] == "1 frames occur in several splits: kept once"


def test_splat_photos_are_renders_with_alpha_as_mask(tmp_path):
    capture = open_capture(WRITERS["splat"](tmp_path))
    photo = capture.views[0].load()
    assert capture.background == (1, 1, 1)
    assert photo.mask.max() > 0.9
    np.testing.assert_array_equal(photo.mask[0, 0], 0)
    np.testing.assert_array_equal(photo.rgb[0, 0], 1)
    middle = photo.rgb[HEIGHT // 2, WIDTH // 2]
    assert middle[0] > middle[1] + 0.3


def test_splat_photos_are_drawn_in_the_recorded_mode(tmp_path):
    root = WRITERS["splat"](tmp_path)
    classic = open_capture(root).views[0].load()
    record = {"schema": 1, "mode": "antialiased", "background": None}
    (root / "splat.json").write_text(json.dumps(record))
    photo = open_capture(root).views[0].load()
    assert photo.mask.sum() < 0.99 * classic.mask.sum()  # small Gaussians are dimmed
    np.testing.assert_array_equal(photo.rgb[0, 0], 1)


def test_splat_of_a_training_output(tmp_path):
    root = WRITERS["splat"](tmp_path / "thing")
    for iteration in ("7000", "30000"):
        folder = root / "point_cloud" / f"iteration_{iteration}"
        folder.mkdir(parents=True)
        (folder / "point_cloud.ply").write_bytes((root / "point_cloud.ply").read_bytes())
    (root / "point_cloud.ply").unlink()
    assert open_capture(root).views[0].load.ply.parent.name == "iteration_30000"
    named = open_capture(root / "point_cloud/iteration_7000/point_cloud.ply")
    assert named.views[0].load.ply.parent.name == "iteration_7000"
    assert (named.name, named.names) == ("thing", writers.NAMES)


def test_splat_without_cameras_gets_an_orbit(tmp_path):
    root = WRITERS["splat"](tmp_path)
    (root / "cameras.json").unlink()
    (root / "point_cloud.ply").rename(root / "pot.ply")
    capture = open_capture(root / "pot.ply")
    assert (capture.name, len(capture.views)) == ("pot", 60)
    assert "no cameras.json" in capture.notes[0]
    for camera in capture.cameras:
        assert camera.sees(writers.points()).mean() > 0.85  # outliers do not count
        assert camera.rotation[1] @ np.array([0, 1, 0]) > 0.5  # upright: image down is world y


def test_a_folder_of_several_formats_opens_as_the_first(tmp_path):
    WRITERS["llff"](tmp_path)
    WRITERS["colmap"](tmp_path)
    assert open_capture(tmp_path).format == "colmap"
    WRITERS["transforms"](tmp_path)
    assert open_capture(tmp_path).format == "transforms"
    assert open_capture(tmp_path / "sparse" / "0").format == "colmap"
    assert open_capture(tmp_path / "poses_bounds.npy").format == "llff"
