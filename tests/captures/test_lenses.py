"""Undistortion against photos whose every pixel is known, for each camera model that has distortion."""

import numpy as np
import pycolmap
import pytest

from splatfix.captures import PhotoOptions, open_capture
from splatfix.captures.lenses import NUM_PARAMS, Lens, compute_pinhole, make_lens, undistort
from splatfix.images import write_image
from tests.captures import writers
from tests.captures.writers import edit_json

W, H = 120, 90
LENSES = [
    Lens("SIMPLE_RADIAL", W, H, (110.0, 62.0, 44.0, -0.15)),
    Lens("SIMPLE_RADIAL", W, H, (110.0, 62.0, 44.0, 0.15)),
    Lens("RADIAL", W, H, (110.0, 62.0, 44.0, -0.2, 0.05)),
    Lens("OPENCV", W, H, (110.0, 105.0, 62.0, 44.0, -0.1, 0.02, 0.01, -0.008)),
    Lens("FULL_OPENCV", W, H, (110.0, 105.0, 62.0, 44.0, -0.1, 0.02, 0.001, 0.001, 0.01, 0.0, 0.0, 0.0)),
    Lens("OPENCV_FISHEYE", W, H, (70.0, 70.0, 60.0, 45.0, 0.02, 0.001, 0.0, 0.0)),
    Lens("SIMPLE_RADIAL_FISHEYE", W, H, (70.0, 60.0, 45.0, 0.02)),
    Lens("FOV", W, H, (90.0, 90.0, 60.0, 45.0, 0.6)),
]


def seen_along(rays: np.ndarray) -> np.ndarray:
    """A smooth color for each direction (x/z, y/z)."""
    return 0.5 + 0.45 * np.stack(
        [np.sin(9 * rays[..., 0]), np.cos(7 * rays[..., 1]), np.sin(5 * rays.sum(-1))], axis=-1
    )


def photo_through(lens: Lens) -> np.ndarray:
    """What the lens would photograph."""
    camera = pycolmap.Camera(model=lens.model, width=lens.width_px, height=lens.height_px, params=list(lens.params))
    x, y = np.meshgrid(np.arange(lens.width_px) + 0.5, np.arange(lens.height_px) + 0.5)
    rays = camera.cam_from_img(np.stack([x, y], axis=-1).reshape(-1, 2))
    return seen_along(np.nan_to_num(rays).reshape(lens.height_px, lens.width_px, 2)).astype(np.float32)


def photo_of(intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
    """What a pinhole camera would photograph, averaged over its pixels."""
    fine = 4
    x, y = np.meshgrid((np.arange(width * fine) + 0.5) / fine, (np.arange(height * fine) + 0.5) / fine)
    rays = np.stack([(x - intrinsics[0, 2]) / intrinsics[0, 0], (y - intrinsics[1, 2]) / intrinsics[1, 1]], axis=-1)
    return seen_along(rays).reshape(height, fine, width, fine, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: f"{lens.model} {lens.params[-1]}")
@pytest.mark.parametrize("share", [1.0, 0.6, 0.25])
def test_undistorted_photo_is_the_pinhole_photo(lens, share):
    ideal = compute_pinhole(lens)
    width, height = round(ideal.width_px * share), round(ideal.height_px * share)
    scale = np.diag([width / ideal.width_px, height / ideal.height_px, 1])
    made = undistort(photo_through(lens), lens, width, height)
    difference = np.abs(made - photo_of(scale @ ideal.intrinsics, width, height))
    assert made.shape == (height, width, 3)
    assert difference.max() < 0.03  # also at the borders: no blank pixels
    assert difference.mean() < 0.004


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: f"{lens.model} {lens.params[-1]}")
def test_crop_is_tight(lens):
    """No border pixel is blank, and a crop that is four pixels larger would have blank pixels."""
    ideal = compute_pinhole(lens)
    camera = pycolmap.Camera(model=lens.model, width=W, height=H, params=list(lens.params))

    def reach(margin: float) -> float:
        x = np.r_[np.linspace(-margin, ideal.width_px + margin, 99), np.full(99, -margin)]
        y = np.r_[np.full(99, -margin), np.linspace(-margin, ideal.height_px + margin, 99)]
        x, y = np.r_[x, ideal.width_px - x], np.r_[y, ideal.height_px - y]
        rays = np.stack([(x - ideal.cx) / ideal.fx, (y - ideal.cy) / ideal.fy, np.ones_like(x)], axis=-1)
        source = camera.img_from_cam(rays)
        return max(-source.min(), (source - [W, H]).max())

    assert reach(0) <= 1
    assert reach(4) > 0


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"k1": -0.1, "k2": 0.02, "p1": 0.01, "p2": -0.008}, "OPENCV"),
        ({"k1": -0.1, "k3": 0.01}, "FULL_OPENCV"),
        ({"k1": 0.02, "camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE"),
        ({"k1": 0.02, "is_fisheye": True}, "OPENCV_FISHEYE"),
        ({"k1": 0.0, "camera_model": "OPENCV"}, "PINHOLE"),
    ],
)
def test_transforms_with_distortion(fields, model, tmp_path):
    root = writers.write_transforms(tmp_path)
    edit_json(root / "transforms.json", lambda value: value.update(fields))
    lens = open_capture(root, longest_side_px=None).views[0].load.lens
    assert lens.model == model
    write_image(root / "images" / "a.png", photo_through(lens))
    capture = open_capture(root, longest_side_px=None)
    view = capture.view("a.png")
    assert any("undistorted on load" in note for note in capture.notes) == (model != "PINHOLE")
    wanted = photo_of(view.camera.intrinsics, view.camera.width_px, view.camera.height_px)
    assert np.abs(view.load().rgb - wanted).max() < 0.05


def test_colmap_with_distortion_and_other_image_size(tmp_path):
    """Images half the size that the camera was calibrated at, as in ``images_2``."""
    root = writers.write_colmap(tmp_path, lens=(2, (60.0, 25.0, 15.0, -0.2)))
    big = Lens("SIMPLE_RADIAL", 48, 32, (60.0, 25.0, 15.0, -0.2))
    small = Lens("SIMPLE_RADIAL", 24, 16, (30.0, 12.5, 7.5, -0.2))
    for name in writers.NAMES:
        write_image(root / "images" / name, photo_through(small))
    capture = open_capture(root)
    camera = capture.cameras[0]
    assert (
        max(camera.width_px, camera.height_px)
        <= 0.5 * max(compute_pinhole(big).width_px, compute_pinhole(big).height_px) + 1
    )
    wanted = photo_of(camera.intrinsics, camera.width_px, camera.height_px)
    assert np.abs(capture.views[0].load().rgb - wanted).max() < 0.05
    assert "4 images have another size than their camera (24x16, the camera says 48x32)" in capture.notes[0]


def test_pinholes_are_not_undistorted():
    for model, params in [("PINHOLE", (60.0, 61.0, 20.0, 15.0)), ("SIMPLE_RADIAL", (60.0, 20.0, 15.0, 0.0))]:
        lens = make_lens(model, 48, 32, params, "here")
        assert lens.is_pinhole
        assert (compute_pinhole(lens).width_px, compute_pinhole(lens).height_px, compute_pinhole(lens).cx) == (
            48,
            32,
            20.0,
        )
    assert not Lens("OPENCV_FISHEYE", 48, 32, (60.0, 60.0, 24.0, 16.0, 0.0, 0.0, 0.0, 0.0)).is_pinhole
    assert NUM_PARAMS["OPENCV"] == 8


def test_masks_are_undistorted_with_their_photo(tmp_path):
    root = writers.write_transforms(tmp_path)
    edit_json(root / "transforms.json", lambda value: value.update(k1=-0.3))
    lens = open_capture(root).views[0].load.lens
    photo = photo_through(lens)
    write_image(root / "images" / "a.png", np.concatenate([photo, photo[..., :1]], axis=2))
    view = open_capture(root, options=PhotoOptions(masks="object")).view("a.png")
    wanted = photo_of(view.camera.intrinsics, view.camera.width_px, view.camera.height_px)[..., 0]
    loaded = view.load()
    assert np.abs(loaded.mask - wanted).max() < 0.05
    np.testing.assert_allclose(loaded.rgb[..., 0], wanted**2 + 1 - wanted, atol=0.06)
