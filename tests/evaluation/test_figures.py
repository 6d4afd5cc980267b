"""Error maps, camera paths and videos."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from splatfix.cameras import Camera, look_at
from splatfix.evaluation import figures, video

INTRINSICS = np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])


def ring(num: int, radius: float = 2.0, arc_rad: float = 2 * np.pi) -> list[Camera]:
    """Cameras on an arc that look at the origin, in an order that is not the tour's."""
    angles = np.arange(num) * arc_rad / num
    cameras = []
    for i in np.random.default_rng(0).permutation(num):
        center = radius * np.array([np.cos(angles[i]), np.sin(angles[i]), 0.3])
        cameras.append(Camera(f"{i}", 64, 48, INTRINSICS, look_at(center, np.zeros(3), np.array([0.0, 0, 1]))))
    return cameras


def test_error_map_gets_lighter_with_the_error_and_saturates():
    photo = torch.zeros(1, 5, 3)
    render = torch.tensor([0.0, 0.05, 0.15, 0.3, 0.9])[None, :, None].expand(1, 5, 3)
    colours = figures.error_map(render, photo)
    assert colours.shape == (1, 5, 3) and colours.dtype == np.float32
    luma = colours[0] @ [0.2126, 0.7152, 0.0722]
    assert luma[0] < 0.01 and (np.diff(luma[:4]) > 0.05).all()
    assert np.array_equal(colours[0, 3], colours[0, 4])


def test_legend_runs_from_the_colour_of_no_error_to_the_hottest():
    stops = figures.error_legend(5)
    ends = figures.error_map(np.array([[[0.0] * 3, [1.0] * 3]]), np.zeros((1, 2, 3)))[0]
    as_hex = ["#" + "".join(f"{round(float(c) * 255):02x}" for c in end) for end in ends]
    assert [stops[0], stops[-1]] == as_hex and len(stops) == 5


@pytest.mark.parametrize("num", [2, 3, 6, 30])
def test_path_is_smooth_and_goes_beyond_the_cameras(num):
    cameras = ring(num, arc_rad=np.pi)
    path = video.path_cameras(cameras, 60)
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
    centers = np.stack([camera.center for camera in video.path_cameras(ring(8), 200)])
    length = np.linalg.norm(np.diff(centers, axis=0), axis=1).sum()
    assert length < 2 * np.pi * 2.1 * 1.2  # about once around


@pytest.mark.parametrize("num", [3, 4, 6])
def test_path_keeps_what_the_cameras_look_at_in_sight(num):
    for camera in video.path_cameras(ring(num), 90):
        pixel, depth = camera.project(np.zeros(3))
        assert 1.5 < depth < 3.0
        assert np.abs(pixel - [32, 24]).max() < 20, camera.name


def test_path_of_one_camera_of_copies_and_of_none():
    camera = ring(1)[0]
    assert len(video.path_cameras([camera], 3)) == 3
    assert all(np.isfinite(c.camera_from_world).all() for c in video.path_cameras([camera, camera], 5))
    with pytest.raises(ValueError, match="at least one"):
        video.path_cameras([], 3)


def test_path_has_one_size():
    cameras = ring(5)
    cameras[0] = cameras[0].resized(48, 64)
    assert {(c.width_px, c.height_px) for c in video.path_cameras(cameras, 4)} == {(64, 48)}


def test_video_has_the_frames_there_and_back_at_an_even_size(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    path = tmp_path / "new" / "path.mp4"
    frames = [np.full((49, 65, 3), 40 * i, np.uint8) for i in range(5)]
    video.write_video(path, iter(frames), fps=10)
    with imageio.get_reader(path) as reader:
        assert reader.get_meta_data()["size"] == (64, 48)
        read = [frame.mean() for frame in reader]
    assert len(read) == 8 and np.allclose(read, [0, 40, 80, 120, 160, 120, 80, 40], atol=6)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads
    assert [entry.name for entry in path.parent.iterdir()] == ["path.mp4"]


def test_video_of_nothing_or_of_mixed_sizes_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        video.write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="one size"):
        video.write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)])
    assert not list(tmp_path.iterdir())
