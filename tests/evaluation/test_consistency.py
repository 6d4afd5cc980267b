"""Consistency of constructed worlds: one world has a ratio near 1, a shift raises it, hidden surfaces do not count."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from splatfix.cameras import Camera
from splatfix.evaluation.consistency import Consistency, measure_consistency, nearest_pairs
from splatfix.gaussians import Splat
from splatfix.rendering import render
from tests.splats.scene import random_gaussians
from tests.test_cameras import camera_at
from tests.test_warping import camera, painted, plane_depth

XS = (-0.4, -0.2, 0.0, 0.25)


@pytest.fixture(scope="module")
def world() -> tuple[list[Camera], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Renders of one splat, with noise as photos have: cameras, images, depths and alphas."""
    gaussians = random_gaussians(1500, seed=0)
    splat = Splat(replace(gaussians, opacity_logits=torch.full((1500,), 3.0)), background=(0.2, 0.3, 0.4))
    cameras = [camera_at((x, -0.5, -3.0), name=f"v{i}", width=80, height=60) for i, x in enumerate(XS)]
    with torch.no_grad():
        renders = [render(splat, [at]) for at in cameras]
    return (
        cameras,
        [one.rgb[0].clamp(0, 1) for one in renders],
        [one.depth[0] for one in renders],
        [one.alpha[0] for one in renders],
    )


def noisy(images: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [image + 0.01 * torch.randn(image.shape, generator=generator) for image in images]


def plane(num: int = 3) -> tuple[list[Camera], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """A painted plane, whose depth is exact."""
    cameras = [replace(camera(0.2 * i), name=f"p{i}") for i in range(num)]
    depths = [plane_depth(at) for at in cameras]
    return cameras, [painted(at) for at in cameras], depths, [torch.ones_like(depth) for depth in depths]


def test_one_consistent_world_has_a_ratio_near_1(world):
    cameras, images, depths, alphas = world
    consistency = measure_consistency(noisy(images, 1), cameras, depths, alphas, noisy(images, 2))
    assert consistency.ratio == pytest.approx(1, abs=0.05)
    assert consistency.trimmed_ratio == pytest.approx(1, abs=0.05)
    assert all(pair.overlap > 0.1 and pair.repaired.psnr > 20 for pair in consistency.pairs)
    assert consistency.reasons == {} and all(pair.reason is None for pair in consistency.pairs)


def test_a_shift_raises_the_ratio_the_more_the_larger_it_is(world):
    cameras, images, depths, alphas = world
    ratios = []
    for shift_px in (0, 1, 2, 4):
        moved = [image.roll(shift_px if i % 2 else 0, dims=1) for i, image in enumerate(images)]
        ratios.append(measure_consistency(moved, cameras, depths, alphas, images).trimmed_ratio)
    assert ratios[0] == pytest.approx(1, abs=1e-9)
    assert ratios[1] > 1.2
    assert ratios == sorted(ratios)


def test_a_frame_that_changes_color_is_inconsistent():
    cameras, images, depths, alphas = plane()
    drifted = [images[0], 0.9 * images[1], images[2]]
    clean = noisy(images, 0)
    assert measure_consistency(drifted, cameras, depths, alphas, clean).ratio > 2
    pairs = measure_consistency(drifted, cameras, depths, alphas, clean, pairs=[(0, 2), (0, 1)]).pairs
    assert pairs[0].ratio < 1 < pairs[1].ratio


def test_hidden_pixels_do_not_count():
    cameras, images, depths, alphas = plane(2)
    before = measure_consistency(images, cameras, depths, alphas, pairs=[(0, 1)])
    hidden = depths[1].clone()
    hidden[8:20, 10:25] = 2.5  # something stands in front of the plane there
    changed = images[1].clone()
    changed[8:20, 10:25] = torch.tensor([1.0, 0.0, 0.0])
    after = measure_consistency([images[0], changed], cameras, [depths[0], hidden], alphas, pairs=[(0, 1)])
    assert after.pairs[0].overlap < 0.9 * before.pairs[0].overlap
    assert after.pairs[0].repaired.mean_absolute < 0.01
    seen = measure_consistency([images[0], changed], cameras, depths, alphas, pairs=[(0, 1)])
    assert seen.pairs[0].repaired.mean_absolute > 0.05
    assert seen.pairs[0].repaired.trimmed < seen.pairs[0].repaired.mean_absolute


def test_views_without_overlap_have_no_error_and_say_why():
    cameras, images, depths, alphas = plane(2)
    turned = camera_at((0, 0, -4), target=(0, 0, -8), name="turned", width=40, height=30)
    cameras, depths, alphas = [*cameras, turned], [*depths, torch.zeros(30, 40)], [*alphas, torch.zeros(30, 40)]
    frames = [*images, torch.zeros(30, 40, 3)]
    clean = noisy(frames, 0)
    both = measure_consistency(frames, cameras, depths, alphas, clean, pairs=[(0, 1), (0, 2)])
    first, second = both.pairs
    assert first.ratio is not None
    assert (second.repaired, second.clean, second.ratio, second.trimmed_ratio) == (None,) * 4
    assert second.reason == "no overlap: the neighbor sees 0 pixels of the view; wanted at least 32"
    assert both.ratio == first.ratio, "a pair without overlap is left out of the mean"
    only = measure_consistency(frames, cameras, depths, alphas, clean, pairs=[(0, 2)])
    assert only.ratio is None and only.reasons["ratio"].startswith("in none of 1 pairs: no overlap")


def test_missing_clean_views_and_exact_ones_give_no_ratio():
    cameras, images, depths, alphas = plane(2)
    without = measure_consistency(images, cameras, depths, alphas)
    assert without.error < 0.01 and without.clean_error is None
    assert without.reasons["ratio"].endswith("there are no clean views")
    gray = [torch.full_like(image, 0.5) for image in images]
    flat = measure_consistency(images, cameras, depths, alphas, gray)
    assert flat.ratio is None and "agree to 0.0001" in flat.reasons["ratio"]
    assert flat.pairs[0].clean.mean_absolute < 1e-6
    one = measure_consistency(images[:1], cameras[:1], depths[:1], alphas[:1])
    assert one.pairs == () and one.reasons["error"] == "fewer than two views"


def test_each_view_is_paired_with_the_nearest_other(world):
    cameras, _, depths, alphas = world
    assert nearest_pairs(cameras, depths, alphas) == [(0, 1), (1, 0), (2, 1), (3, 2)]
    assert nearest_pairs(cameras, [0 * depth for depth in depths], alphas) == [(0, 1), (1, 0), (2, 1), (3, 2)]


def test_json_round_trip_and_errors(world):
    cameras, images, depths, alphas = world
    consistency = measure_consistency(images, cameras, depths, alphas, noisy(images, 2))
    tree = json.loads(json.dumps(consistency.to_json()))
    assert Consistency.from_json(tree) == consistency
    del tree["pairs"][0]["repaired"]["trimmed"]
    with pytest.raises(ValueError, match=r"^consistency: pairs\.0\.repaired\.trimmed is missing"):
        Consistency.from_json(tree)


def test_sizes_and_counts_are_checked():
    cameras, images, depths, alphas = plane(2)
    with pytest.raises(ValueError, match="2 cameras, but 1 depths"):
        measure_consistency(images, cameras, depths[:1], alphas)
    with pytest.raises(ValueError, match=r"clean_frames of 'p0': 39 x 30 pixels; wanted 40 x 30"):
        measure_consistency(images, cameras, depths, alphas, [image[:, :-1] for image in images])


def test_ratios_leave_out_what_is_ignored_of_the_photos():
    cameras, images, depths, alphas = plane()
    clean = noisy(images, 2)
    validities = []
    for left, image in zip((2, 14, 26), clean, strict=True):  # somebody walks through the photos
        image[5:20, left : left + 10] = torch.tensor([1.0, 0.0, 0.0])
        validity = torch.ones(image.shape[:2])
        validity[5:20, left : left + 10] = 0
        validities.append(validity)
    given = (noisy(images, 1), cameras, depths, alphas)
    plain = measure_consistency(*given, noisy(images, 2))
    masked = measure_consistency(*given, clean, clean_validities=validities)
    assert masked.ratio == pytest.approx(plain.ratio, abs=0.1)
    assert measure_consistency(*given, clean).ratio < 0.5 * plain.ratio
    assert [pair.repaired for pair in masked.pairs] == [pair.repaired for pair in plain.pairs]
    none = measure_consistency(*given, clean, clean_validities=[torch.zeros_like(depth) for depth in depths])
    assert none.ratio is None and "the photos are ignored in all but 0" in none.reasons["ratio"]
