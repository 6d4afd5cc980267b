"""Reference splats as other programs and splatfix's own runs leave them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from splatfix.captures import open_capture
from splatfix.captures.clouds import find_plausible
from splatfix.cli import main
from splatfix.evaluation.results import ViewResult
from splatfix.evaluation.view_cameras import locate_views, write_view_cameras
from splatfix.gaussians import Splat, write_ply, write_splat
from splatfix.views import Split
from tests.captures import writers
from tests.captures.writers import edit_json, gaussians


def test_repeated_camera_names_are_numbered(tmp_path):
    root = writers.write_splat(tmp_path)
    photos = {view.name: view.load().rgb for view in open_capture(root).views}

    def rename(cameras):
        for camera, name in zip(cameras, ("frame", "frame_0", "frame", "d"), strict=True):
            camera["img_name"] = name

    edit_json(root / "cameras.json", rename)
    capture = open_capture(root)
    assert capture.names == ("d", "frame_0", "frame_0_", "frame_2")
    assert "cameras.json: 1 names occur several times (the first: frame): numbered by position" in capture.notes
    for name, old in (("frame_0_", "a.png"), ("frame_0", "b.png"), ("frame_2", "c.png"), ("d", "d.png")):
        np.testing.assert_array_equal(capture.view(name).load().rgb, photos[old])


def test_impossible_cameras_are_refused_and_numbers_are_names(tmp_path):
    root = writers.write_splat(tmp_path)
    edit_json(root / "cameras.json", lambda cameras: [camera.update(img_name=k) for k, camera in enumerate(cameras)])
    assert open_capture(root).names == ("0", "1", "2", "3")
    edit_json(root / "cameras.json", lambda cameras: cameras[1].update(fx=1.0, fy=1.0))
    with pytest.raises(ValueError, match=r"cameras\.json: 1 \(1\): focal length 1, 1 .* normalized; wanted pixels"):
        open_capture(root)


def test_a_header_of_any_length_is_read(tmp_path):
    root = writers.write_splat(tmp_path)
    ply = root / "point_cloud.ply"
    vertex = PlyData.read(str(ply))["vertex"].data.copy()
    comments = ["x" * 70] * 300
    PlyData([PlyElement.describe(vertex, "vertex")], comments=comments).write(str(root / "cloud.ply"))
    ply.unlink()
    assert open_capture(root).splat == root / "cloud.ply"
    assert open_capture(root / "cloud.ply").splat == root / "cloud.ply"


@pytest.mark.parametrize("name", ["scene.splat", "scene.spz", "scene.compressed.ply"])
def test_a_splat_in_another_format_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    (tmp_path / "cameras.json").write_text("[]")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=rf"{name}: .*wanted a 3DGS \.ply: convert it"):
            open_capture(path)


def test_notes_say_that_the_photos_are_renders_and_what_was_left_out(tmp_path):
    root = writers.write_splat(tmp_path)
    ply = root / "point_cloud.ply"
    vertex = PlyData.read(str(ply))["vertex"].data.copy()
    vertex["y"][2] = np.nan
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(ply))
    notes = open_capture(root).notes
    assert "point_cloud.ply: 1 of 12 vertices are zeros or not finite (the first: 2): left out" in notes
    assert any("the photos are renders of point_cloud.ply" in note and "is not repaired" in note for note in notes)


@pytest.mark.parametrize("name", ["views.json", "cameras.json"])
def test_a_run_folder_is_read_back_with_its_cameras(tmp_path, name):
    capture = open_capture(writers.write_transforms(tmp_path / "photos"))
    run = tmp_path / "run"
    run.mkdir()
    gaussians = writers.gaussians()
    for arm, shift in (("before", 1.0), ("control", 2.0), ("after", 0.0)):
        moved = type(gaussians)(**{**vars(gaussians), "means": gaussians.means + shift})
        write_splat(run / f"{arm}.ply", Splat(moved, "antialiased", (1.0, 1.0, 1.0)))
    split = Split(capture.names[:3], capture.names[3:])
    result = ViewResult(name="d.png", band="near", distance=1.0, before=None, control=None, after=None, post=None)
    write_view_cameras(run, locate_views(capture, split, [result], ()))
    (run / "views.json").rename(run / name)
    (run / "run.json").write_text(json.dumps({"schema": 1}))
    again = open_capture(run)
    assert again.splat == run / "after.ply"
    assert again.names == capture.names
    for camera, wanted in zip(again.cameras, capture.cameras, strict=True):
        np.testing.assert_allclose(camera.camera_from_world, wanted.camera_from_world, atol=1e-9)
        np.testing.assert_allclose(camera.intrinsics, wanted.intrinsics, rtol=1e-9)
    assert torch.isfinite(torch.from_numpy(again.views[0].load().rgb)).all()


def test_broken_points_of_a_cloud_are_left_out(tmp_path):
    root = writers.write_transforms(tmp_path)
    points = np.ones(50, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    points["z"][4] = np.nan
    points[9] = (0, 0, 0, 0, 0, 0)
    PlyData([PlyElement.describe(points, "vertex")]).write(str(root / "cloud.ply"))
    edit_json(root / "transforms.json", lambda tree: tree.update(ply_file_path="cloud.ply"))
    capture = open_capture(root)
    assert len(capture.points) == 48
    assert "cloud.ply: 2 of 50 vertices are zeros or not finite (the first: 4): left out" in capture.notes
    points["z"][:10] = np.inf
    PlyData([PlyElement.describe(points, "vertex")]).write(str(root / "cloud.ply"))
    with pytest.raises(ValueError, match=r"cloud\.ply: vertex 0: \['x', 'y', 'z'\] = .*wanted finite numbers"):
        open_capture(root)


@pytest.mark.parametrize(
    ("names", "kind", "white"), [("red", "f4", 1), ("red", "f4", 255), ("diffuse_red", "i4", 255), ("r", "u2", 65535)]
)
def test_colors_of_clouds_of_other_programs(names, kind, white, tmp_path):
    root = writers.write_transforms(tmp_path)
    channels = ["r", "g", "b"] if names == "r" else [names.replace("red", color) for color in ("red", "green", "blue")]
    points = np.zeros(50, [(name, "f4") for name in "xyz"] + [(channel, kind) for channel in channels])
    points["x"] = np.arange(1, 51)
    points[channels[0]], points[channels[1]] = white, white // 5
    PlyData([PlyElement.describe(points, "vertex")]).write(str(root / "cloud.ply"))
    edit_json(root / "transforms.json", lambda tree: tree.update(ply_file_path="cloud.ply"))
    np.testing.assert_allclose(open_capture(root).points.colors[0], [1, white // 5 / white, 0], atol=1e-6)


def test_values_that_are_not_those_of_a_splat_are_noted(tmp_path):
    root = writers.write_splat(tmp_path)
    file = root / "point_cloud.ply"
    vertex = PlyData.read(file)["vertex"].data.copy()
    for name in ("rot_0", "rot_1", "rot_2", "rot_3"):
        vertex[name][0] = 0
    for name in ("scale_0", "scale_1", "scale_2"):
        vertex[name] = np.exp(vertex[name])
    vertex["opacity"] = 1 / (1 + np.exp(-vertex["opacity"]))
    PlyData([PlyElement.describe(vertex, "vertex")]).write(file)
    notes = open_capture(root).notes
    assert "point_cloud.ply: 1 of 12 rotations are 0: taken as none" in notes
    assert any("all scale_* are above 0 and all opacity from 0 to 1: they seem to be sizes" in note for note in notes)


def test_impossibly_far_points_of_a_cloud_are_left_out(tmp_path):
    root = writers.write_transforms(tmp_path)
    points = np.zeros(50, [("x", "f4"), ("y", "f4"), ("z", "f4")])
    points["x"] = np.arange(1, 51)
    points["y"][7] = 1e30
    PlyData([PlyElement.describe(points, "vertex")]).write(str(root / "cloud.ply"))
    edit_json(root / "transforms.json", lambda tree: tree.update(ply_file_path="cloud.ply"))
    capture = open_capture(root)
    assert len(capture.points) == 49
    assert "cloud.ply: 1 of 50 points are impossibly far from the others: left out" in capture.notes


def test_points_millions_of_times_too_far_are_not_plausible():
    points = np.random.default_rng(0).normal(size=(100, 3))
    points[:3] = [[1e30, 0, 0], [np.nan, 0, 0], [0, -1e12, 0]]
    points[3] = [0, 0, 5e4]  # a mountain
    assert np.flatnonzero(~find_plausible(points)).tolist() == [0, 1, 2]
    points[4:64] = 0
    assert np.flatnonzero(~find_plausible(points)).tolist() == [0, 1, 2]
    assert find_plausible(np.zeros((5, 3))).all()


@pytest.mark.parametrize(("offset", "dtype", "is_noted"), [(0, "f4", False), (5e6, "f4", True), (5e6, "f8", False)])
def test_positions_that_float32_rounds_are_noted(offset, dtype, is_noted, tmp_path):
    root = writers.write_splat(tmp_path)
    file = root / "point_cloud.ply"
    vertex = PlyData.read(file)["vertex"].data
    table = vertex.astype([(name, dtype if name in "xyz" else kind) for name, kind in vertex.dtype.descr])
    for name in "xyz":
        table[name] += offset
    PlyData([PlyElement.describe(table, "vertex")]).write(file)
    edit_json(
        root / "cameras.json",
        lambda cameras: [camera.update(position=[x + offset for x in camera["position"]]) for camera in cameras],
    )
    notes = [note for note in open_capture(root).notes if "float32" in note]
    assert len(notes) == is_noted
    if is_noted:
        assert notes[0].startswith("point_cloud.ply: positions near 5e+06 are rounded to 0.5 by float32, coarse for")


def test_a_splat_beyond_the_precision_of_floats_is_refused(tmp_path):
    far = replace(gaussians(), means=torch.full((12, 3), 1e30))
    write_ply(tmp_path / "far.ply", far)
    with pytest.raises(ValueError, match=r"far\.ply: Gaussians near .*; wanted them nearer to the origin"):
        open_capture(tmp_path / "far.ply")


def test_a_splat_that_no_camera_sees_is_refused_in_a_line(tmp_path, capsys):
    root = writers.write_splat(tmp_path)
    turn_away = np.diag([-1.0, 1.0, -1.0])
    edit_json(
        root / "cameras.json",
        lambda cameras: [
            camera.update(position=[0.0, 0.0, -100.0 - k], rotation=turn_away.tolist())
            for k, camera in enumerate(cameras)
        ],
    )
    settings = ["--views.num-train", "2", "--fit.steps", "5", "--device", "cpu", "--no-video"]
    assert main(["loop", str(root), "--out", str(tmp_path / "out"), *settings]) == 2
    assert (
        "splatfix loop: no initial points from auto; add random to the sources (initial.sources), or fit"
        in capsys.readouterr().err
    )
