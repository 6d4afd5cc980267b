"""Estimated depth: its alignment with known points, the points that it adds, and its loss."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.captures import Points
from splatfix.config import build_config
from splatfix.rendering import Rendering, render
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.early_stopping import shrink_scene
from splatfix.splats.initial_points import InitializationConfig, Survey, find_initial_points, survey_photos
from splatfix.splats.losses import TrainingView, depth_loss
from splatfix.splats.monocular import Alignment, align_nearness
from splatfix.splats.scene import SparseScene, fit_identity, load_fit, start_fit
from splatfix.splats.train import Fit, FitConfig, advance
from splatfix.views import scene_depth
from tests.splats.scene import photos_of, random_gaussians, ring_cameras
from tests.splats.textured import camera, off_surface, photograph

CAMERAS = [camera(-0.5), camera(0.0, 0.2), camera(0.5), camera(0.2, -0.3)]
WITHOUT_STEREO = InitializationConfig(sources=("points",))
FIT = FitConfig(steps=40, densify=DensifyConfig(strategy="none"), depth_weight=0.2)


def make_known(num: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Depths, and estimates of them with scale 1/3 and shift -0.1: inverse depth is 3 * estimate + 0.3."""
    depths = np.random.default_rng(seed).uniform(1, 3, num)
    return (1 / depths - 0.3) / 3, depths


def test_scale_and_shift_are_found_among_outliers():
    nearness, depths = make_known()
    rng = np.random.default_rng(1)
    wrong = rng.permutation(200)[:60]
    depths[wrong] *= rng.choice([rng.uniform(0.2, 0.7, 60), rng.uniform(1.5, 5, 60)])
    depths *= rng.normal(1, 0.01, 200)
    found = align_nearness(nearness, depths)
    assert isinstance(found, Alignment)
    assert found.scale == pytest.approx(3, rel=0.03) and found.shift == pytest.approx(0.3, abs=0.02)
    assert 140 <= found.num_fitting <= 150 and found.num_points == 200
    assert align_nearness(nearness, depths) == found
    np.testing.assert_allclose(found.depth(np.array([0.1, -1.0])), [1 / 0.6, np.inf], rtol=0.03)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda near, depth: (near[:19], depth[:19]), "19 points with a known depth, wanted 20"),
        (lambda near, depth: (-near, depth), "takes near for far"),
        (lambda near, depth: (0 * near, depth), "is the same at all points"),
        (lambda near, depth: (near[::-1], depth), "fits .* of 200 points with a known depth, wanted 50%"),
        (lambda near, depth: (np.sin(300 * near), 10 + 0.01 * depth), "correlates by"),
    ],
)
def test_poor_estimates_are_refused_with_the_reason(change, reason):
    refused = align_nearness(*change(*make_known()))
    assert isinstance(refused, str)
    assert re.search(reason, refused)


@pytest.fixture(scope="module")
def photos():
    return [photograph(c) for c in CAMERAS]


def make_points(photos, names_of: tuple[int, ...] = (0, 1, 2, 3), num: int = 150) -> Points:
    """SfM points on the surfaces of the first photo."""
    rng = np.random.default_rng(1)
    row, column = rng.integers(96, size=num), rng.integers(128, size=num)
    world = CAMERAS[0].unproject(np.stack([column, row], 1) + 0.5, photos[0][1][row, column])
    names = frozenset(CAMERAS[index].name for index in names_of)
    return Points(world, np.zeros((num, 3), np.float32), (names,) * num)


def survey(photos, config: InitializationConfig, points: Points | None, *, masks=None, nearness=None) -> Survey:
    nearness = nearness or [0.5 / depth - 0.05 for _, depth, _ in photos]
    images, masks = [rgb for rgb, _, _ in photos], masks or [None] * 4
    return survey_photos(CAMERAS, images, masks, points, config, nearness=nearness)


def test_aligned_depths_give_points_on_the_surfaces(photos):
    config = replace(WITHOUT_STEREO, num_stereo=3000)
    found = survey(photos, config, make_points(photos))
    for alignment in found.estimated.alignments:
        assert alignment.scale == pytest.approx(2, rel=0.03) and alignment.shift == pytest.approx(0.1, abs=0.02)
    points = found.estimated.points
    assert points.coverage > 0.7 and points.num_agreeing.mean() > 1
    assert off_surface(points.positions).max() < 0.02
    images = [rgb for rgb, _, _ in photos]
    initial = find_initial_points(
        CAMERAS, images, [None] * 4, make_points(photos), config, np.random.default_rng(0), found
    )
    assert 2000 < initial.counts()["estimated"] <= 3000
    assert any("estimated depths cover another" in note for note in initial.notes)


def test_points_are_added_only_where_stereo_has_none(photos):
    config = InitializationConfig()
    found = survey(photos, config, make_points(photos))
    plain = survey_photos(CAMERAS, [rgb for rgb, _, _ in photos], [None] * 4, make_points(photos), config)
    np.testing.assert_array_equal(found.dense.positions, plain.dense.positions)
    assert found.dense.coverage == plain.dense.coverage > 0.4  # these say how far apart the photos are
    points = found.estimated.points
    assert len(points) > 500
    for index in range(4):
        stereo = np.zeros((96 + 4, 128 + 4), bool)
        column, row = found.dense.pixels[found.dense.view == index].T
        for y in range(5):
            for x in range(5):
                stereo[row + y, column + x] = True
        column, row = points.pixels[points.view == index].T
        assert not stereo[row + 2, column + 2].any()


def test_a_photo_without_points_and_one_with_a_wrong_estimate_are_named(photos):
    nearness = [0.5 / depth - 0.05 for _, depth, _ in photos]
    nearness[1] = -nearness[1]
    found = survey(photos, WITHOUT_STEREO, make_points(photos, (0, 1, 2)), nearness=nearness)
    assert [alignment is not None for alignment in found.estimated.alignments] == [True, False, True, False]
    first, second = found.estimated.notes
    assert first == f"{CAMERAS[1].name} gets no estimated depth: the estimate takes near for far"
    assert second == f"{CAMERAS[3].name} gets no estimated depth: 0 points with a known depth, wanted 20"
    assert set(found.notes) > {first, second}
    assert set(np.unique(found.estimated.points.view)) == {0, 2}


def test_points_stay_on_the_object_and_out_of_what_is_ignored(photos):
    masks = [board.astype(np.float32) for _, _, board in photos]
    found = survey(photos, WITHOUT_STEREO, make_points(photos, num=600), masks=masks)
    points = found.estimated.points
    assert len(points) > 100
    for index, mask in enumerate(masks):
        column, row = points.pixels[points.view == index].T
        assert (mask[row, column] > 0.5).all()
    validities = [np.ones((96, 128), np.float32), None, None, None]
    validities[0][:, :64] = 0
    images, nearness = [rgb for rgb, _, _ in photos], [0.5 / depth for _, depth, _ in photos]
    found = survey_photos(
        *(CAMERAS, images, [None] * 4, make_points(photos), WITHOUT_STEREO, validities), nearness=nearness
    )
    assert found.estimated.points.pixels[found.estimated.points.view == 0, 0].min() >= 64


def rendering_of(depth: torch.Tensor, alpha: torch.Tensor | None = None) -> Rendering:
    alpha = torch.ones_like(depth) if alpha is None else alpha
    return Rendering(torch.zeros(1, *depth.shape, 3), alpha[None], depth[None], ((depth.shape[1], depth.shape[0]),), {})


def test_the_loss_knows_neither_scale_nor_shift_nor_the_unit_of_the_world():
    depth = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) + 1
    right = depth_loss(rendering_of(depth), 0.3 / depth - 0.1)
    assert float(right) == pytest.approx(0, abs=1e-4)
    assert float(depth_loss(rendering_of(1000 * depth), 0.3 / depth - 0.1)) == pytest.approx(0, abs=1e-4)
    assert float(depth_loss(rendering_of(depth), -1 / depth)) == pytest.approx(2, abs=1e-4)
    assert float(depth_loss(rendering_of(depth), torch.ones(6, 8))) == pytest.approx(1, abs=1e-4)


def test_pixels_that_are_ignored_or_show_nothing_do_not_count():
    depth = torch.tensor([[1.0, 2.0, 3.0, 9.0, 0.0]], requires_grad=True)
    validity = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0]])
    nearness = torch.tensor([[1 / 1, 1 / 2, 1 / 3, 5.0, 7.0]])
    loss = depth_loss(rendering_of(depth, torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])), nearness, validity)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-4)
    assert depth.grad.isfinite().all() and not depth.grad[0, 3:].any()
    nothing = torch.zeros(2, 3, requires_grad=True)
    depth_loss(rendering_of(nothing, torch.zeros(2, 3)), torch.rand(2, 3)).backward()
    assert not nothing.grad.any()


def test_the_gradient_turns_a_wrong_order_right():
    depth = torch.tensor([[2.0, 1.0, 1.5]], requires_grad=True)  # the estimate: 1, 2, 3 from near to far
    optimizer = torch.optim.SGD([depth], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        depth_loss(rendering_of(depth), torch.tensor([[3.0, 2.0, 1.0]])).backward()
        optimizer.step()
    first, second, third = depth[0].tolist()
    assert first < second < third


def test_the_gradient_of_the_loss_reaches_the_gaussians():
    (view,) = ring_cameras(1)
    gaussians = random_gaussians(100, seed=0)
    means = gaussians.means.requires_grad_()
    rendering = render(replace(Fit(gaussians, FIT, scene_scale=4.0, num_photos=1).splat(), gaussians=gaussians), [view])
    depth_loss(rendering, torch.rand(36, 48)).backward()
    assert means.grad.isfinite().all() and means.grad.any()


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    """Photos of random Gaussians, points on them, and estimates of their depth."""
    cameras, truth = tuple(ring_cameras(4)), random_gaussians(300, seed=0)
    views = photos_of(truth, cameras)
    positions = truth.means.numpy().astype(np.float64)
    tracks = (frozenset(c.name for c in cameras),) * len(positions)
    points = Points(positions, np.full((300, 3), 0.5, np.float32), tracks)
    with torch.no_grad():
        depth = [render(Fit(truth, FIT, scene_scale=4.0, num_photos=4).splat(), [c]).depth[0] for c in cameras]
    nearness = tuple(torch.where(each > 0, 1 / each.clamp(min=0.1), 0) for each in depth)
    photos, empty = tuple(view.rgb for view in views), (None,) * 4
    return SparseScene(
        *(cameras, photos, empty, empty, points, None, scene_depth(cameras, points)),
        nearness=nearness,
        nearness_from="hash of a model",
    )


def with_model(**settings) -> InitializationConfig:
    return InitializationConfig(depth_model="a/model", sources=("points", "random"), num_random=100, **settings)


def depth_error(fit: Fit, scene: SparseScene) -> float:
    with torch.no_grad():
        renders = [render(fit.splat(), [camera]) for camera in scene.cameras]
    return sum(float(depth_loss(each, near)) for each, near in zip(renders, scene.nearness, strict=True))


def test_a_fit_follows_the_estimated_depth(scene):
    fits = {}
    for weight in (0.0, 0.2):
        fits[weight] = start_fit(scene, replace(FIT, depth_weight=weight), with_model(), seed=0)
        assert fits[weight].depth_photos == (True,) * 4
        advance(fits[weight], scene.views(), 40, seed=0)
    assert depth_error(fits[0.2], scene) < 0.9 * depth_error(fits[0.0], scene)


def test_photos_that_were_refused_have_no_depth_loss(scene):
    wrong = replace(scene, nearness=(*scene.nearness[:3], -scene.nearness[3]))
    fit = start_fit(wrong, FIT, with_model(), seed=0)
    assert fit.depth_photos == (True, True, True, False)
    assert fit.notes[-1].startswith("v03.png gets no estimated depth: ")
    views = wrong.views()
    twin = fit.copy()
    advance(fit, [views[3]] * 4, 3, seed=0)  # all four are trusted but the last
    assert twin.depth_photos == fit.depth_photos
    plain, refused = fit.copy(), fit.copy()
    plain.depth_photos, refused.depth_photos = (), (False,) * 4
    advance(plain, views, 8, seed=0)
    advance(refused, views, 8, seed=0)
    assert torch.equal(plain.params["means"], refused.params["means"])


def test_a_resumed_fit_with_depth_equals_an_uninterrupted_one(scene, tmp_path):
    whole = start_fit(scene, FIT, with_model(), seed=3)
    advance(whole, scene.views(), 40, seed=3)
    first = start_fit(scene, FIT, with_model(), seed=3)
    advance(first, scene.views(), 21, seed=3)
    first.save(tmp_path / "a.pt", "identity")
    options = {"scene_scale": first.scene_scale, "background": None, "device": torch.device("cpu")}
    second = load_fit(tmp_path / "a.pt", "identity", FIT, **options)
    assert second.depth_photos == (True,) * 4
    advance(second, scene.views(), 19, seed=3)
    for name, value in whole.params.items():
        assert torch.equal(value, second.params[name]), name
    assert whole.losses == second.losses


def test_repaired_views_have_no_depth_loss(scene):
    fit = start_fit(scene, FIT, with_model(), seed=0)
    twin, view = fit.copy(), scene.views()[0]
    plain = TrainingView(view.camera, view.rgb)
    for each, repaired in ((fit, view), (twin, plain)):
        advance(each, scene.views(), 3, seed=0, repaired=[repaired], repaired_probability=1.0)
    assert torch.equal(fit.params["means"], twin.params["means"])


def test_estimates_follow_their_photos(scene):
    others = shrink_scene(scene, 0.5).leave_out(1)
    assert len(others.nearness) == 3 and others.nearness_from == scene.nearness_from
    assert [tuple(each.shape) for each in others.nearness] == [(18, 24)] * 3
    assert [view.nearness is near for view, near in zip(others.views(), others.nearness, strict=True)] == [True] * 3
    torch.testing.assert_close(others.nearness[1], torch.nn.functional.avg_pool2d(scene.nearness[2][None], 2)[0])


def test_the_identity_of_a_fit_has_the_model(scene):
    plain = replace(scene, nearness=(), nearness_from=None)
    identities = {fit_identity(each, fit=FIT) for each in (scene, plain, replace(scene, nearness_from="other weights"))}
    assert len(identities) == 3


@pytest.mark.parametrize("other", ["depths", "start"])
def test_two_sources_of_depth_are_refused(other):
    with pytest.raises(ValueError, match=f"initial.depth_model and initial.{other} are both given; wanted one of them"):
        build_config(InitializationConfig, {"depth_model": "a/model", other: "folder"}, source="config.yaml")


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"fit.depth_weight = -0\.1: wanted a weight of at least 0"):
        FitConfig(depth_weight=-0.1)
