"""Renders along a path of cameras: nerfstudio's camera paths, and the cameras of a capture."""

import json
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from splatfix.captures.camera_path import read_camera_path
from splatfix.cli import main
from splatfix.gaussians import Splat, write_splat
from splatfix.images import read_image
from splatfix.path_renders import render_path
from splatfix.rendering import render
from splatfix.similarity import IDENTITY, Similarity
from tests.captures.writers import write_transforms
from tests.splats.scene import random_gaussians, ring_cameras


def write_path(file: Path, cameras, **changes) -> Path:
    """A camera path as nerfstudio writes it."""
    frames = []
    for camera in cameras:
        matrix = camera.world_from_camera @ np.diag([1.0, -1.0, -1.0, 1.0])
        fov = np.rad2deg(2 * np.arctan(camera.height_px / 2 / camera.intrinsics[1, 1]))
        frames.append({"camera_to_world": matrix.ravel().tolist(), "fov": float(fov), "aspect": 4 / 3})
    tree = {"camera_type": "perspective", "render_height": 36, "render_width": 48, "fps": 12, "camera_path": frames}
    file.write_text(json.dumps(tree | changes))
    return file


@pytest.fixture
def splat(tmp_path) -> Path:
    path = tmp_path / "splat.ply"
    write_splat(path, Splat(random_gaussians(200, seed=1)))
    return path


def test_frames_are_the_renders_at_the_cameras_of_the_path(splat, tmp_path):
    cameras = ring_cameras(3)
    path = write_path(tmp_path / "path.json", cameras)
    assert main(["render", str(splat), "--path", str(path), "--out", str(tmp_path / "frames")]) == 0
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    read = read_camera_path(path)
    with torch.no_grad():
        wanted = render(Splat(random_gaussians(200, seed=1)), list(read.cameras)).rgb.clamp(0, 1)
    for file, image, camera, known in zip(files, wanted, read.cameras, cameras, strict=True):
        assert np.abs(read_image(file) - image.numpy()).max() < 0.003
        np.testing.assert_allclose(camera.camera_from_world, known.camera_from_world, atol=1e-9)
        np.testing.assert_allclose(camera.intrinsics[1, 1], known.intrinsics[1, 1])


def test_a_video_has_the_size_and_rate_of_the_path(splat, tmp_path):
    path, video = write_path(tmp_path / "path.json", ring_cameras(5)), tmp_path / "flight.mp4"
    assert main(["render", str(splat), "--path", str(path), "--out", str(video), "--size-px", "24"]) == 0
    about = next(imageio_ffmpeg.read_frames(str(video)))
    assert about["size"] == (24, 18)
    assert about["fps"] == 12
    assert imageio_ffmpeg.count_frames_and_secs(str(video))[0] == 5


def test_the_cameras_of_a_capture_are_a_path(splat, tmp_path):
    write_transforms(tmp_path / "room")
    assert main(["render", str(splat), "--path", str(tmp_path / "room"), "--out", str(tmp_path / "frames")]) == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_path": []}, "camera_path is empty"),
        ({"camera_type": "equirectangular"}, r"camera_type = 'equirectangular'; wanted perspective"),
        ({"render_width": 0}, "render_width x render_height = 0x36"),
        ({"fps": 0}, "fps = 0; wanted"),
        ({"camera_path": [{"camera_to_world": [1.0] * 12, "fov": 50}]}, r"camera_path\.0\.camera_to_world: 12 numbers"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 0}]}, r"camera_path\.0\.fov = 0"),
        ({"camera_path": [{"fov": 50}]}, r"camera_path\.0\.camera_to_world: field required"),
    ],
)
def test_a_broken_path_is_refused_by_its_field(tmp_path, changes, message):
    path = write_path(tmp_path / "path.json", ring_cameras(1), **changes)
    with pytest.raises(ValueError, match=rf"path\.json: {message}"):
        read_camera_path(path)


def test_a_splat_of_another_world_is_announced(tmp_path, splat, caplog):
    write_transforms(tmp_path / "room")
    far = random_gaussians(200, seed=1)
    write_splat(splat, Splat(replace(far, means=far.means + 50)))
    render_path(splat, str(tmp_path / "room"), tmp_path / "frames", longest_side_px=16, device="cpu")
    assert "wanted a splat in the world of the capture" in caplog.text


@pytest.mark.parametrize(
    ("path", "out", "message"),
    [("views.json", "frames", "no camera_path; wanted a camera path"), ("path.json", "flight.avi", r"ends in \.mp4")],
)
def test_other_files_are_refused(tmp_path, splat, path, out, message):
    write_path(tmp_path / "path.json", ring_cameras(1))
    (tmp_path / "views.json").write_text('{"train": []}')
    with pytest.raises(ValueError, match=message):
        render_path(splat, str(tmp_path / path), tmp_path / out, device="cpu")


def test_a_path_in_map_coordinates_shows_what_it_shows_at_the_origin(tmp_path):
    far, cameras = Similarity(1.0, (430_000.0, 5_410_000.0, 180.0)), ring_cameras(2)
    there = [camera.change_world(Similarity(1.0, (-430_000.0, -5_410_000.0, -180.0))) for camera in cameras]
    for name, world, path in (("near", IDENTITY, cameras), ("far", far, there)):
        folder = tmp_path / name
        folder.mkdir()
        write_splat(folder / "splat.ply", Splat(random_gaussians(200, seed=1)), file_from_world=world)
        flight = write_path(folder / "path.json", path)
        assert main(["render", str(folder / "splat.ply"), "--path", str(flight), "--out", str(folder / "frames")]) == 0
    for frame in (tmp_path / "near" / "frames").iterdir():
        assert np.abs(read_image(frame) - read_image(tmp_path / "far" / "frames" / frame.name)).max() < 0.02
