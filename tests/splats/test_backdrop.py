"""Backgrounds: plain ones are recognized, and the shell fills every view without being part of the scene."""

import dataclasses

import numpy as np
import pytest
import torch

from splatfix.gaussians import Gaussians, Splat
from splatfix.rendering import render
from splatfix.splats.backdrop import (
    find_plain_color,
    make_shell,
    mask_plain_background,
    remove_backdrop,
    remove_shell,
)
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import start_fit
from splatfix.splats.train import FitConfig
from tests.splats.scene import random_gaussians, ring_cameras, small_scene

CAMERAS = ring_cameras(5)
RED = np.float32([0.8, 0.1, 0.2])


def on_plain(color=(1.0, 1.0, 1.0), noise=0.01) -> np.ndarray:
    """An object with a hole and a plain spot inside, before a plain background with a little noise."""
    photo = np.tile(np.float32(color), (40, 60, 1))
    photo[10:30, 20:40] = RED
    photo[18:22, 28:32] = color
    return photo + noise * np.random.default_rng(0).uniform(-1, 1, photo.shape).astype(np.float32)


def backdrop(num=400, **more) -> Gaussians:
    photos = [np.full((camera.height_px, camera.width_px, 3), 0.4, np.float32) for camera in CAMERAS]
    return make_shell(CAMERAS, photos, np.zeros((1, 3)), distance=4.0, num=num, sh_degree=1, **more)


def test_a_plain_background_is_recognized_by_the_rims():
    np.testing.assert_allclose(find_plain_color([on_plain(), on_plain()]), 1, atol=0.01)
    np.testing.assert_allclose(find_plain_color([on_plain((0, 0, 0))]), 0, atol=0.01)
    assert find_plain_color([on_plain(), on_plain((0.5, 0.5, 0.5))]) is None
    assert find_plain_color([np.random.default_rng(0).random((30, 30, 3), np.float32)]) is None


def test_white_parts_of_the_object_are_not_background():
    photo = on_plain()
    mask = mask_plain_background(photo, np.float32([1, 1, 1]))
    assert mask[10:30, 20:40].all()  # the white spot too: it does not reach the rim
    assert not mask[:9].any() and not mask[:, :19].any()


def test_the_shell_fills_every_view_and_has_the_photos_color():
    behind = backdrop()
    turned = [
        dataclasses.replace(c, camera_from_world=np.diag([-1.0, 1, -1, 1]) @ c.camera_from_world) for c in CAMERAS
    ]
    with torch.no_grad():
        for camera in [*CAMERAS, *turned]:
            rendering = render(Splat(behind), [camera])
            assert float(rendering.alpha.min()) > 0.9
            assert torch.allclose(rendering.rgb, torch.tensor(0.4), atol=0.05)
    colored = render(Splat(backdrop(color=RED)), CAMERAS[:1]).rgb[0].detach()
    assert torch.allclose(colored, torch.from_numpy(RED), atol=0.08)


def test_removing_the_shell_restores_the_scene():
    scene = random_gaussians(300, seed=0, sh_rest=3)
    both = scene.concatenate(backdrop())
    assert len(both) == 700
    assert torch.equal(remove_shell(both).means, scene.means)
    assert len(remove_shell(scene)) == 300
    assert len(remove_shell(random_gaussians(20, seed=0))) == 20


def test_only_a_splat_without_background_has_a_backdrop():
    scene = random_gaussians(300, seed=0, sh_rest=3)
    both = Splat(scene.concatenate(backdrop()), "antialiased")
    scene_alone = remove_backdrop(both)
    assert len(scene_alone.gaussians) == 300 and scene_alone.mode == "antialiased"
    assert remove_backdrop(scene_alone) is scene_alone
    on_white = dataclasses.replace(both, background=(1.0, 1.0, 1.0))
    assert remove_backdrop(on_white) is on_white


@pytest.mark.parametrize(("background", "num"), [(None, 400), ((1.0, 1.0, 1.0), 0)])
def test_a_fit_gets_a_shell_where_the_scene_has_no_background(background, num):
    scene = dataclasses.replace(small_scene(), background=background)
    initial = InitializationConfig(sources=("random",), num_random=100)
    fit = start_fit(scene, FitConfig(), initial, seed=0)
    alone = start_fit(scene, FitConfig(), dataclasses.replace(initial, num_backdrop=0), seed=0)
    assert len(fit.gaussians()) == len(alone.gaussians()) + num


def test_a_plain_background_confines_the_initial_points():
    scene = small_scene()
    plain = [torch.ones_like(photo) for photo in scene.photos]
    for photo in plain:
        photo[12:24, 16:32] = torch.tensor([0.8, 0.1, 0.2])
    scene = dataclasses.replace(scene, photos=tuple(plain), background=None, masks=(None,) * len(plain))
    initial = InitializationConfig(sources=("random",), num_random=100, num_backdrop=0)
    fit = start_fit(scene, FitConfig(), initial, seed=0)
    positions = fit.gaussians().means.detach().double().numpy()
    for camera in scene.cameras:
        pixels = camera.project(positions)[0]
        assert ((pixels >= [15, 11]) & (pixels <= [33, 25])).all()
