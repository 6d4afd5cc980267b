"""Ignored pixels have no part in a fit: whatever their colors are, the result is the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.splats.backdrop import find_plain_color, make_shell, mask_plain_background
from splatfix.splats.early_stopping import EarlyStoppingConfig, choose_stop
from splatfix.splats.hull import find_seen_valid
from splatfix.splats.initial_points import InitializationConfig, find_initial_points
from splatfix.splats.losses import photometric_loss
from splatfix.splats.scene import SparseScene, fit_identity, start_fit
from splatfix.splats.train import FitConfig, advance
from splatfix.splats.triangulate import TriangulateConfig, triangulate
from splatfix.views import scene_depth
from tests.splats.scene import photos_of, random_gaussians, ring_cameras, small_scene
from tests.splats.textured import camera, photograph

CAMERAS = tuple(camera(x) for x in (-0.6, -0.2, 0.2, 0.6))
INITIAL = InitializationConfig(sources=("stereo", "random"), num_random=200, num_backdrop=60)


def ignored(shape: tuple[int, int], index: int) -> np.ndarray:
    """1 but in a rectangle that is elsewhere in each photo, as of a passer-by."""
    validity = np.ones(shape, np.float32)
    height, width = shape
    validity[height // 4 : 3 * height // 4, width * index // 6 : width * (index + 2) // 6] = 0
    return validity


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Photos of the textured scene."""
    return [photograph(each)[0] for each in CAMERAS]


@pytest.fixture(scope="module")
def validities(photos) -> list[np.ndarray]:
    """What is ignored of them."""
    return [ignored(photo.shape[:2], index) for index, photo in enumerate(photos)]


@pytest.fixture(scope="module")
def scenes(photos, validities) -> list[SparseScene]:
    """The textured scene twice; the ignored pixels are red in the second."""
    red = [np.where(v[..., None] > 0, p, np.float32([1, 0, 0])) for p, v in zip(photos, validities, strict=True)]
    masks = (None,) * len(CAMERAS)
    given = tuple(torch.from_numpy(validity) for validity in validities)
    depth = scene_depth(CAMERAS)
    return [
        SparseScene(CAMERAS, tuple(map(torch.from_numpy, each)), masks, given, None, None, depth)
        for each in (photos, red)
    ]


@pytest.mark.slow
def test_a_fit_does_not_depend_on_ignored_pixels(scenes):
    fits = [start_fit(scene, FitConfig(steps=30, exposure_lr=1e-3), INITIAL, seed=0) for scene in scenes]
    for fit, scene in zip(fits, scenes, strict=True):
        advance(fit, scene.views(), 6, seed=0)
    for name, value in fits[0].params.items():
        assert torch.equal(value, fits[1].params[name]), name
    assert torch.equal(fits[0].exposure, fits[1].exposure)


def test_early_stopping_does_not_depend_on_ignored_pixels(scenes):
    config = EarlyStoppingConfig(enabled=True, folds=1, every=3, scale=1.0)
    fit = FitConfig(steps=6)
    initial = replace(INITIAL, sources=("random",))
    stops = [choose_stop(scene, initial, fit, config, seed=0) for scene in scenes]
    assert stops[0] == stops[1]


def test_the_identity_of_a_fit_depends_on_what_is_ignored(scenes):
    scene, _ = scenes
    whole = replace(scene, validities=(None,) * 4)
    fewer = replace(scene, validities=(*scene.validities[:3], None))
    assert len({fit_identity(each) for each in (scene, whole, fewer)}) == 3
    assert whole.ignored_share == 0 and 0.1 < fewer.ignored_share < scene.ignored_share


@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
def test_the_loss_has_no_gradient_at_ignored_pixels(ssim_weight):
    view, other = photos_of(random_gaussians(300, seed=0), ring_cameras(2))
    validity = torch.from_numpy(ignored((36, 48), 1))
    gradients = []
    for color in (0.0, 1.0):
        rgb = view.rgb.clone().requires_grad_()
        target = torch.where(validity[..., None] > 0, other.rgb, color)
        photometric_loss(rgb, target, ssim_weight, None, validity).backward()
        gradients.append(rgb.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert not gradients[0][validity == 0].any() and gradients[0][validity > 0].any()


def test_a_partly_valid_pixel_has_its_share_of_the_gradient():
    rgb = torch.full((4, 4, 3), 0.5, requires_grad=True)
    photometric_loss(rgb, torch.ones(4, 4, 3), 0.0, None, torch.full((4, 4), 0.25)).backward()
    torch.testing.assert_close(rgb.grad, torch.full_like(rgb, -0.25 / rgb.numel()))


def test_nothing_is_matched_at_ignored_pixels(photos, validities):
    rng = np.random.default_rng(0)
    config = replace(INITIAL, sources=("stereo",))
    found = find_initial_points(CAMERAS, photos, [None] * 4, None, config, rng, validities=validities)
    whole = find_initial_points(CAMERAS, photos, [None] * 4, None, config, rng)
    assert 0 < len(found) < len(whole)
    triangulated = triangulate(CAMERAS, photos, validities, TriangulateConfig())
    for index, view in enumerate(CAMERAS):
        x, y = view.project(triangulated.positions[triangulated.seen[:, index]])[0].T
        seen = validities[index][y.astype(int), x.astype(int)]
        assert seen.mean() > 0.95  # a point is up to 1.5 px from its keypoint
    behind = find_seen_valid(found.positions, CAMERAS, validities)
    assert not behind.all()  # points behind a passer-by are kept, which are dropped off the mask of an object


def test_a_plain_background_is_found_among_valid_border_pixels():
    photo = np.ones((40, 60, 3), np.float32)
    photo[10:30, 20:40] = [0.8, 0.1, 0.2]
    validity = np.ones((40, 60), np.float32)
    validity[:, :8] = 0
    photo[:, :8] = np.random.default_rng(0).random((40, 8, 3))
    assert find_plain_color([photo]) is None
    np.testing.assert_allclose(find_plain_color([photo], [validity]), 1)
    assert find_plain_color([photo], [np.zeros_like(validity)]) is None
    mask = mask_plain_background(photo, np.ones(3, np.float32), validity)
    assert mask[:, :8].all() and mask[10:30, 20:40].all() and not mask[:9, 8:].any()


def test_the_shell_has_no_color_of_ignored_pixels():
    cameras = ring_cameras(5)
    validity = ignored((36, 48), 2)
    photo = np.where(validity[..., None] > 0, np.float32(0.4), np.float32([1, 0, 0]))
    shell = make_shell(
        *(cameras, [photo] * 5, np.zeros((1, 3))),
        distance=4.0,
        num=300,
        sh_degree=0,
        validities=[validity] * 5,
    )
    gray = make_shell(cameras, [np.full_like(photo, 0.4)] * 5, np.zeros((1, 3)), distance=4.0, num=300, sh_degree=0)
    torch.testing.assert_close(shell.sh0, gray.sh0, atol=1e-4, rtol=0)


def test_scenes_without_ignored_pixels_are_as_before():
    scene = small_scene()
    assert all(view.validity is None for view in scene.views()) and scene.ignored_share == 0
    assert scene.leave_out(2).validities == (None,) * 4
