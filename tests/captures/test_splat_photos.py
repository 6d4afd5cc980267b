"""Photos of reference splats: drawn on the device of the run, in batches, and once."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix import rendering
from splatfix.captures import draw_on, open_capture, splat_photos
from splatfix.gaussians import Splat
from splatfix.images import resize
from splatfix.splats.scene import fit_identity, load_scene
from tests.captures import writers
from tests.captures.writers import edit_json

CPU = torch.device("cpu")


class Drawings(list):
    """The number of cameras of each call of `render`."""

    def __init__(self, monkeypatch) -> None:
        super().__init__()

        def count(splat, cameras, **more):
            self.append(len(cameras))
            return render(splat, cameras, **more)

        render = rendering.render
        monkeypatch.setattr(rendering, "render", count)


@pytest.fixture
def drawings(monkeypatch) -> Drawings:
    monkeypatch.setattr(splat_photos, "_DRAWN", splat_photos._DrawnPhotos())
    return Drawings(monkeypatch)


def test_photos_are_drawn_in_batches_and_are_those_drawn_one_by_one(tmp_path, drawings, monkeypatch):
    root = writers.write_splat(tmp_path)
    edit_json(root / "cameras.json", lambda cameras: cameras[1].update(width=2 * cameras[1]["width"]))
    capture = open_capture(root)
    one_by_one = []
    for view in capture.views:  # as it was done before
        camera = view.load.render_camera
        drawn = rendering.render(splat_photos.read_latest(capture.splat)[0], [camera])
        size = (view.camera.width_px, view.camera.height_px)
        images = (drawn.rgb[0].clamp(0, 1), drawn.alpha[0].clamp(0, 1))
        one_by_one.append([resize(image.detach().numpy(), *size) for image in images])
    drawings.clear()
    draw_on(capture, CPU, capture.names)
    assert sorted(drawings) == [1, 3]  # by size
    for view, (rgb, alpha) in zip(capture.views, one_by_one, strict=True):
        photo = view.load()
        np.testing.assert_array_equal(photo.rgb, rgb)
        np.testing.assert_array_equal(photo.mask, alpha)
    assert len(drawings) == 2
    monkeypatch.setattr(splat_photos, "_DRAWN", splat_photos._DrawnPhotos())
    monkeypatch.setattr(splat_photos, "BATCH_PX", 1)
    draw_on(capture, CPU, capture.names)
    assert drawings[2:] == [1] * 4


def test_a_second_load_does_not_draw_again_until_the_splat_changes(tmp_path, drawings):
    root = writers.write_splat(tmp_path)
    capture = open_capture(root)
    first = [view.load() for view in capture.views]
    assert drawings == [1] * 4
    again = open_capture(root)
    scene = load_scene(again, again.names, CPU)
    assert drawings == [1] * 4
    for photo, tensor in zip(first, scene.photos, strict=True):
        np.testing.assert_array_equal(photo.rgb, tensor.numpy())
    open_capture(root, longest_side_px=8).views[0].load()
    assert drawings == [1] * 5  # another size is another photo
    status = capture.splat.stat()
    os.utime(capture.splat, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    capture.views[0].load()
    assert drawings == [1] * 6


def test_memory_is_bounded(tmp_path, drawings, monkeypatch):
    capture = open_capture(writers.write_splat(tmp_path))
    camera = capture.views[0].camera
    photo_bytes = camera.width_px * camera.height_px * splat_photos.PHOTO_BYTES
    monkeypatch.setattr(splat_photos, "MAX_KEPT_BYTES", 2 * photo_bytes)
    draw_on(capture, CPU, capture.names)
    assert drawings == [2]  # those for which there is room
    for view in (*capture.views[:2], *capture.views[2:], *capture.views[:2]):
        view.load()
    assert drawings == [2, 1, 1, 1, 1]


def test_a_run_draws_them_on_its_device(tmp_path, drawings, monkeypatch):
    capture = open_capture(writers.write_splat(tmp_path))
    devices: list[str] = []
    monkeypatch.setattr(Splat, "to", lambda splat, device: devices.append(device) or splat)
    on_gpu = draw_on(capture, torch.device("cuda", 1), capture.names[:2])
    assert devices == ["cuda:1"] and drawings == [2]
    on_gpu.views[3].load()
    on_gpu.views[0].load()
    assert devices == ["cuda:1"] * 2 and drawings == [2, 1]
    capture.views[0].load()  # without a device, and for pages and viewers: on the CPU, and not the GPU's
    assert devices == ["cuda:1", "cuda:1", "cpu"]


def test_real_photos_are_left_alone(tmp_path):
    capture = open_capture(writers.write_transforms(tmp_path))
    assert draw_on(capture, CPU, capture.names) is capture


def test_a_run_on_renders_is_the_same_run_on_another_device(tmp_path):
    capture = open_capture(writers.write_splat(tmp_path))
    scene = load_scene(capture, capture.names[:3], CPU)
    noisy = replace(scene, photos=tuple(photo + 1e-6 for photo in scene.photos))
    assert fit_identity(noisy) == fit_identity(scene)
    smaller = load_scene(open_capture(capture.path, longest_side_px=8), capture.names[:3], CPU)
    assert fit_identity(smaller) != fit_identity(scene)
    os.utime(capture.splat)
    assert fit_identity(load_scene(capture, capture.names[:3], CPU)) == fit_identity(scene)
    (capture.splat.parent / "splat.json").write_text('{"schema": 1, "mode": "antialiased", "background": null}')
    assert fit_identity(load_scene(capture, capture.names[:3], CPU)) != fit_identity(scene)
