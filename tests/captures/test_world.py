"""Captures far from the origin, or very large or small, are moved to coordinates in which they can be fitted."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData

from splatfix.cameras import estimate_depth
from splatfix.captures import Points, open_capture
from splatfix.captures.world import choose_world
from splatfix.evaluation.measure import measure_views, summarize
from splatfix.evaluation.view_cameras import locate_views
from splatfix.gaussians import Splat, read_splat, write_splat
from splatfix.sample import sample_path
from splatfix.similarity import IDENTITY, Similarity
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import load_scene, start_fit
from splatfix.splats.train import FitConfig, advance
from splatfix.views import ViewsConfig, make_split
from tests.captures import writers
from tests.captures.writers import WRITERS, edit_json, move_transforms

UTM = (432_100.0, 5_412_345.0, 187.0)
MOVES = [Similarity(1e-6), Similarity(1e-3), Similarity(1e6), Similarity(1.0, UTM), Similarity(1e-3, UTM)]


@pytest.mark.parametrize("kind", WRITERS)
def test_ordinary_captures_keep_their_coordinates(kind, tmp_path):
    assert open_capture(WRITERS[kind](tmp_path)).file_from_world == IDENTITY


@pytest.mark.parametrize("move", MOVES, ids=Similarity.describe)
def test_moved_captures_have_ordinary_coordinates(move, tmp_path):
    root = WRITERS["transforms"](tmp_path)
    ordinary = open_capture(root)
    move_transforms(root, move)
    capture = open_capture(root)
    assert any("exported splats" in note for note in capture.notes)
    assert 0.5 < estimate_depth(capture.cameras, None) < 8
    assert max(np.linalg.norm(camera.center) for camera in capture.cameras) < 20
    for camera, wanted in zip(capture.cameras, ordinary.cameras, strict=True):
        precision = 1e-9 * max(1, *move.offset) / move.scale  # of float64 in the file
        center = (capture.file_from_world.apply(camera.center) - move.offset) / move.scale
        np.testing.assert_allclose(center, wanted.center, atol=precision)
        np.testing.assert_array_equal(camera.rotation, wanted.rotation)
        np.testing.assert_array_equal(camera.intrinsics, wanted.intrinsics)


def test_a_power_of_two_is_undone_exactly(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    ordinary = open_capture(root)
    move_transforms(root, Similarity(2.0**-12))
    capture = open_capture(root)
    factor = 2.0**-12 / capture.file_from_world.scale
    for camera, wanted in zip(capture.cameras, ordinary.cameras, strict=True):
        np.testing.assert_array_equal(camera.camera_from_world[:3, 3], factor * wanted.camera_from_world[:3, 3])


def test_points_move_with_their_cameras(tmp_path):
    root = WRITERS["colmap_text"](tmp_path)
    ordinary = open_capture(root)
    model = root / "sparse" / "0"
    rows = (model / "points3D.txt").read_text().splitlines()
    moved = [rows[0]]
    for row in rows[1:]:
        number, x, y, z, *rest = row.split()
        position = np.array([x, y, z], float) + UTM
        moved.append(" ".join([number, *map(repr, position.tolist()), *rest]))
    (model / "points3D.txt").write_text("\n".join(moved) + "\n")
    lines = (model / "images.txt").read_text().splitlines()
    for index, camera in enumerate(writers.cameras()):
        words = lines[1 + 2 * index].split(" ", 8)
        words[5:8] = map(repr, (camera.camera_from_world[:3, 3] - camera.rotation @ UTM).tolist())
        lines[1 + 2 * index] = " ".join(words)
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    capture = open_capture(root)
    assert any(capture.file_from_world.offset)
    for camera, wanted in zip(capture.cameras, ordinary.cameras, strict=True):
        pixels, depths = camera.project(capture.points.positions)
        wanted_pixels, wanted_depths = wanted.project(ordinary.points.positions)
        np.testing.assert_allclose(pixels, wanted_pixels, atol=1e-5)
        np.testing.assert_allclose(depths, wanted_depths, atol=1e-7)


def test_photos_of_a_splat_far_away_are_the_same(tmp_path):
    root = WRITERS["splat"](tmp_path / "near")
    photos = [view.load() for view in open_capture(root).views]
    move, far = Similarity(1e-3, UTM), tmp_path / "far"
    far.mkdir()
    write_splat(far / "point_cloud.ply", read_splat(root / "point_cloud.ply"), file_from_world=move)
    entries = json.loads((root / "cameras.json").read_text())
    for entry in entries:
        entry["position"] = move.apply(np.array(entry["position"])).tolist()
    (far / "cameras.json").write_text(json.dumps(entries))
    for photo, view in zip(photos, open_capture(far).views, strict=True):
        np.testing.assert_allclose(view.load().rgb, photo.rgb, atol=2e-3)


def test_exported_splats_have_the_coordinates_of_the_files(tmp_path):
    gaussians = writers.gaussians()
    move = Similarity(4.0, UTM)
    write_splat(tmp_path / "a.ply", Splat(gaussians, "antialiased"), file_from_world=move)
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data
    positions = np.stack([vertex[axis] for axis in "xyz"], axis=1)
    np.testing.assert_allclose(positions, 4 * gaussians.means.double().numpy() + UTM, rtol=0, atol=1e-8)
    np.testing.assert_allclose(vertex["scale_0"], gaussians.log_scales[:, 0].numpy() + np.log(4), rtol=1e-6)
    assert vertex["f_dc_0"].dtype == np.float32
    record = json.loads((tmp_path / "splat.json").read_text())
    assert Similarity.from_json(record["file_from_world"]) == move
    again = read_splat(tmp_path / "a.ply", file_from_world=move)
    assert again.mode == "antialiased"
    torch.testing.assert_close(again.gaussians.means, gaussians.means, rtol=0, atol=1e-6)
    torch.testing.assert_close(again.gaussians.log_scales, gaussians.log_scales)


def test_fits_do_not_depend_on_the_coordinates(tmp_path):
    ordinary = open_capture(sample_path(), longest_side_px=32)

    def measure(move):
        root = tmp_path / move.describe()
        shutil.copytree(sample_path(), root)
        move_transforms(root, move)
        capture = open_capture(root, longest_side_px=32)
        split = make_split(capture, ViewsConfig(size_px=32, max_test=3))
        scene = load_scene(capture, split.train_ids, torch.device("cpu"))
        torch.manual_seed(0)
        fit = start_fit(scene, FitConfig(), InitializationConfig(sources=("random",)), seed=0)
        advance(fit, scene.views(), 20, seed=0)
        write_splat(root / "before.ply", fit.splat(), file_from_world=capture.file_from_world)
        splat = read_splat(root / "before.ply", file_from_world=capture.file_from_world)
        views = measure_views(capture, split, {"before": splat}, reasons={})
        located = locate_views(capture, split, views, ()).train[0]
        center = move.apply_inverse(np.array(located.centre))
        np.testing.assert_allclose(center, ordinary.view(located.name).camera.center, atol=1e-8)
        return split, summarize(views).value("all", "before", "psnr")

    split, psnr = measure(IDENTITY)
    for move in (Similarity(1e-6), Similarity(1.0, UTM)):
        moved_split, moved_psnr = measure(move)
        assert moved_split == split
        assert moved_psnr == pytest.approx(psnr, abs=0.05)


@pytest.mark.parametrize("far", [1e4, 1e7, 1e10])
def test_a_camera_with_a_wrong_pose_does_not_move_the_others(far):
    cameras = writers.cameras() * 5
    lost = cameras[0].camera_from_world.copy()
    lost[:3, 3] += far
    assert choose_world([*cameras, replace(cameras[0], camera_from_world=lost)]) == IDENTITY


def test_cameras_that_turn_in_one_place_keep_their_coordinates():
    cameras = [replace(camera, camera_from_world=np.eye(4)) for camera in writers.cameras()]
    assert choose_world(cameras) == IDENTITY
    behind = Points(np.array([[0.0, 0, -5]]), np.zeros((1, 3), np.float32))
    assert choose_world(cameras, behind) == IDENTITY


@pytest.mark.parametrize("move", [IDENTITY, Similarity(1e-6), Similarity(1.0, UTM)], ids=Similarity.describe)
def test_another_pose_of_a_frame_is_found_in_any_coordinates(move, tmp_path):
    root = WRITERS["blender"](tmp_path)
    for split in ("train", "test"):
        (root / f"transforms_{split}.json").rename(root / "transforms.json")
        move_transforms(root, move)
        (root / "transforms.json").rename(root / f"transforms_{split}.json")
    frames = json.loads((root / "transforms_train.json").read_text())["frames"]
    edit_json(root / "transforms_test.json", lambda tree: tree["frames"].append(frames[0]))
    assert "1 frames occur in several splits: kept once" in open_capture(root).notes
    edit_json(root / "transforms_test.json", lambda tree: tree["frames"][1].update(frames[1], file_path="train/a"))
    with pytest.raises(ValueError, match="train/a has another pose than in an earlier split"):
        open_capture(root)
