"""Initial points that the user gives: a point cloud, and depth maps of the photos."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from splatfix.gaussians import Splat
from splatfix.rendering import render
from splatfix.similarity import IDENTITY, Similarity
from splatfix.splats.given_points import make_depth_points, read_depth_map
from splatfix.splats.initial_points import InitializationConfig, find_initial_points, list_given_files
from splatfix.splats.scene import SparseScene, fit_identity, start_fit
from splatfix.splats.train import FitConfig
from tests.splats.scene import random_gaussians, small_scene


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    return small_scene()


def write_cloud(path: Path, positions: np.ndarray, colors: np.ndarray | None = None) -> Path:
    channels = () if colors is None else ("red", "green", "blue")
    columns = [*((axis, "f8") for axis in "xyz"), *((channel, "u1") for channel in channels)]
    vertex = np.zeros(len(positions), columns)
    for axis, values in zip("xyz", positions.T, strict=True):
        vertex[axis] = values
    if colors is not None:
        for channel, values in zip(("red", "green", "blue"), colors.T, strict=True):
            vertex[channel] = values
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(path))
    return path


def find(scene: SparseScene, config: InitializationConfig, file_from_world: Similarity = IDENTITY):
    from splatfix.splats.initial_points import survey_photos

    photos = [photo.numpy() for photo in scene.photos]
    survey = survey_photos(scene.cameras, photos, scene.masks, None, config, file_from_world=file_from_world)
    return find_initial_points(scene.cameras, photos, scene.masks, None, config, np.random.default_rng(0), survey)


@pytest.mark.parametrize("far", [IDENTITY, Similarity(4.0, (430_000.0, 0.0, -20.0))])
def test_the_points_of_a_cloud_are_taken_as_they_are(scene, tmp_path, far):
    positions = np.random.default_rng(0).normal(0, 0.3, (50, 3))
    colors = np.random.default_rng(1).integers(0, 256, (50, 3))
    cloud = write_cloud(tmp_path / "cloud.ply", far.apply(positions), colors)
    points = find(scene, InitializationConfig(sources=("given",), ply=cloud), far)
    np.testing.assert_allclose(points.positions, positions, atol=1e-9)
    np.testing.assert_allclose(points.colors, colors / 255, atol=1e-6)
    assert points.counts()["given"] == 50


def test_a_cloud_without_colors_takes_those_of_the_photos(scene, tmp_path):
    point = np.array([[0.01, 0.0, 0.0]])
    cloud = write_cloud(tmp_path / "cloud.ply", point)
    (color,) = find(scene, InitializationConfig(sources=("given",), ply=cloud)).colors
    pixels = [camera.project(point)[0][0].astype(int) for camera in scene.cameras]
    seen = np.stack([photo.numpy()[y, x] for photo, (x, y) in zip(scene.photos, pixels, strict=True)])
    assert (color >= seen.min(0) - 0.05).all() and (color <= seen.max(0) + 0.05).all()


def write_depths(scene: SparseScene, folder: Path, scale: float = 1.0) -> list[np.ndarray]:
    folder.mkdir()
    depths = []
    for camera in scene.cameras:
        with torch.no_grad():
            rendering = render(Splat(random_gaussians(300, seed=0)), [camera])
        depth = np.where(rendering.alpha[0].numpy() > 0.5, rendering.depth[0].numpy(), 0)
        depths.append(depth)
        np.save(folder / camera.name.replace(".png", ".npy"), scale * depth)
    return depths


def test_depth_maps_take_the_place_of_stereo(scene, tmp_path):
    depths = write_depths(scene, tmp_path / "depths", scale=8.0)
    points = make_depth_points(tmp_path / "depths", 1.0, scene.cameras, scene.masks, Similarity(8.0))
    assert len(points) == sum(int((depth > 0).sum()) for depth in depths)
    for index, (camera, depth) in enumerate(zip(scene.cameras, depths, strict=True)):
        mine = points.view == index
        pixel, z = camera.project(points.positions[mine])
        column, row = points.pixels[mine].T
        np.testing.assert_allclose(pixel, np.stack([column + 0.5, row + 0.5], axis=1), atol=1e-6)
        np.testing.assert_allclose(z, depth[row, column], rtol=1e-6)
    assert points.coverage == pytest.approx(np.mean([depth > 0 for depth in depths]))
    assert points.num_agreeing.max() >= 1
    initial = find(scene, InitializationConfig(depths=tmp_path / "depths", num_random=0), Similarity(8.0))
    assert initial.counts()["stereo"] > 20


def test_images_hold_depths_in_units(tmp_path):
    millimeters = np.array([[1000, 2000], [0, 4000]], np.uint16)
    Image.fromarray(millimeters).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_depth_map(tmp_path / "a.png", 0.001, 2, 2), [[1, 2], [0, 4]])
    np.testing.assert_allclose(read_depth_map(tmp_path / "a.png", 0.001, 4, 4)[0], [1, 1, 2, 2])


def save_array(values):
    return lambda path: np.save(path.with_suffix(".npy"), values)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _: None, "no file for the photo v00.png; wanted one depth map named v00"),
        (save_array(np.ones((36, 12))), "depth map of 12x36; wanted the shape of its photo, 48 wide and 36 high"),
        (save_array(np.zeros((36, 48))), "no depth above 0"),
        (save_array(np.ones((36, 48, 3))), "array of shape .36, 48, 3.; wanted rows and columns"),
        (lambda path: path.with_suffix(".npy").write_bytes(b"\x93NUMPY"), "cannot be read as .npy"),
        (lambda path: Image.new("L", (48, 36), 9).save(path.with_suffix(".png")), "with 8 bits; wanted 16 bits"),
    ],
)
def test_depth_maps_that_cannot_be_used_are_refused(scene, tmp_path, write, message):
    write(tmp_path / "v00")
    with pytest.raises(ValueError, match=message):
        make_depth_points(tmp_path, 0.001, scene.cameras[:1], scene.masks[:1], IDENTITY)


def test_missing_files_are_refused_before_the_fit(scene, tmp_path):
    with pytest.raises(ValueError, match=r"gone\.ply: no such file"):
        list_given_files(InitializationConfig(ply=tmp_path / "gone.ply"), scene.cameras)
    with pytest.raises(ValueError, match="no such folder; wanted one depth map per photo"):
        list_given_files(InitializationConfig(depths=tmp_path / "gone"), scene.cameras)
    with pytest.raises(ValueError, match="no point cloud is given"):
        find(scene, InitializationConfig(sources=("given",)))


def test_a_cloud_of_another_world_is_refused(scene, tmp_path):
    cloud = write_cloud(tmp_path / "cloud.ply", np.random.default_rng(0).normal(500, 0.3, (50, 3)))
    with pytest.raises(ValueError, match="0 of 50 points lie in the view of a photo"):
        find(scene, InitializationConfig(sources=("given",), ply=cloud))
    with pytest.raises(ValueError, match=r"is a folder; wanted a \.ply to start from, such as"):
        list_given_files(InitializationConfig(start=tmp_path), scene.cameras)


def test_a_fit_starts_from_the_cloud_and_depends_on_its_content(scene, tmp_path):
    cloud = write_cloud(tmp_path / "cloud.ply", np.random.default_rng(0).normal(0, 0.3, (50, 3)))
    config = InitializationConfig(sources=("given",), ply=cloud, num_backdrop=0)
    assert len(start_fit(scene, FitConfig(steps=5), config, seed=0).splat().gaussians) == 50
    first = fit_identity(scene, initial=config)
    assert fit_identity(scene, initial=replace(config, ply=None, sources=("auto",))) != first
    write_cloud(cloud, np.random.default_rng(1).normal(0, 0.3, (50, 3)))
    assert fit_identity(scene, initial=config) != first
